"""What time is it at the exchange? Bounds, measured with a clock that never jumps.

The local wall clock plays no part: it may be wrong, jump or be set back without any effect here. Between the moment a
time request leaves and the moment its answer is here, the exchange's clock showed `serverTime`. From then on the speeds
of both clocks are taken to differ by no more than `DRIFT_PPM`, so with every second the bounds widen a little.
"""

from dataclasses import dataclass, field
from typing import Final, Protocol

from app.clock import Clock
from app.exchange.errors import ExchangeClockUnknownError, ExchangeQueryError
from app.exchange.models import ServerTime
from app.job_safety.outcome import Venue

DRIFT_PPM: Final = 200
"""Assumed worst difference in speed between two machines' clocks; an undisciplined quartz is off by 20 to 100 ppm."""
_SAMPLES_KEPT: Final = 4


class ServerTimeSource(Protocol):
    """Whoever can ask the exchange for its time."""

    def server_time(self, venue: Venue) -> ServerTime:
        """Return a fresh answer; raise `ExchangeQueryError` without one."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeClockLimits:
    """How old and how vague an estimate may be.

    Attributes:
        refresh_after_s: Age from which a new measurement is tried.
        max_age_s: Age from which a measurement counts no longer.
        max_uncertainty_ms: Widest distance of the bounds that is still called knowing the time.
        retry_after_s: Shortest time between two tries while measuring fails.
    """

    refresh_after_s: float = 30.0
    max_age_s: float = 60.0
    max_uncertainty_ms: int = 1000
    retry_after_s: float = 1.0


@dataclass(slots=True)
class _VenueClock:
    samples: list[ServerTime] = field(default_factory=list)
    tried_monotonic: float | None = None


class ExchangeClock:
    """Estimates each venue's clock from time requests. Threads may share it."""

    def __init__(self, source: ServerTimeSource, clock: Clock, limits: ExchangeClockLimits | None = None) -> None:
        self._source = source
        self._clock = clock
        self._limits = limits or ExchangeClockLimits()
        self._venues = {venue: _VenueClock() for venue in Venue}

    def lower_bound_ms(self, venue: Venue) -> int:
        """Return a time that the exchange's clock has certainly reached: what a timestamp is pinned to.

        Measures anew if the last measurement is older than `refresh_after_s`; a failure is borne until `max_age_s`.

        Raises:
            ExchangeClockUnknownError: no measurement that is young and sharp enough. Nothing may be pinned.
        """
        return self.bounds_ms(venue)[0]

    def upper_bound_ms(self, venue: Venue) -> int:
        """Return a time that the exchange's clock has certainly not passed yet; otherwise as `lower_bound_ms`."""
        return self.bounds_ms(venue)[1]

    def bounds_ms(self, venue: Venue) -> tuple[int, int]:
        """Return both bounds, of one and the same measurement; otherwise as `lower_bound_ms`."""
        now = self._clock.monotonic()
        state = self._venues[venue]
        failure: ExchangeQueryError | None = None
        if self._is_due(state, now):
            try:
                self.refresh(venue)
            except ExchangeQueryError as error:
                failure = error
            now = self._clock.monotonic()
        max_age_s = self._limits.max_age_s
        spans = [_bounds(sample, now) for sample in state.samples if now - sample.sent_monotonic <= max_age_s]
        if not spans:
            raise ExchangeClockUnknownError(f"{venue}: the exchange's time is not known: no measurement") from failure
        lower, upper = min(spans, key=lambda bounds: bounds[1] - bounds[0])
        if upper - lower > self._limits.max_uncertainty_ms:
            raise ExchangeClockUnknownError(f"{venue}: the exchange's time is known to {upper - lower} ms only")
        return lower, upper

    def freshen(self, venue: Venue) -> None:
        """Measure now if that is due, so that the bounds can be told for a while without asking anybody.

        Raises:
            ExchangeClockUnknownError: as `lower_bound_ms`, unless the last measurement is young.
        """
        if not self._is_young(self._venues[venue], self._clock.monotonic()):
            self.bounds_ms(venue)

    def refresh(self, venue: Venue) -> ServerTime:
        """Measure `venue`'s clock now.

        Raises:
            ExchangeQueryError: the exchange did not answer.
        """
        state = self._venues[venue]
        state.tried_monotonic = self._clock.monotonic()
        sample = self._source.server_time(venue)
        now = self._clock.monotonic()
        lower, upper = _bounds(sample, now)
        # A measurement that contradicts an older one means that a clock was set. Believe the newer.
        agreeing = [old for old in state.samples if _bounds(old, now)[0] <= upper and lower <= _bounds(old, now)[1]]
        # One assignment and no lock: threads that meet here lose a sample at worst, and no fork inherits a held lock.
        state.samples = [*agreeing, sample][-_SAMPLES_KEPT:]
        return sample

    def estimate_ms(self, venue: Venue) -> int | None:
        """Return the latest known bound, however old, without asking anybody; None if there never was one.

        Good enough to date a pause by; never to pin a timestamp.
        """
        samples = self._venues[venue].samples
        return _bounds(samples[-1], self._clock.monotonic())[1] if samples else None

    def forget(self, venue: Venue) -> None:
        """Drop what is known: the exchange has just said that our timestamps are wrong."""
        state = self._venues[venue]
        state.samples = []
        state.tried_monotonic = None

    def _is_young(self, state: _VenueClock, now: float) -> bool:
        samples = state.samples  # the newest is the last
        return bool(samples) and now - samples[-1].sent_monotonic < self._limits.refresh_after_s

    def _is_due(self, state: _VenueClock, now: float) -> bool:
        if self._is_young(state, now):
            return False
        return state.tried_monotonic is None or now - state.tried_monotonic >= self._limits.retry_after_s


def _bounds(sample: ServerTime, now: float) -> tuple[int, int]:
    """Return the widest span of exchange time that `sample` allows at `now`, in whole milliseconds, rounded outward."""
    since_received_ns = round((now - sample.received_monotonic) * 1_000_000_000)
    since_sent_ns = round((now - sample.sent_monotonic) * 1_000_000_000)
    slowest_ns = since_received_ns * (1_000_000 - DRIFT_PPM) // 1_000_000
    fastest_ns = -(-since_sent_ns * (1_000_000 + DRIFT_PPM) // 1_000_000)
    lower = sample.server_time_ms + slowest_ns // 1_000_000
    # The exchange's time is cut off to milliseconds, so it was up to one more.
    upper = sample.server_time_ms + 1 - (-fastest_ns // 1_000_000)
    return lower, upper
