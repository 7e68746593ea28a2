"""The file that gets a copy of what is archived: JSON lines, gzipped, each batch a member of its own."""

import gzip
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from app.cli.output import as_json, iso
from app.journal.archive import unpack


class CopyFile:
    """A new file. What `keep` has returned from is on disk and can be read, whatever happens to a later batch."""

    def __init__(self, path: Path) -> None:
        """Make the file.

        Raises:
            FileExistsError: there is one; it is not touched.
            OSError: it cannot be made.
        """
        self.name = str(path.absolute())
        self._file = path.open("xb")

    def keep(self, batch: Sequence[tuple[Mapping[str, Any], bytes]], *, at_ms: int) -> None:
        """Append a line per intent, and sync it to disk."""
        lines = [as_json({**row, "archived_at": iso(at_ms), **unpack(body)}) for row, body in batch]
        self._file.write(gzip.compress("".join(f"{line}\n" for line in lines).encode()))
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()
