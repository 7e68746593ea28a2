"""Machines that can be cut off: a network namespace each, on a link of its own, with a name of its own.

Needs the rights to make namespaces and links (root, or CAP_NET_ADMIN and CAP_SYS_ADMIN) and iproute2.
"""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from tests.support.redis_server import die_with_parent

ROOT = Path(__file__).parents[2]


@dataclass(slots=True)
class Host:
    """One machine. Every service is at 127.0.0.1, at its own port, as it is seen from inside."""

    name: str
    number: int
    services: Mapping[int, str]
    """Port, and where it really is: `HOST:PORT` or the path of a socket."""
    folder: Path
    _running: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    @property
    def _link(self) -> str:
        return f"fo{os.getpid() % 100_000}v{self.number}"

    @property
    def _namespace(self) -> str:
        return f"fillonce-{os.getpid()}-{self.name}"

    def _address(self, side: int) -> str:
        # Other runs on this machine have links too.
        return f"10.{64 + os.getpid() // 100 % 64}.{os.getpid() % 100 * 2 + self.number}.{side}"

    def __enter__(self) -> Self:
        """Make the machine and its way to the services."""
        inside = f"{self._link}i"
        _ip("netns", "add", self._namespace)
        _ip("link", "add", self._link, "type", "veth", "peer", "name", inside)
        _ip("link", "set", inside, "netns", self._namespace)
        _ip("addr", "add", f"{self._address(1)}/24", "dev", self._link)
        _ip("link", "set", self._link, "up")
        _ip("-n", self._namespace, "addr", "add", f"{self._address(2)}/24", "dev", inside)
        _ip("-n", self._namespace, "link", "set", inside, "up")
        _ip("-n", self._namespace, "link", "set", "lo", "up")
        outer = [f"{self._address(1)}:{port}={target}" for port, target in self.services.items()]
        inner = [f"127.0.0.1:{port}={self._address(1)}:{port}" for port in self.services]
        self._start([sys.executable, "-m", "tests.chaos.relay", *outer], dict(os.environ), "relay-outside")
        self.run([sys.executable, "-m", "tests.chaos.relay", *inner], dict(os.environ), "relay-inside")
        for port in self.services:
            _wait_for(self._address(1), port)
        return self

    def __exit__(self, *_error: object) -> None:
        """End all that runs here, and take the machine away."""
        for one in self._running:
            one.kill()
            one.wait()
        with contextlib.suppress(PermissionError):
            _ip("link", "del", self._link)
        _ip("netns", "del", self._namespace)

    def run(self, command: Sequence[str], environment: Mapping[str, str], name: str) -> "subprocess.Popen[bytes]":
        """Run a command on this machine."""
        named = ["unshare", "--uts", "sh", "-c", f'hostname {self.name} && exec "$@"', "sh", *command]
        return self._start(["ip", "netns", "exec", self._namespace, *named], environment, name)

    def cut(self) -> None:
        """Take the link down: what is on its way is lost, and connections stay open on both sides."""
        _ip("link", "set", self._link, "down")

    def join(self) -> None:
        """Bring the link up again."""
        _ip("link", "set", self._link, "up")

    def _start(self, command: Sequence[str], environment: Mapping[str, str], name: str) -> "subprocess.Popen[bytes]":
        with (self.folder / f"{self.name}-{name}.log").open("ab") as log:
            one = subprocess.Popen(
                list(command), env={**environment, "PYTHONPATH": str(ROOT)}, cwd=self.folder, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log,
                preexec_fn=die_with_parent(),  # noqa: PLW1509 - one libc call, prepared beforehand
            )  # fmt: skip
        self._running.append(one)
        return one


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise PermissionError(f"ip {' '.join(arguments)}: {done.stderr.strip()}; needs the rights to make namespaces")


def _wait_for(host: str, port: int) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection((host, port), timeout=1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return
