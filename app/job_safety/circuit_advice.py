"""What a circuit would have done with the calls that were made, at other thresholds than its own. Changes nothing.

The history is that of a system which had a breaker: what it held back was never called, and is not in it. A call is
taken as begun and ended at one moment, so that a circuit which is replayed opens a little earlier than a real one.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from app.job_safety.circuit_breaker import BreakerPolicy

MIN_CALLS: Final = 200
"""Fewer calls than this are no ground for advice."""

MARGIN_PERCENT: Final = 10
"""By so much of the weight of all failures must another setting be better to be recommended: less is chance."""

_MAX_RATE: Final = 95


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Thresholds to be tried."""

    name: str
    policy: BreakerPolicy


def settings_to_try(policy: BreakerPolicy) -> tuple[Setting, ...]:
    """Return the present thresholds, first, and one that opens sooner and two that open later."""
    tried = [("present", 10, 10), ("stricter", 6, 7), ("looser", 14, 15), ("loosest", 18, 20)]
    return tuple(
        Setting(
            name=name,
            policy=replace(
                policy,
                rate_percent=max(1, min(policy.rate_percent * rate // 10, max(_MAX_RATE, policy.rate_percent))),
                consecutive=max(1, policy.consecutive * row // 10),
            ),
        )
        for name, rate, row in tried
    )


class Replay:
    """One circuit of one setting. `take` it every call, in the order of time."""

    def __init__(self, policy: BreakerPolicy) -> None:
        self._policy = policy
        self._window: deque[tuple[int, int]] = deque(maxlen=policy.window_calls)
        self._row = 0
        self._streak = 0
        self._until_ms: int | None = None
        self._succeeded = 0
        self.opened = 0
        """How often it would have opened from closed; a probe that fails opens it no second time."""
        self.open_ms = 0
        """For how long it would have been open."""
        self.spared = 0
        """The weight of the failures that it would have held back."""
        self.held_back = 0
        """How many good calls it would have held back."""

    @property
    def gain(self) -> int:
        """The failures that it would have held back, by weight, less the good calls."""
        return self.spared - self.held_back

    @property
    def is_open(self) -> bool:
        """Whether it has opened and not closed again: it may let probes through."""
        return self._until_ms is not None

    def take(self, at_ms: int, weight: int) -> bool:
        """Take a call that ended with `weight`, 0 for a success; return whether the circuit would have let it pass."""
        if self._until_ms is None:
            self._count(at_ms, weight)
            return True
        if at_ms < self._until_ms:
            self.spared += weight
            self.held_back += weight == 0
            return False
        if weight:
            self._open(at_ms)
        elif self._succeeded + 1 >= self._policy.probes:
            self._close()
        else:
            self._succeeded += 1
        return True

    def _count(self, at_ms: int, weight: int) -> None:
        self._window.append((at_ms, weight))
        while self._window and self._window[0][0] <= at_ms - self._policy.window_ms:
            self._window.popleft()
        self._row = self._row + weight if weight else 0
        if not weight:
            return
        is_rate = len(self._window) >= self._policy.min_calls and _percent(self._window) >= self._policy.rate_percent
        if is_rate or self._row >= self._policy.consecutive:
            self.opened += 1
            self._open(at_ms)

    def _open(self, at_ms: int) -> None:
        for_ms = min(self._policy.open_ms << min(self._streak, 30), self._policy.open_max_ms)
        self._until_ms, self._streak, self._succeeded = at_ms + for_ms, self._streak + 1, 0
        self.open_ms += for_ms
        self._window.clear()
        self._row = 0

    def _close(self) -> None:
        self._until_ms, self._streak, self._succeeded = None, 0, 0


@dataclass(slots=True, kw_only=True)
class Rates:
    """How the share of failures, by weight, was spread over windows. Its size does not depend on their number."""

    window_ms: int
    min_calls: int
    by_percent: list[int] = field(default_factory=lambda: [0] * 101)
    _number: int | None = None
    _present: list[tuple[int, int]] = field(default_factory=list)

    def take(self, at_ms: int, weight: int) -> None:
        """Take a call, in the order of time."""
        number = at_ms // self.window_ms
        if number != self._number:
            self.end()
            self._number = number
        self._present.append((at_ms, weight))

    def end(self) -> None:
        """Close the present window; one with too few calls has no rate."""
        if len(self._present) >= self.min_calls:
            self.by_percent[_percent(self._present)] += 1
        self._present.clear()

    @property
    def windows(self) -> int:
        """How many windows had a rate."""
        return sum(self.by_percent)

    def quantile(self, percent: int) -> int | None:
        """Return the rate that `percent` of the windows did not exceed; None without windows."""
        wanted, seen = self.windows * percent, 0
        for rate, count in enumerate(self.by_percent):
            seen += count
            if seen and seen * 100 >= wanted:
                return rate
        return None


@dataclass(slots=True, kw_only=True)
class Advice:
    """All that is found out about one circuit."""

    job_type: str
    tried: Sequence[tuple[Setting, Replay]]
    rates: Rates
    calls: int = 0
    failures: int = 0
    weight: int = 0
    """Of all failures."""
    longest_row: int = 0
    """The largest weight of failures in a row."""
    _row: int = 0

    def take(self, at_ms: int, weight: int) -> None:
        """Take a call, in the order of time."""
        self.calls += 1
        self.failures += weight > 0
        self.weight += weight
        self._row = self._row + weight if weight else 0
        self.longest_row = max(self.longest_row, self._row)
        self.rates.take(at_ms, weight)
        for _, replay in self.tried:
            replay.take(at_ms, weight)

    def best(self) -> Setting | None:
        """Return the setting that holds back the most failures less good calls; the present one if that is chance.

        None: there were too few calls to say anything.
        """
        if self.calls < MIN_CALLS:
            return None
        present, *others = self.tried
        best = max(others, key=lambda one: one[1].gain)
        is_chance = (best[1].gain - present[1].gain) * 100 <= self.weight * MARGIN_PERCENT
        return (present if is_chance else best)[0]


def advice_of(job_type: str, policy: BreakerPolicy) -> Advice:
    """Return an advice that has seen no call yet."""
    return Advice(
        job_type=job_type,
        tried=[(setting, Replay(setting.policy)) for setting in settings_to_try(policy)],
        rates=Rates(window_ms=policy.window_ms, min_calls=policy.min_calls),
    )


def _percent(calls: Iterable[tuple[int, int]]) -> int:
    """Return the share of failures by weight, rounded down as the circuit does."""
    weight = good = 0
    for _, one in calls:
        weight += one
        good += one == 0
    return 100 * weight // (weight + good)
