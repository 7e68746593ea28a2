"""Counts commits in the write-ahead log of an SQLite database, from outside: the product runs as it is.

The log is a header and frames; the frame that ends a transaction carries the size of the database after it, every other
one a zero (https://www.sqlite.org/fileformat2.html#the_write_ahead_log). With `synchronous=FULL` each is synced.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_HEADER: Final = struct.Struct(">IIIIIIII")
_FRAME: Final = struct.Struct(">IIII")
_FRAME_HEADER: Final = 24


FULL_FRAMES: Final = 1000
"""From here on SQLite may begin the log anew (its default `wal_autocheckpoint`)."""


def commits(log: Path) -> int:
    """Return how many transactions the log holds since it was begun anew; 0 if it is empty or not there."""
    return sum(size_after != 0 for size_after in _frames(log))


def frames(log: Path) -> int:
    """Return how many frames that makes."""
    return sum(1 for _ in _frames(log))


def _frames(log: Path) -> Iterator[int]:
    """Yield of each frame the size of the database after it, in pages: zero if it does not end a transaction."""
    data = log.read_bytes() if log.exists() else b""
    if len(data) < _HEADER.size:
        return
    _, _, page_size, _, *salts = _HEADER.unpack_from(data)[:6]
    for start in range(_HEADER.size, len(data) - _FRAME_HEADER + 1, _FRAME_HEADER + page_size):
        _, size_after, *its_salts = _FRAME.unpack_from(data, start)
        if its_salts != salts:
            return  # left over from before
        yield size_after
