"""Who is at work in a process of several threads, so that one of them can be alone.

Nobody waits in here with a job in its hands: who may not enter gives its job back first, or the death of whoever is
inside would count against it.
"""

import threading
from typing import Final

_Who = object


class Room:
    """Everybody may be at work at once, or one alone. Who asks to be alone is next: no stream of others starves it."""

    def __init__(self) -> None:
        self._changed: Final = threading.Condition()
        self._inside = 0
        self._alone: _Who | None = None
        self._next: _Who | None = None

    def enter(self, who: _Who) -> bool:
        """Come to work, alone if that was asked for; return False, and stay outside, if that may not be now."""
        with self._changed:
            if not self._may_enter(who):
                return False
            if self._next is who:
                self._alone, self._next = who, None
            self._inside += 1
            return True

    def stay_alone(self, who: _Who) -> bool:
        """Keep everybody else out until `who`, who is inside, leaves; return False if somebody else is inside too.

        Then `who` is to leave, and comes in next and alone, unless another has asked before.
        """
        with self._changed:
            if self._alone is None and self._next is None:
                if self._inside == 1:
                    self._alone = who
                else:
                    self._next = who
            return self._alone is who

    def leave(self, who: _Who) -> None:
        """End what was entered for."""
        with self._changed:
            self._inside -= 1
            if self._alone is who:
                self._alone = None
            self._changed.notify_all()

    def wait(self, who: _Who, timeout_s: float) -> bool:
        """Wait until `who` may enter, at most so long; return whether it may."""
        with self._changed:
            return self._changed.wait_for(lambda: self._may_enter(who), timeout_s)

    def may_enter(self, who: _Who) -> bool:
        """Return whether `who` may come in now."""
        with self._changed:
            return self._may_enter(who)

    def is_next(self, who: _Who) -> bool:
        """Return whether the room is kept for `who`, to be alone in it."""
        with self._changed:
            return self._next is who

    def renounce(self, who: _Who) -> None:
        """No longer ask to be alone."""
        with self._changed:
            if self._next is who:
                self._next = None
                self._changed.notify_all()

    def _may_enter(self, who: _Who) -> bool:
        if self._next is not None:
            return self._next is who and self._inside == 0
        return self._alone is None or self._alone is who
