"""Processor time of processes that are not ours to ask: read from /proc. Linux only."""

import os
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Final

_PARENT: Final = 1
_SESSION: Final = 3
_TIMES: Final = slice(11, 15)
"""utime, stime, and the same of children that are dead and waited for (proc(5), from the state on)."""


def seconds_of(*, sessions: AbstractSet[int] = frozenset(), trees: AbstractSet[int] = frozenset()) -> float:
    """Return the time of all processes in these sessions, and of these processes with their children."""
    ticks = 0
    for pid, fields in _processes():
        if int(fields[_SESSION]) in sessions or pid in trees or int(fields[_PARENT]) in trees:
            ticks += sum(int(one) for one in fields[_TIMES])
    return ticks / os.sysconf("SC_CLK_TCK")


def _processes() -> Iterator[tuple[int, list[str]]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                text = (entry / "stat").read_text(encoding="utf-8", errors="replace")
            except OSError:
                continue  # it has just ended
            yield int(entry.name), text.rpartition(")")[2].split()
