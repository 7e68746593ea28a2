"""An append-only list of records with a time: ranges by time are a bisection while time only grows."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import Generic, Protocol, TypeVar


class Timed(Protocol):
    """Anything with an exchange time in milliseconds."""

    @property
    def time_ms(self) -> int:
        """Exchange time, in milliseconds since the epoch."""


T = TypeVar("T", bound=Timed)


def _time(item: Timed) -> int:
    return item.time_ms


class TimeSeries(Generic[T]):
    """Records in the order the engine made them.

    The exchange clock can be set back in tests. From then on ranges are found by a full scan, which is slower
    and as right.
    """

    __slots__ = ("_is_sorted", "items")

    def __init__(self) -> None:
        self.items: list[T] = []
        self._is_sorted = True

    def append(self, item: T) -> None:
        """Add the newest record."""
        if self.items and item.time_ms < self.items[-1].time_ms:
            self._is_sorted = False
        self.items.append(item)

    def between(self, start_ms: int, end_ms: int) -> list[T]:
        """Records with ``start_ms <= time <= end_ms``, oldest first."""
        if self._is_sorted:
            low = bisect_left(self.items, start_ms, key=_time)
            return self.items[low : bisect_right(self.items, end_ms, key=_time)]
        return [item for item in self.items if start_ms <= item.time_ms <= end_ms]

    def last_at(self, time_ms: int) -> T | None:
        """The newest record made at or before ``time_ms``."""
        if self._is_sorted:
            index = bisect_right(self.items, time_ms, key=_time)
            return self.items[index - 1] if index else None
        return next((item for item in reversed(self.items) if item.time_ms <= time_ms), None)
