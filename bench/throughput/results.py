"""What was measured, and the figures that are made of it. Pure."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.percentile import percentile


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one run took."""

    jobs_per_s: float
    cpu_ms_per_job: float
    """Of the workers and their children."""
    server_cpu_ms_per_job: float
    """Of Redis and PostgreSQL."""
    commands_per_job: float
    reads_per_job: float
    """How often Redis read from a socket: round trips."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delays:
    """From enqueue to the request at the exchange, order by order, in seconds."""

    from_begin_s: Sequence[float]
    """Since the call of enqueue began."""
    from_end_s: Sequence[float]
    """Since it returned: negative if a worker was quicker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Enqueued:
    """How many jobs a second were enqueued."""

    singly_per_s: float
    batch_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """The middle of some numbers, and how far they lie apart."""

    median: float
    least: float
    most: float

    def __str__(self) -> str:
        """How tables show it."""
        return f"{self.median:.2f} ({self.least:.2f} to {self.most:.2f})"


@dataclass(slots=True, kw_only=True)
class Results:
    """Everything by the name of an entry (`a1`: contestant a with one worker), and within it by round.

    A round in which an entry failed holds None, so that rounds stay side by side.
    """

    runs: dict[str, list[Run | None]] = field(default_factory=dict)
    booked_per_s: dict[str, list[float]] = field(default_factory=dict)
    delays: dict[str, dict[int, list[Delays]]] = field(default_factory=dict)
    enqueued: dict[str, list[Enqueued]] = field(default_factory=dict)
    commits_per_job: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)
    """What it was measured on."""

    def close_round(self, name: str, number: int) -> None:
        """Note that an entry is through with round `number`, whether it was measured in it or not."""
        found = self.runs.setdefault(name, [])
        found += [None] * (number - len(found))

    def ratio(self, name: str, to: str) -> Spread | None:
        """Return jobs per second of one entry in those of another, round by round; None if they share no round."""
        pairs = zip(self.runs.get(name, []), self.runs.get(to, []), strict=False)
        return spread([one.jobs_per_s / other.jobs_per_s for one, other in pairs if one and other])

    def median(self, name: str, of: str) -> float | None:
        """Return the middle of a field of `Run` over the rounds."""
        found = [getattr(run, of) for run in self.runs.get(name, []) if run]
        return statistics.median(found) if found else None

    def delay_ms(self, name: str, per_s: int, percent: int) -> float | None:
        """Return a percentile of all rounds together, since enqueue was called."""
        found = [one for each in self.delays.get(name, {}).get(per_s, []) for one in each.from_begin_s]
        return percentile(found, percent) * 1000 if found else None

    def call_ms(self, name: str, per_s: int) -> float | None:
        """Return how long the call that enqueues took by itself, in the middle."""
        rounds = self.delays.get(name, {}).get(per_s, [])
        pairs = (zip(one.from_begin_s, one.from_end_s, strict=True) for one in rounds)
        found = [begin - end for each in pairs for begin, end in each]
        return percentile(found, 50) * 1000 if found else None

    def batch_per_s(self, name: str) -> float | None:
        """Return how many were enqueued a second in batches, in the middle of the rounds."""
        found = [one.batch_per_s for one in self.enqueued.get(name, [])]
        return statistics.median(found) if found else None

    def singly_per_s(self, name: str) -> float | None:
        """Return the same, one by one."""
        found = [one.singly_per_s for one in self.enqueued.get(name, [])]
        return statistics.median(found) if found else None


def spread(values: Sequence[float]) -> Spread | None:
    """Return middle and ends of some numbers; None of none."""
    if not values:
        return None
    return Spread(median=statistics.median(values), least=min(values), most=max(values))


def plain(value: Any) -> Any:
    """Return dataclasses as JSON takes them, names kept."""
    if hasattr(value, "__dataclass_fields__"):
        return {name: plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return value
