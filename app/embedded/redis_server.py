"""The private Redis: one server per data folder, for this user only, outliving whoever started it.

The server process itself holds a `flock` on its folder from before it runs until it is dead, however it dies: it
inherits the locked file from its starter. So "the lock is free" proves that no server runs, two starters make one
server, a starter killed at any moment leaves nothing behind, and no process id is ever trusted.
"""

import fcntl
import hashlib
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal
from urllib.parse import quote

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from app.clock import Clock
from app.embedded.home import prepare_home, private_folder
from app.embedded.redis_binary import EmbeddedRedisError, ServerBinary, choose_binary, write_stamp
from app.job_safety.errors import StoreUnavailableError

Fsync = Literal["everysec", "always"]

START_LIMIT_S: Final = 60
"""Longest wait for a server that runs: it may be reading a long append-only file."""

_REPLY_LIMIT_S: Final = 2
_POLL_S: Final = 0.01
_SOCKET_PATH_MAX: Final = 103
"""Bytes of sockaddr_un.sun_path without its final NUL: 107 on Linux (unix(7)), 103 on macOS."""

_REQUIRED: Final = {"appendonly": "yes", "maxmemory-policy": "noeviction"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisEndpoint:
    """A private Redis that has answered."""

    url: str
    """`unix:///…/redis.sock?db=0`: what redis-py, `rq -u` and rq-dashboard take."""
    pid: int
    started: bool
    """Whether this call started it; false if it was running already."""
    flavour: str
    version: str


def ensure_redis(home: Path, clock: Clock, *, appendfsync: Fsync = "everysec") -> RedisEndpoint:
    """Have the private Redis of `home` running and answering: found, or started and left running on its own.

    Args:
        home: the data folder; made for this user alone if missing.
        clock: for bounded waiting.
        appendfsync: how a server that has to be started syncs its append-only file.

    Raises:
        EmbeddedRedisError: no server program may run on this folder, or it will not start; says the remedy.
        HomeError: the folder cannot be used.
        StoreUnavailableError: a server runs on this folder and does not answer.
    """
    data = data_folder(home)
    socket = socket_path(data)
    deadline = clock.monotonic() + START_LIMIT_S
    started = False
    while True:
        if (endpoint := _ask(data, socket, started=started)) is not None:
            return endpoint
        with _lock(data) as lock:
            if lock is not None:
                if started:
                    raise EmbeddedRedisError(f"the private Redis ended while starting: {_log_tail(data)}")
                _start(data, socket, lock, appendfsync)
                started = True
        if clock.monotonic() > deadline:
            raise StoreUnavailableError(f"a Redis runs on {data} but does not answer: look at {data / 'server.log'}")
        clock.sleep(_POLL_S)


def stop_redis(home: Path, clock: Clock) -> bool:
    """Shut the private Redis of `home` down in order, its append-only file synced, and wait until it is gone.

    Returns:
        True if a server was stopped, false if none was running.

    Raises:
        StoreUnavailableError: it does not end.
    """
    data = data_folder(home)
    deadline = clock.monotonic() + START_LIMIT_S
    asked = False
    while True:
        with _lock(data) as lock:
            if lock is not None:
                return asked
        asked = _shut_down(socket_path(data)) or asked
        if clock.monotonic() > deadline:
            raise StoreUnavailableError(f"the Redis on {data} does not shut down: look at {data / 'server.log'}")
        clock.sleep(_POLL_S)


def data_folder(home: Path) -> Path:
    """Return the folder that the server of `home` writes to, readable by this user only."""
    return private_folder(prepare_home(home) / "redis")


def socket_path(data: Path) -> Path:
    """Return where the server of `data` listens; a short place stands in for a path that is too long for a socket."""
    direct = data / "redis.sock"
    if len(os.fsencode(direct)) <= _SOCKET_PATH_MAX:
        return direct
    # Not TMPDIR or XDG_RUNTIME_DIR: every process of this user must find the same place, whatever its environment.
    folder = private_folder(Path(f"/tmp/fillonce-{os.geteuid()}"))  # noqa: S108 - made private, its owner checked
    return folder / f"{hashlib.sha256(os.fsencode(data)).hexdigest()[:32]}.sock"


@contextmanager
def _lock(data: Path) -> Iterator[int | None]:
    """Hold the folder's lock, or yield None if a server holds it. Closing never unlocks a copy that was inherited."""
    lock = os.open(data / "server.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield lock
    finally:
        os.close(lock)


def _start(data: Path, socket: Path, lock: int, appendfsync: Fsync) -> None:
    binary = choose_binary(data)
    write_stamp(data, binary)
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(data),
        "appendonly": "yes",
        "appendfsync": appendfsync,
        "save": "",
        "maxmemory-policy": "noeviction",
        "daemonize": "yes",
        "pidfile": str(data / "server.pid"),
        "logfile": str(data / "server.log"),
    }
    command = [binary.path, *(word for name, value in options.items() for word in (f"--{name}", value))]
    # No environment of ours: it may hold credentials, and an unknown LC_ALL keeps the server from starting.
    # `daemonize` gives it a session of its own, so that neither Ctrl-C nor kill -9 of the starter reaches it.
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=data,
        env={"LC_ALL": "C"},
        pass_fds=(lock,),
        umask=0o077,
        start_new_session=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise EmbeddedRedisError(f"{binary} does not start: {done.stdout.strip()[-500:] or _log_tail(data)}")


def _ask(data: Path, socket: Path, *, started: bool) -> RedisEndpoint | None:
    """Return the server that answers on `socket`, or None if none does yet.

    Raises:
        EmbeddedRedisError: what answers is not the server of this folder, or not safe to trade on.
    """
    if not socket.exists():
        return None
    try:
        with _client(socket) as client:
            info = client.info("server")
            # One name per call: CONFIG GET takes several only from Redis 7.0 on.
            config = {name: client.config_get(name).get(name, "") for name in ("dir", *_REQUIRED)}
    except (RedisError, OSError):
        return None  # not listening yet, still reading its data, or stalled: the caller knows how long to wait
    if (where := Path(str(config["dir"])).resolve()) != data:
        raise EmbeddedRedisError(f"the server on {socket} keeps its data in {where}, not in {data}: stop it first")
    if wrong := [f"{name} is {config[name]!r}" for name, value in _REQUIRED.items() if config[name] != value]:
        raise EmbeddedRedisError(
            f"the Redis on {data} was changed and may lose keys ({', '.join(wrong)}): stop it first"
        )
    binary = _identity(info)
    return RedisEndpoint(
        url=f"unix://{quote(str(socket))}?db=0",
        pid=int(info["process_id"]),
        started=started,
        flavour=binary.flavour,
        version=binary.version,
    )


def _identity(info: dict[str, object]) -> ServerBinary:
    # Valkey goes on saying redis_version 7.2.4 for old clients; its own version stands beside it.
    flavour = "valkey" if "valkey_version" in info else "redis"
    return ServerBinary(path="", flavour=flavour, version=str(info[f"{flavour}_version"]))


def _shut_down(socket: Path) -> bool:
    try:
        with _client(socket) as client:
            client.shutdown()
    except RedisTimeoutError:
        return True  # it was asked, and is busy syncing
    except (RedisError, OSError):
        return False  # not listening yet or any more, or refused for now: the caller asks again
    return True


def _client(socket: Path) -> Redis:
    return Redis(
        unix_socket_path=str(socket),
        socket_timeout=_REPLY_LIMIT_S,
        socket_connect_timeout=_REPLY_LIMIT_S,
        retry=Retry(NoBackoff(), 0),
        decode_responses=True,
    )


def _log_tail(data: Path) -> str:
    try:
        return (data / "server.log").read_text(encoding="utf-8", errors="replace")[-500:].strip()
    except OSError:
        return "it left no log"
