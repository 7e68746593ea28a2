"""Is the exchange's time known? Asked for beside everything else, so that no probe waits for an exchange that hangs."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from app.exchange.errors import ExchangeClockUnknownError
from app.exchange.exchange_clock import ExchangeClock
from app.job_safety.outcome import Venue

LOOK_S: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockReading:
    """What is known of a venue's time. `error` says why it is not known."""

    is_known: bool
    uncertainty_ms: int | None = None
    error: str = ""


NOT_YET: Final = ClockReading(is_known=False, error="not asked yet")


def look(clock: ExchangeClock, venue: Venue) -> ClockReading:
    """Return what is known now; asks the exchange if the last measurement is too old."""
    try:
        lower, upper = clock.bounds_ms(venue)
    except ExchangeClockUnknownError as error:
        cause = f" ({error.__cause__})" if error.__cause__ else ""
        return ClockReading(is_known=False, error=f"{error}{cause}")
    return ClockReading(is_known=True, uncertainty_ms=upper - lower)


class ClockWatch:
    """Looks at the clocks of some venues in a thread of its own. Without a clock it does nothing."""

    def __init__(self, clock: ExchangeClock | None, venues: Sequence[Venue]) -> None:
        self._clock = clock
        self._readings = {venue.value: NOT_YET for venue in venues} if clock is not None else {}
        self._stop = threading.Event()

    def readings(self) -> Mapping[str, ClockReading]:
        """Return what was seen last, by venue."""
        return dict(self._readings)

    def look_once(self) -> None:
        """Look at every clock now."""
        if self._clock is not None:
            for venue in self._readings:
                self._readings[venue] = look(self._clock, Venue(venue))

    def start(self) -> None:
        """Look every few seconds until `stop`."""
        threading.Thread(target=self._run, name="clock-watch", daemon=True).start()

    def stop(self) -> None:
        """End the thread at its next look."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            self.look_once()
            self._stop.wait(LOOK_S)
