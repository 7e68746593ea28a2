"""Databases that can be broken: a PostgreSQL of one's own to kill, and a stranger who locks SQLite."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support import postgres
from tests.support.redis_server import die_with_parent

_LOCKER = """
import sys, time
try:
    from pysqlite3 import dbapi2 as sqlite3
except ImportError:
    import sqlite3
connection = sqlite3.connect(sys.argv[1], timeout=20, isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
time.sleep(float(sys.argv[2]))
connection.execute("ROLLBACK")
"""


class OwnPostgres:
    """A server that nobody else uses: it may be killed, and comes back with its data."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fillonce-chaos-pg-", dir="/tmp"))
        self._server: subprocess.Popen[bytes] = postgres._start(self.folder)
        self.url = f"postgresql+psycopg://postgres@/postgres?host={self.folder}"

    def is_running(self) -> bool:
        return self._server.poll() is None

    def kill(self) -> None:
        """SIGKILL the server and wait until it and its backends are gone."""
        backends = _children(self._server.pid)
        self._server.kill()
        self._server.wait(20)
        for pid in backends:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def start(self) -> None:
        """Start it again on the same data."""
        owner = self.folder.stat()
        identity: dict[str, Any] = {}
        if os.geteuid() == 0:
            identity = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []}
        deadline = time.monotonic() + 30
        while True:
            with (self.folder / "log").open("ab") as log:
                self._server = subprocess.Popen(
                    self._server.args, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, cwd=self.folder,
                    env={"LC_ALL": "C", "PATH": "/usr/bin:/bin", "HOME": str(self.folder)},
                    preexec_fn=die_with_parent(signal.SIGQUIT), **identity,  # noqa: PLW1509 - prepared beforehand
                )  # fmt: skip
            if self._is_ready(deadline):
                return

    def _is_ready(self, deadline: float) -> bool:
        """Wait until it takes connections; false if it ended, because the dead one's memory was still in use."""
        pid_file = self.folder / "data" / "postmaster.pid"
        while True:
            is_own = postgres._line(pid_file, 1) == str(self._server.pid)
            if is_own and postgres._line(pid_file, 8).startswith("ready"):
                return True
            assert time.monotonic() < deadline, (self.folder / "log").read_text()[-2000:]
            if self._server.poll() is not None:
                time.sleep(0.2)
                return False
            time.sleep(0.01)

    def close(self) -> None:
        """End it and remove its data."""
        postgres._end(self._server)
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def sqlite_locked(path: Path, seconds: float) -> Iterator[None]:
    """Have another program hold SQLite's write lock, as a backup tool does; not through our own lock file."""
    with subprocess.Popen(
        [sys.executable, "-c", _LOCKER, str(path), str(seconds)], stdout=subprocess.PIPE, text=True
    ) as locker:
        assert locker.stdout is not None
        assert locker.stdout.readline().strip() == "locked"
        yield


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []
