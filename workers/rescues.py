"""Who rescues what a dead process was doing: the keeper, which is warm, else a process of its own, which is certain."""

import time
from collections.abc import Callable, Sequence

from workers.rescue_line import SupervisorEnd


class Rescues:
    """The rescues of one supervisor. None is waited for; `look` hands on what the keeper leaves undone."""

    def __init__(self, fork: Callable[[Sequence[str]], int]) -> None:
        """Make them. `fork` starts a process that rescues what some owners were doing, and returns its id."""
        self._fork = fork
        self._line: SupervisorEnd | None = None
        self._running: set[int] = set()

    def begin(self, owners: Sequence[str]) -> None:
        """Have the work of `owners` rescued, who are known to be dead."""
        if self._line is None or not self._line.ask(owners):
            self._running.add(self._fork(owners))

    def use(self, line: SupervisorEnd) -> None:
        """Ask a new keeper from now on, once it says that it listens."""
        self.keeper_died()
        self._line = line

    def keeper_died(self) -> None:
        """Hand on what the keeper had not done."""
        if self._line is not None:
            line, self._line = self._line, None
            self._hand_on(line.close())

    def look(self) -> None:
        """Hand on what the keeper could not do, or not in time."""
        if self._line is not None:
            self._hand_on(self._line.unanswered())

    def ended(self, pid: int) -> bool:
        """Note that a process has ended; return whether it was one that rescues."""
        is_ours = pid in self._running
        self._running.discard(pid)
        return is_ours

    @property
    def asks_keeper(self) -> bool:
        """Whether an answer of the keeper's is awaited."""
        return self._line is not None and self._line.due_s is not None

    @property
    def are_underway(self) -> bool:
        """Whether anybody is at it."""
        return bool(self._running) or self.asks_keeper

    @property
    def descriptors(self) -> list[int]:
        """What becomes readable when there is something to `look` at."""
        return [] if self._line is None else [self._line.socket.fileno()]

    def wait_s(self, at_most_s: float) -> float:
        """Return how long to wait before the next `look`."""
        due_s = None if self._line is None else self._line.due_s
        return at_most_s if due_s is None else max(min(due_s - time.monotonic(), at_most_s), 0.0)

    def _hand_on(self, left: Sequence[Sequence[str]]) -> None:
        self._running.update(self._fork(owners) for owners in left)
