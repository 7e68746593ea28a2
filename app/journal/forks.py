"""What a process that forks must not hand on: whoever has such a thing is told of every fork.

One account for the whole process, as SQLite's own: that knows the locks of a file once for all connections, and a child
inherits what it knows without the locks. What the child opens then takes for locked what is not, and what it commits
may be lost. https://www.sqlite.org/howtocorrupt.html#_carrying_an_open_database_connection_across_a_fork_
"""

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from operator import methodcaller
from pathlib import Path
from typing import Final, Protocol
from weakref import WeakSet

from app.job_safety.errors import StoreUnavailableError


class Forked(Protocol):
    """Whoever is told."""

    def before_fork(self) -> None:
        """Let go of what a child must not have; nothing of it may be made until `after_fork`."""

    def after_fork(self) -> None:
        """Go on, in the process that has forked."""

    def in_child(self) -> None:
        """Begin anew, in the child, where no other thread is left."""


_told: Final[WeakSet[Forked]] = WeakSet()
_torn: Final[set[Path]] = set()
_lock: Final = threading.RLock()


def tell(one: Forked) -> None:
    """Tell `one` of every fork for as long as it is there."""
    with _lock:
        _listen()
        _told.add(one)


def is_torn(file: Path) -> None:
    """Note in a child that `file` was in use when it was forked."""
    _torn.add(file.resolve())


def check_is_whole(file: Path) -> None:
    """Check that SQLite may open `file` in this process.

    Raises:
        StoreUnavailableError: a thread was using it when this process was forked.
    """
    if file.resolve() in _torn:
        raise StoreUnavailableError(
            f"journal: this process was forked while a thread of its parent was using {file}, and SQLite would lose "
            "what it writes; fork while no thread uses the journal, or start the process anew (spawn instead of fork)"
        )


def _before() -> None:
    _lock.acquire()
    for one in list(_told):
        one.before_fork()


def _over(tell_one: Callable[[Forked], None]) -> None:
    try:
        for one in list(_told):
            tell_one(one)
    finally:
        release(_lock)


def release(lock: threading.RLock) -> None:
    """Give back what was taken before the fork, if it was: Python forks although a signal's handler broke that off."""
    with suppress(RuntimeError):
        lock.release()


@cache
def _listen() -> None:
    """Be told of forks from now on: nothing is asked for at import."""
    os.register_at_fork(
        before=_before,
        after_in_parent=partial(_over, methodcaller("after_fork")),
        after_in_child=partial(_over, methodcaller("in_child")),
    )
