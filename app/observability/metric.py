"""What a metric is, and what an event does to metrics. Declared once, in `catalog`; checked when it is declared."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from app.observability.labels import check_declared

Fields: TypeAlias = Mapping[str, object]
"""The fields of one event."""

Source: TypeAlias = str | Callable[[Fields], object]
"""Where a label's value comes from: the field of this name, or what is made of the fields."""


class Kind(StrEnum):
    """The type that Prometheus is told."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    UNTYPED = "untyped"
    """A counter under an old name without `_total`, kept for those who know it."""


class Origin(StrEnum):
    """Where the numbers live, and so what they survive."""

    JOURNAL = "journal"
    """Written in the transaction of what it counts: right, whatever dies."""
    REDIS = "Redis"
    """Counted in the process, added to Redis within a second: kill -9 may lose that second, a lost Redis all of it."""
    LIVE = "live"
    """Looked up when it is asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One exported name.

    Raises:
        LabelError: a label may hold an id.
    """

    name: str
    kind: Kind
    help: str
    origin: Origin
    labels: tuple[str, ...] = ()
    feature: str = ""
    buckets: tuple[float, ...] = ()
    """Upper bounds of a histogram, ascending; what is above all of them is counted too."""
    is_windowed: bool = False
    """Whether it is also counted by the minute, for rates over a window."""
    is_time: bool = False
    """A gauge that holds an instant, as seconds since the epoch."""

    def __post_init__(self) -> None:
        check_declared(self.name, self.labels)
        if (self.kind is Kind.COUNTER) != self.name.endswith("_total"):
            raise ValueError(f"{self.name}: counters, and only they, end in _total")
        if bool(self.buckets) != (self.kind is Kind.HISTOGRAM) or list(self.buckets) != sorted(self.buckets):
            raise ValueError(f"{self.name}: a histogram, and nothing else, has ascending buckets")

    @property
    def bounds(self) -> tuple[str, ...]:
        """The upper bounds of a histogram's buckets as they are exported, with that of what is above all of them."""
        return (*map(str, self.buckets), "+Inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """The event adds one to a counter, if `when` holds."""

    metric: Metric
    labels: Mapping[str, Source] = field(default_factory=dict)
    when: Callable[[Fields], bool] | None = None

    def __post_init__(self) -> None:
        _check(self.metric, self.labels, Kind.COUNTER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Observe:
    """The event adds its field `value_ms`, or what `value` names, to a histogram; without a value it adds nothing."""

    metric: Metric
    value: str
    scale: int = 1000
    """By how much the field is divided: 1000 for milliseconds that are exported as seconds."""
    labels: Mapping[str, Source] = field(default_factory=dict)
    when: Callable[[Fields], bool] | None = None

    def __post_init__(self) -> None:
        _check(self.metric, self.labels, Kind.HISTOGRAM)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """The event sets a gauge to the time at which it happened."""

    metric: Metric
    labels: Mapping[str, Source] = field(default_factory=dict)
    when: Callable[[Fields], bool] | None = None

    def __post_init__(self) -> None:
        _check(self.metric, self.labels, Kind.GAUGE)


Effect: TypeAlias = Count | Observe | Mark


def _check(metric: Metric, labels: Mapping[str, Source], kind: Kind) -> None:
    if metric.kind is not kind:
        raise ValueError(f"{metric.name} is a {metric.kind}, not a {kind}")
    if set(labels) != set(metric.labels):
        raise ValueError(f"{metric.name} has the labels {metric.labels}, not {tuple(labels)}")
