"""Time as a value that is passed in: aware UTC instants, integer milliseconds, and a monotonic clock for durations."""

import time
from datetime import UTC, datetime
from typing import Protocol

_MONOTONIC_ID = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Clock(Protocol):
    """What every module asks for the time. Tests pass one that they move by hand."""

    def now(self) -> datetime:
        """Return the present instant, aware, in UTC."""
        ...

    def now_ms(self) -> int:
        """Return milliseconds since the Unix epoch."""
        ...

    def monotonic(self) -> float:
        """Return seconds on a clock that never jumps and goes on while the process, or the machine, is suspended."""
        ...

    def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""
        ...


class SystemClock:
    """The machine's clocks.

    `monotonic` reads CLOCK_BOOTTIME where the kernel has it: CLOCK_MONOTONIC stands still while a laptop or a
    virtual machine is suspended, and a worker that wakes up must see that time has passed (clock_gettime(2)).
    """

    def now(self) -> datetime:
        """Return the present instant, aware, in UTC."""
        return datetime.now(UTC)

    def now_ms(self) -> int:
        """Return milliseconds since the Unix epoch."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        """Return seconds on a clock that never jumps and counts suspended time."""
        return time.clock_gettime(_MONOTONIC_ID)

    def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""
        time.sleep(seconds)


def from_ms(milliseconds: int) -> datetime:
    """Return the aware UTC instant of `milliseconds` since the epoch."""
    seconds, rest = divmod(milliseconds, 1000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest * 1000)


def to_ms(instant: datetime) -> int:
    """Return the milliseconds since the epoch of an aware `instant`.

    Raises:
        ValueError: `instant` has no time zone.
    """
    if instant.tzinfo is None:
        raise ValueError("instant has no time zone: pass an aware datetime")
    whole = int(instant.replace(microsecond=0).timestamp())
    return whole * 1000 + instant.microsecond // 1000
