"""What retries mean for a person who watches: rates over a window, spikes, anomalies. Pure: numbers in, numbers out.

Every rate is over a real window that ends now. A spike is judged by windows that were completed earlier: the running
one never counts for its own baseline, and neither do windows that were spikes themselves, so a spike cannot make itself
the new normal while it lasts. Median and MAD (the median distance from the median) do the rest: one odd window moves
neither.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

MAD_TO_SIGMA: Final = 1.4826
"""For normally distributed counts, this times the MAD is the standard deviation."""


def job_type_of(intent_type: str, venue: str | None) -> str:
    """Return the job type of an intent, such as `order_usdm`, `order_spot` or `cancel`."""
    return f"{intent_type}_{venue}" if venue else intent_type


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """Retried intents of one job type that ended within the window."""

    succeeded: int = 0
    failed: int = 0
    attempts: int = 0
    """Of all of them together."""

    @property
    def success_rate(self) -> float | None:
        """The share that had its effect, 0 to 1; None if none ended."""
        return _share(self.succeeded, self.succeeded + self.failed)

    @property
    def failure_rate(self) -> float | None:
        """The share that ended without its effect, 0 to 1; None if none ended."""
        return _share(self.failed, self.succeeded + self.failed)

    @property
    def avg_attempts(self) -> float | None:
        """Mean attempts; None if none ended."""
        return _share(self.attempts, self.succeeded + self.failed)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpikeRule:
    """When a number of retries is a spike.

    Attributes:
        window_s: Length of the windows that are compared, aligned to the epoch.
        samples: How many completed windows make the baseline.
        factor: A spike has at least so many times the baseline's median.
        mads: And lies at least so many (scaled) MADs above it.
        least: And has at least so many retries, however quiet it was before.
    """

    window_s: int = 300
    samples: int = 12
    factor: float = 3.0
    mads: float = 5.0
    least: int = 10

    @property
    def history(self) -> int:
        """How many windows are looked at: twice the baseline, so that windows which were spikes can be left out."""
        return 2 * self.samples


@dataclass(frozen=True, slots=True, kw_only=True)
class Spike:
    """The running window against its baseline."""

    count: int
    baseline: float
    threshold: float

    @property
    def is_spike(self) -> bool:
        """Whether there are too many."""
        return self.count >= self.threshold


@dataclass(frozen=True, slots=True, kw_only=True)
class AnomalyRule:
    """When single intents, or their share, are odd.

    Attributes:
        share_percent: More retried intents than this among all that were tried are odd.
        least_jobs: But not before so many were tried within the window.
        attempts: An open intent with more attempts than this is odd.
        age_s: And one that is retried for longer than this.
    """

    share_percent: int = 50
    least_jobs: int = 10
    attempts: int = 10
    age_s: int = 3600


def rate_per_minute(count: int, window_s: int) -> float:
    """Return `count` events within a window as a rate."""
    return count * 60 / window_s


def block_rate(blocks: int, attempts: int) -> float | None:
    """Return the share of blocks among blocks and attempts, 0 to 1; None if there were neither."""
    return _share(blocks, blocks + attempts)


def judge_spike(completed: Sequence[int], running: int, rule: SpikeRule) -> Spike:
    """Judge the running window.

    Args:
        completed: Retries of the completed windows, oldest first; windows without any are zeros.
        running: Retries of the window that is not over yet.
        rule: The limits.
    """
    normal: list[int] = []
    for count in completed:
        if len(normal) < rule.samples // 2 or not _judge(normal, count, rule).is_spike:
            normal.append(count)
    return _judge(normal, running, rule)


def windows(counts: Mapping[int, int], *, now_ms: int, rule: SpikeRule) -> tuple[list[int], int]:
    """Return the completed windows (oldest first) and the running one, of counts by the number of their window."""
    running = now_ms // (rule.window_s * 1000)
    completed = [counts.get(number, 0) for number in range(running - rule.history, running)]
    return completed, counts.get(running, 0)


def share_is_odd(*, retried: int, tried: int, rule: AnomalyRule) -> bool:
    """Return whether too large a share of the intents that were tried within the window had to be retried."""
    return tried >= rule.least_jobs and retried * 100 > tried * rule.share_percent


def _judge(normal: Sequence[int], count: int, rule: SpikeRule) -> Spike:
    recent = list(normal[-rule.samples :])
    middle = median(recent) if recent else 0.0
    spread = median(abs(one - middle) for one in recent) * MAD_TO_SIGMA if recent else 0.0
    threshold = max(float(rule.least), middle * rule.factor, middle + rule.mads * spread)
    return Spike(count=count, baseline=float(middle), threshold=threshold)


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
