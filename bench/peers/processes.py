"""Sessions of processes: a worker with all its children, killed together as a container or a machine is."""

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import IO

from bench.output import ROOT


def start(command: list[str], environment: dict[str, str], log: IO[bytes], folder: Path) -> subprocess.Popen[bytes]:
    """Start a worker as the leader of a session of its own, with the project on its path."""
    told = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.Popen(
        command, env=told, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder, start_new_session=True
    )


def kill_one(pid: int) -> None:
    """SIGKILL a process."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def kill_session_of(pid: int) -> None:
    """SIGKILL the leader of the session of `pid` first, so that it can do nothing about its children, then these."""
    with suppress(ProcessLookupError):
        leader = os.getsid(pid)
        for one in (leader, *_members(leader)):
            kill_one(one)


def _members(leader: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != leader:
            with suppress(ProcessLookupError):
                if os.getsid(int(entry.name)) == leader:
                    found.append(int(entry.name))
    return found
