"""The line between supervisor and keeper: whose work to rescue, and whether it was.

The keeper has its connections and its code warm, where a new process opens and loads first: that is most of what a
rescue takes. Nothing depends on it: whatever is not answered in time is rescued by a process of its own.
"""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

PATIENCE_S: Final = 0.25
"""How long the keeper may take. Ten times what it needs, and little beside a lease that runs out."""

MAX_BYTES: Final = 65_536
_READY: Final = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    owners: Sequence[str]
    until_s: float


@dataclass(slots=True)
class SupervisorEnd:
    """Asks, and never waits. What comes back unanswered is the supervisor's to rescue in another way."""

    socket: socket.socket
    patience_s: float = PATIENCE_S
    _asked: dict[int, _Asked] = field(default_factory=dict)
    _failed: list[Sequence[str]] = field(default_factory=list)
    _count: int = _READY
    _is_ready: bool = False

    def ask(self, owners: Sequence[str]) -> bool:
        """Ask for the rescue of what `owners` were doing, all of them dead; return whether somebody may hear it."""
        self._hear()
        if not self._is_ready:
            return False
        self._count += 1
        asked = _Asked(owners=owners, until_s=time.monotonic() + self.patience_s)
        told = {"number": self._count, "owners": list(owners), "until_s": asked.until_s}
        try:
            self.socket.send(json.dumps(told).encode())
        except OSError:  # full, or nobody there: the other way is open
            return False
        self._asked[self._count] = asked
        return True

    def unanswered(self) -> list[Sequence[str]]:
        """Return, once each, whom the keeper could not rescue, or not in time."""
        self._hear()
        now_s = time.monotonic()
        late = [number for number, asked in self._asked.items() if asked.until_s <= now_s]
        self._failed += [self._asked.pop(number).owners for number in late]
        failed, self._failed = self._failed, []
        return failed

    def close(self) -> list[Sequence[str]]:
        """Return, once each, whom the keeper had not rescued when it died. For a keeper that is known to be dead."""
        self._hear()
        self.socket.close()
        left = self._failed + [asked.owners for asked in self._asked.values()]
        self._asked, self._failed = {}, []
        return left

    @property
    def due_s(self) -> float | None:
        """When (monotonic) the next answer is late; None: none is awaited."""
        return min((asked.until_s for asked in self._asked.values()), default=None)

    def _hear(self) -> None:
        with contextlib.suppress(OSError):  # nothing more, or nobody there: both show by what is not answered
            while raw := self.socket.recv(MAX_BYTES):
                told = json.loads(raw)
                self._is_ready = True
                asked = self._asked.pop(told["number"], None)
                if asked is not None and not told["is_done"]:
                    self._failed.append(asked.owners)


def make_line() -> tuple[SupervisorEnd, socket.socket]:
    """Return the supervisor's end and the keeper's."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.setblocking(False)
    return SupervisorEnd(ours), theirs


def listen(
    end: socket.socket, rescue: Callable[[str], bool], *, warm_up: Callable[[], None] = lambda: None
) -> threading.Thread:
    """Rescue whomever the supervisor names, in a thread, for as long as this process lives.

    Args:
        end: The keeper's end of the line.
        rescue: Is given the name of a dead owner and returns whether it could; must not raise.
        warm_up: Comes first: nobody is named before it has returned.
    """
    thread = threading.Thread(target=_listen, args=(end, rescue, warm_up), name="rescuer", daemon=True)
    thread.start()
    return thread


def _listen(end: socket.socket, rescue: Callable[[str], bool], warm_up: Callable[[], None]) -> None:
    warm_up()
    with contextlib.suppress(OSError):  # the supervisor is gone, and with it, in a moment, this process
        _answer(end, _READY, is_done=True)
        while raw := end.recv(MAX_BYTES):
            told = json.loads(raw)
            # Late: somebody else is at it already. Both clocks are this machine's.
            if time.monotonic() < told["until_s"]:
                done = [rescue(owner) for owner in told["owners"]]
                _answer(end, told["number"], is_done=all(done))


def _answer(end: socket.socket, number: int, *, is_done: bool) -> None:
    end.send(json.dumps({"number": number, "is_done": is_done}).encode())
