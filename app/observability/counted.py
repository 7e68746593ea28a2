"""Reads back what the processes have counted. What does not stand in the catalog is passed over."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from redis import Redis

from app.observability.adding import SUM_SCALE
from app.observability.buffer import CountNames
from app.observability.catalog import CATALOG, EVENTS_TOTAL
from app.observability.labels import MAX_VALUES, OTHER
from app.observability.metric import Kind, Metric

LabelValues: TypeAlias = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """One series of a histogram: (upper bound, how many are at most that), ascending, and the sum."""

    buckets: list[tuple[str, int]]
    sum: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """Everything in Redis, by metric and label values."""

    values: Mapping[str, Mapping[LabelValues, int]] = field(default_factory=dict)
    """Counters, and gauges that hold an instant in milliseconds."""
    histograms: Mapping[str, Mapping[LabelValues, Histogram]] = field(default_factory=dict)
    recent: Mapping[str, Mapping[LabelValues, int]] = field(default_factory=dict)
    """Counters that are kept by the minute, over the window."""


def read(redis: Redis, names: CountNames, *, now_ms: int, window_minutes: int) -> Counted:
    """Return what has been counted, in one round trip.

    Raises:
        RedisError: it does not answer.
    """
    this_minute = now_ms // 60_000
    with redis.pipeline(transaction=False) as pipe:
        pipe.hgetall(names.series)
        pipe.hgetall(names.events)
        pipe.hgetall(names.times)
        for number in range(this_minute - window_minutes + 1, this_minute + 1):
            pipe.hgetall(names.minute(number))
        totals, events, times, *minutes = pipe.execute()
    values, parts = _parse([totals, times])
    recent, _ = _parse(minutes)
    values[EVENTS_TOTAL.name] = _bounded({(name.decode(),): int(count) for name, count in events.items()})
    return Counted(values=values, recent=recent, histograms=_histograms(parts))


_Parsed: TypeAlias = dict[str, dict[LabelValues, int]]


def _parse(hashes: Iterable[Mapping[bytes, bytes]]) -> tuple[_Parsed, _Parsed]:
    """Return plain series by metric, and the parts of histograms by their own name."""
    plain: _Parsed = defaultdict(lambda: defaultdict(int))
    parts: _Parsed = defaultdict(lambda: defaultdict(int))
    for one in hashes:
        for raw, amount in one.items():
            name, values = _field(raw)
            metric = CATALOG.get(name)
            if metric is not None and len(values) == len(metric.labels):
                plain[name][values] += int(amount)
            elif metric is None:
                parts[name][values] += int(amount)
    return {name: _bounded(series) for name, series in plain.items()}, parts


def _field(raw: bytes) -> tuple[str, LabelValues]:
    try:
        parsed: Any = json.loads(raw)
        name, *values = parsed
        return str(name), tuple(str(value) for value in values)
    except (ValueError, TypeError):
        return "", ()


def _histograms(parts: _Parsed) -> dict[str, dict[LabelValues, Histogram]]:
    found: dict[str, dict[LabelValues, Histogram]] = {}
    for metric in CATALOG.values():
        if metric.kind is Kind.HISTOGRAM:
            found[metric.name] = _histogram(metric, parts)
    return found


def _histogram(metric: Metric, parts: _Parsed) -> dict[LabelValues, Histogram]:
    bounds = metric.bounds
    counts: dict[LabelValues, dict[str, int]] = defaultdict(dict)
    for values, amount in parts.get(f"{metric.name}_bucket", {}).items():
        if len(values) == len(metric.labels) + 1 and values[-1] in bounds:
            counts[values[:-1]][values[-1]] = amount
    sums = parts.get(f"{metric.name}_sum", {})
    found = {}
    for values, one in counts.items():
        so_far, buckets = 0, []
        for bound in bounds:
            so_far += one.get(bound, 0)
            buckets.append((bound, so_far))
        found[values] = Histogram(buckets=buckets, sum=sums.get(values, 0) / SUM_SCALE)
    return found


def _bounded(series: Mapping[LabelValues, int]) -> dict[LabelValues, int]:
    """Fold what goes beyond `MAX_VALUES` of a label into `other`: each process has its own hundred, all have more."""
    seen: list[set[str]] = []
    found: dict[LabelValues, int] = defaultdict(int)
    for values, amount in series.items():
        while len(seen) < len(values):
            seen.append(set())
        kept = []
        for known, value in zip(seen, values, strict=False):
            if value in known or len(known) < MAX_VALUES:
                known.add(value)
                kept.append(value)
            else:
                kept.append(OTHER)
        found[tuple(kept)] += amount
    return dict(found)
