"""What somebody with access to Redis might have a worker call. It leaves a mark; no mark may ever be found."""

from pathlib import Path
from typing import Any


def leave_mark(path: str) -> None:
    """As a planted job."""
    Path(path).touch()


def leave_mark_of(job: Any, *_rest: object) -> None:
    """As a planted callback: the job's description names the file."""
    Path(job.description).touch()
