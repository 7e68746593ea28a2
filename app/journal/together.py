"""Changes of several threads that wait for SQLite's one writer, made in one transaction: the disk is waited for once.

Whoever gets the turn makes its own change and those of all who wait by then. PostgreSQL syncs commits that wait at the
same time together by itself.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection

from app.job_safety.errors import StoreUnavailableError
from app.journal.file_lock import LOCK_TIMEOUT_S

T = TypeVar("T")


class _State(Enum):
    """What has become of a change, for the thread that asked for it and finds it so when it has the turn."""

    WAITING = auto()
    """Nobody has run it: it is made now, with all others that wait."""

    TRIED = auto()
    """It was run in a transaction that was rolled back, by an error of any of those in it: it is made alone."""

    UNSURE = auto()
    """It was run in a transaction whose commit was begun, and was not answered, or failed: it counts as not won."""

    MADE = auto()
    """It is on disk."""


@dataclass(slots=True, eq=False, repr=False)
class _Change(Generic[T]):
    run: Callable[[Connection], T]
    state: _State = _State.WAITING
    result: T = field(init=False)


class Together:
    """The changes that wait in one process. A child has its own: who holds the turn here is not there."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._waiting: deque[_Change[Any]] = deque()

    def make(self, change: Callable[[Connection], T], write: Callable[[], AbstractContextManager[Connection]]) -> T:
        """Run `change` in a transaction, alone or with others; return what it does once that is on disk.

        An error of its own is raised here and nowhere else, and one of another change nowhere here: then it is run a
        second time, the first having left nothing. It may be run by another thread, before this one goes on.

        Args:
            change: Run with a connection in a write transaction.
            write: Lends one, as `Journal.write`.

        Raises:
            StoreUnavailableError: as `Journal.write`; also of a commit that another thread has not won.
        """
        mine = _Change(change)
        until_s = time.monotonic() + LOCK_TIMEOUT_S
        self._waiting.append(mine)
        try:
            with self._turn:
                if mine.state is _State.WAITING:
                    self._make_all(mine, write, until_s)
                if mine.state is _State.TRIED:
                    with write() as connection:
                        mine.result = mine.run(connection)
                    return mine.result
        except BaseException:  # also what a signal's handler raises: nobody is to make what nobody waits for
            with suppress(ValueError):  # another thread may have taken it up
                self._waiting.remove(mine)
            raise
        if mine.state is _State.UNSURE:
            raise StoreUnavailableError("journal: another thread's commit, of this change too, was not answered")
        return mine.result

    def _make_all(
        self, mine: _Change[Any], write: Callable[[], AbstractContextManager[Connection]], until_s: float
    ) -> None:
        """Make `mine`, and then in their order those that wait, or come while the others are made.

        The states are set such that whatever ends this, wherever, leaves each one to be dealt with by its own thread.
        """
        if time.monotonic() > until_s:
            raise StoreUnavailableError(f"other threads waited for the journal for {LOCK_TIMEOUT_S} s")
        if mine in self._waiting:  # else a leader was broken off just when it had taken it up
            self._waiting.remove(mine)
        all_run: list[_Change[Any]] = []
        try:
            with write() as connection:
                one = mine
                while True:
                    one.state = _State.TRIED
                    all_run.append(one)
                    one.result = one.run(connection)
                    try:
                        one = self._waiting.popleft()
                    except IndexError:
                        break
                for one in all_run:
                    one.state = _State.UNSURE
            for one in all_run:
                one.state = _State.MADE
        except Exception:
            if mine.state is not _State.TRIED or len(all_run) == 1:
                raise
            # Rolled back: each is made by its own thread, where the guilty one will raise this again.
