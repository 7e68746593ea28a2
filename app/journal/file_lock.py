"""The place of SQLite's one writer, which processes and threads wait for in turns."""

import fcntl
import os
import threading
import time
from typing import Final

from app.job_safety.errors import StoreUnavailableError
from app.journal import forks

LOCK_TIMEOUT_S: Final = 30
"""How long a writer waits for another before it gives up and says that the journal is unavailable."""


class FileLock:
    """Writers queue here before BEGIN IMMEDIATE: SQLite's own busy handler sleeps, and its tail is 100 ms and more.

    Threads of one process hand it on among themselves; between processes one has to look again and again. The kernel
    drops the lock when its holder dies.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._here, self._opening = threading.Lock(), threading.RLock()
        self._held: int | None = None
        forks.tell(self)

    def take(self) -> int:
        """Be the only writer, among processes and threads, until what this returns is given back.

        Raises:
            StoreUnavailableError: another one held it for `LOCK_TIMEOUT_S`.
        """
        if not self._here.acquire(timeout=LOCK_TIMEOUT_S):
            raise StoreUnavailableError(f"another thread held the journal for {LOCK_TIMEOUT_S} s")
        try:
            with self._opening:
                self._held = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            _lock(self._held)
        except BaseException:  # also what a signal's handler raises: the lock must not outlive the wish for it
            self._leave()
            raise
        return self._held

    def give(self, descriptor: int) -> None:
        """Let the next one write."""
        try:
            # Closing would do, were it not for a child that was just forked and still has a copy.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        finally:
            self._leave()

    def _leave(self) -> None:
        held, self._held = self._held, None
        try:
            if held is not None:
                os.close(held)
        finally:
            self._here.release()

    def before_fork(self) -> None:
        """Open nothing until the fork is over: a child must know what it has a copy of."""
        self._opening.acquire()

    def after_fork(self) -> None:
        """Go on."""
        forks.release(self._opening)

    def in_child(self) -> None:
        """Be free: whoever has it, or waits for it, is not here; its descriptor would hold it on beyond its death."""
        held, self._held = self._held, None
        if held is not None:
            os.close(held)
        self._here, self._opening = threading.Lock(), threading.RLock()


def _lock(descriptor: int) -> None:
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    pause_s = 0.0001
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise StoreUnavailableError(f"another process held the journal for {LOCK_TIMEOUT_S} s") from None
            time.sleep(pause_s)
            # Others hold it for a millisecond or two: whoever doubled its pauses would be late by as much.
            pause_s = min(pause_s * 1.25, 0.002)
        else:
            return
