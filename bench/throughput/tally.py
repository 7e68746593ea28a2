"""A number that two processes share through a file: looking at it costs the one that counts nothing."""

import mmap
import struct
from pathlib import Path
from typing import Final

_FORM: Final = struct.Struct("<q")


class Tally:
    """The number in a file. Eight aligned bytes: a reader sees the old number or the new one."""

    def __init__(self, path: Path) -> None:
        """Open the file, made with a zero in it if it is not there."""
        if not path.exists():
            path.write_bytes(_FORM.pack(0))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), _FORM.size)

    def set(self, value: int) -> None:
        """Write the number."""
        _FORM.pack_into(self._memory, 0, value)

    def get(self) -> int:
        """Read the number."""
        value: int = _FORM.unpack_from(self._memory, 0)[0]
        return value
