"""What one effect of an event adds, and to which series.

A series is named once for what the labels say, and remembered: there are few of them, and orders count all the time.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import methodcaller
from typing import Final, TypeAlias

from app.observability.buffer import MINUTE, SERIES, TIMES, Amount, series
from app.observability.labels import LabelValues, text_of
from app.observability.metric import Count, Effect, Fields, Mark, Metric, Observe, Source

SUM_SCALE: Final = 1_000_000
"""Sums of histograms are kept in millionths, as whole numbers."""

REMEMBERED: Final = 256
"""Combinations of label values that an effect keeps the names of."""

Adding: TypeAlias = Callable[[Fields], Sequence[Amount]]

_NUMBER: Final = (int, float)


def adding(effect: Effect, values: LabelValues, *, now_ms: Callable[[], int]) -> Adding:
    """Return what tells which amounts `effect` adds for the fields of an event to which it applies.

    Args:
        effect: Of which metric, and with which labels.
        values: Which values the labels may take on.
        now_ms: The time that a mark is set to.
    """
    match effect:
        case Count():
            return _count(effect, values)
        case Mark():
            return _mark(effect, values, now_ms)
        case Observe():
            return _observe(effect, values)


def _count(effect: Count, values: LabelValues) -> Adding:
    metric, readers = effect.metric, _readers(effect)
    hashes = (SERIES, MINUTE) if metric.is_windowed else (SERIES,)

    @lru_cache(REMEMBERED)
    def amounts(*said: str) -> Sequence[Amount]:
        field = series(metric.name, *_admitted(metric, said, values))
        return [(number, field, 1) for number in hashes]

    return lambda fields: amounts(*_said(readers, fields))


def _mark(effect: Mark, values: LabelValues, now_ms: Callable[[], int]) -> Adding:
    metric, readers = effect.metric, _readers(effect)

    @lru_cache(REMEMBERED)
    def field(*said: str) -> str:
        return series(metric.name, *_admitted(metric, said, values))

    return lambda fields: [(TIMES, field(*_said(readers, fields)), now_ms())]


def _observe(effect: Observe, values: LabelValues) -> Adding:
    metric, readers, scale = effect.metric, _readers(effect), effect.scale

    @lru_cache(REMEMBERED)
    def names(*said: str) -> tuple[Sequence[str], str]:
        admitted = _admitted(metric, said, values)
        buckets = [series(f"{metric.name}_bucket", *admitted, bound) for bound in metric.bounds]
        return buckets, series(f"{metric.name}_sum", *admitted)

    def amounts(fields: Fields) -> Sequence[Amount]:
        number = fields.get(effect.value)
        if not isinstance(number, _NUMBER):
            return ()
        value = max(number, 0) / scale
        buckets, total = names(*_said(readers, fields))
        return (SERIES, buckets[bisect_left(metric.buckets, value)], 1), (SERIES, total, round(value * SUM_SCALE))

    return amounts


def _said(readers: Sequence[Callable[[Fields], object]], fields: Fields) -> list[str]:
    return [value if type(value := read(fields)) is str else text_of(value) for read in readers]


def _admitted(metric: Metric, said: Sequence[str], values: LabelValues) -> list[str]:
    return [values.admit(metric.name, label, text) for label, text in zip(metric.labels, said, strict=True)]


def _readers(effect: Effect) -> Sequence[Callable[[Fields], object]]:
    """Return what reads the labels' values off the fields of an event, in the order of the metric's labels."""
    return [_reader(effect.labels[label]) for label in effect.metric.labels]


def _reader(source: Source) -> Callable[[Fields], object]:
    return methodcaller("get", source) if isinstance(source, str) else source
