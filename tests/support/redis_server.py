"""A real server for tests: its own process, port and append-only file; it dies with the test run, however that ends."""

import contextlib
import ctypes
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from app.embedded.redis_binary import choose_binary

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None

OWN_PORTS = range(20_000, 32_000)
"""Below those of connections: Linux takes 32768 to 60999 for them (net.ipv4.ip_local_port_range)."""


def die_with_parent(number: int = signal.SIGKILL) -> Callable[[], None]:
    """Return a `preexec_fn` that has the kernel send signal `number` to the child when its parent dies (Linux)."""

    def ask_kernel() -> None:
        if _LIBC is not None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, number)

    return ask_kernel


def free_port() -> int:
    """Return a loopback port that was free just now, and that the kernel gives to no connection meanwhile."""
    while True:
        port = secrets.choice(OWN_PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class RedisServer:
    """One server on a loopback port. Killed and started again it keeps its port and its data."""

    def __init__(self, folder: Path, *, appendfsync: str = "everysec", options: tuple[str, ...] = ()) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._options = ("--appendfsync", appendfsync, *options)
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self._binary = choose_binary(folder / "no-such-folder").path

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> "RedisServer":
        """Start the server and return once it answers."""
        command = [
            *(self._binary, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)),
            *("--appendonly", "yes", "--save", "", "--maxmemory-policy", "noeviction", "--daemonize", "no"),
            *self._options,
        ]
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={"LC_ALL": "C"},
                preexec_fn=die_with_parent(),  # noqa: PLW1509 - one libc call, prepared beforehand
            )
        deadline = time.monotonic() + 30
        while True:
            try:
                with self.client() as client:
                    # Our own process, not a stranger that got the port first.
                    if client.info("server")["process_id"] == self.pid and client.ping():  # refused while it loads
                        return self
            except (RedisError, OSError):
                pass
            if not self.is_running() or time.monotonic() > deadline:
                raise RuntimeError(f"no server on {self.url}: {(self.folder / 'server.log').read_text()[-800:]}")
            time.sleep(0.01)

    def stop(self) -> None:
        """End the server in order: its append-only file is synced."""
        self._signal(signal.SIGTERM)
        self._wait()

    def kill(self) -> None:
        """SIGKILL, and wait until it is dead."""
        self._signal(signal.SIGKILL)
        self._wait()

    def restart(self) -> None:
        """SIGKILL, then start again on the same data and port."""
        self.kill()
        self.start()

    def pause(self) -> None:
        """SIGSTOP: connections stay open and nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def renew(self) -> None:
        """Make it as good as new for the next test: running, answering, empty, its functions and settings untouched."""
        if self.is_running():
            self.resume()
        else:
            self.start()
        with self.client() as client:
            client.flushall()
            client.script_flush("SYNC")
            client.config_set("appendonly", "yes")
            client.config_set("maxmemory-policy", "noeviction")
            client.config_set("maxmemory", "0")

    def client(self, *, timeout_s: int = 5) -> "Redis":
        """Return a client that never repeats a command by itself."""
        return Redis(
            host="127.0.0.1",
            port=self.port,
            socket_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),
            decode_responses=True,
        )

    def _signal(self, number: int) -> None:
        if self._process is not None and self._process.poll() is None:
            os.kill(self._process.pid, number)

    def _wait(self) -> None:
        if self._process is not None:
            self._signal(signal.SIGCONT)
            self._process.wait(30)
