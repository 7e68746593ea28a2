"""Redis under a real Sentinel: a master, a replica, and the watcher that promotes one when the other dies."""

import contextlib
import subprocess
import time
from pathlib import Path
from typing import Any, Self

from redis import Redis
from redis.exceptions import RedisError

from app.embedded.redis_binary import choose_binary
from tests.support.redis_server import RedisServer, die_with_parent, free_port

NAME = "chaos"
DOWN_AFTER_MS = 2_000
PATIENCE_S = 30


class RedisUnderSentinel:
    """Stands where a `RedisServer` stands: `url` names Sentinel, `client()` talks to whoever is master now."""

    def __init__(self, folder: Path) -> None:
        first, second = RedisServer(folder / "first"), RedisServer(folder / "second")
        self.folder = folder
        self.port = free_port()
        self.url = f"redis+sentinel://127.0.0.1:{self.port}/{NAME}"
        self._servers = {first.port: first, second.port: second}
        self._master = first
        self._sentinel: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Start all three and return once the replica has caught up and Sentinel knows of it."""
        for server in self._servers.values():
            server.start()
        self._follow()
        config = self.folder / "sentinel.conf"
        config.write_text(
            f"port {self.port}\nbind 127.0.0.1\nprotected-mode no\ndir {self.folder}\n"
            f"sentinel monitor {NAME} 127.0.0.1 {self._master.port} 1\n"
            f"sentinel down-after-milliseconds {NAME} {DOWN_AFTER_MS}\n"
            f"sentinel failover-timeout {NAME} 3000\n"
        )
        with (self.folder / "sentinel.log").open("ab") as log:
            self._sentinel = subprocess.Popen(
                [choose_binary(self.folder / "no-such-folder").path, str(config), "--sentinel"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env={"LC_ALL": "C"},
                preexec_fn=die_with_parent(),  # noqa: PLW1509 - one libc call, prepared beforehand
            )  # fmt: skip
        self._await_replica()
        return self

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_error: object) -> None:
        self.close()

    def client(self, *, timeout_s: int = 5) -> Redis:
        """Return a client of the present master that never repeats a command by itself."""
        self._look()
        return self._master.client(timeout_s=timeout_s)

    def renew(self) -> None:
        """Do nothing: it is made anew for every run."""

    def is_running(self) -> bool:
        return self._master.is_running()

    def forget_from_now_on(self) -> None:
        """Let the replica hear nothing of what is written from here on.

        It is stopped, so that it cannot connect again; its connection is cut too, since what is sent to a stopped
        process waits in the kernel and is read once it goes on.
        """
        self._await_replica()
        self._replica.pause()
        with self._master.client() as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "REPLICA")

    def fail_over(self) -> None:
        """Kill the master and return once Sentinel has promoted the replica; the dead one comes back as its replica."""
        dead, heir = self._master, self._replica
        dead.kill()
        heir.resume()
        deadline = time.monotonic() + PATIENCE_S
        while not (self._master_port() == heir.port and _is_master(heir)):
            assert time.monotonic() < deadline, self._words()
            time.sleep(0.02)
        self._master = heir
        dead.start()
        self._follow()

    def close(self) -> None:
        """End all three."""
        if self._sentinel is not None:
            self._sentinel.kill()
            self._sentinel.wait(20)
        for server in self._servers.values():
            server.kill()

    @property
    def _replica(self) -> RedisServer:
        return next(one for one in self._servers.values() if one is not self._master)

    def _follow(self) -> None:
        with self._replica.client() as client:
            client.execute_command("REPLICAOF", "127.0.0.1", str(self._master.port))

    def _await_replica(self) -> None:
        """Wait until the replica has caught up, and Sentinel knows it and takes it for healthy."""
        deadline = time.monotonic() + PATIENCE_S
        self._look()
        while not (self._has_caught_up() and self._is_known()):
            assert time.monotonic() < deadline, self._words()
            time.sleep(0.05)
            self._look()

    def _look(self) -> None:
        """Learn who is master: on a busy machine Sentinel may take a healthy one for dead, and promote the other."""
        named = self._servers.get(self._master_port())
        if named is not None and named is not self._master and _is_master(named):
            self._master = named

    def _has_caught_up(self) -> bool:
        with contextlib.suppress(RedisError), self._replica.client() as client:
            told = client.info("replication")
            return told["role"] == "slave" and told["master_link_status"] == "up"
        return False

    def _is_known(self) -> bool:
        replicas = self._ask("sentinel_slaves", NAME) or []
        return any(int(one["port"]) == self._replica.port and one["flags"] == "slave" for one in replicas)

    def _master_port(self) -> int:
        found = self._ask("sentinel_get_master_addr_by_name", NAME)
        return int(found[1]) if found else 0

    def _ask(self, question: str, *arguments: str) -> Any:
        with contextlib.suppress(RedisError), Redis(port=self.port, decode_responses=True, socket_timeout=5) as client:
            return getattr(client, question)(*arguments)
        return None

    def _words(self) -> str:
        return f"Sentinel did not promote: {(self.folder / 'sentinel.log').read_text()[-3000:]}"


def _is_master(server: RedisServer) -> bool:
    with contextlib.suppress(RedisError), server.client() as client:
        return bool(client.info("replication")["role"] == "master")
    return False
