"""The command log: one JSON line per accepted command, on disk before the reply leaves.

A line reaches the kernel with one write, so a killed process loses nothing it answered; ``fsync`` guards against a
power loss too. A torn last line (power loss) was never answered and is cut off at the next start.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_ENCODER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)
LOG_NAME = "exchange.jsonl"


class CommandLog:
    """Append-only file of JSON lines, held by one process."""

    def __init__(self, directory: Path, *, fsync: bool = False) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.path = directory / LOG_NAME
        self._fsync = fsync
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        _lock(self._fd)

    def read(self) -> Iterator[dict[str, Any]]:
        """All whole records, oldest first; cuts a torn last line off.

        Raises:
            ValueError: A line other than the last is damaged.
        """
        whole = 0
        with self.path.open("rb") as handle:
            for line in handle:
                if not line.endswith(b"\n"):
                    os.ftruncate(self._fd, whole)
                    return
                whole += len(line)
                yield json.loads(line)

    def append(self, record: dict[str, Any]) -> None:
        """Write one record; returns when the kernel (with ``fsync``: the disk) has it.

        Raises:
            OSError: It could not be written whole. The process must not go on: its state is ahead of the log.
        """
        line = (_ENCODER.encode(record) + "\n").encode()
        written = os.write(self._fd, line)
        if written != len(line):
            raise OSError(f"short write to {self.path}: {written} of {len(line)} bytes")
        if self._fsync:
            os.fdatasync(self._fd)

    def close(self) -> None:
        """Sync and close."""
        os.fsync(self._fd)
        os.close(self._fd)


def _lock(fd: int) -> None:
    import fcntl

    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
