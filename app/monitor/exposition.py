"""A reading in the text form that Prometheus scrapes. Every name of the catalog is told of, with or without series."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import Metric as Family

from app.monitor.numbers import Sample, samples
from app.monitor.readings import Reading
from app.observability import catalog as c
from app.observability.counted import Histogram
from app.observability.metric import Kind, Metric

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4


class Collector:
    """Reads anew whenever Prometheus asks: nothing is kept in this process, which may die like any other."""

    def __init__(self, read: Callable[[], Reading], *, started_ms: int, monotonic: Callable[[], float]) -> None:
        self._read = read
        self._started_ms = started_ms
        self._monotonic = monotonic

    def collect(self) -> Iterable[Family]:
        """Return one family per metric of the catalog."""
        before_s = self._monotonic()
        reading = self._read()
        took_s = self._monotonic() - before_s
        own = [
            Sample(metric=c.SCRAPE_SECONDS, labels=(), value=took_s),
            Sample(metric=c.STARTED, labels=(), value=self._started_ms / 1000),
        ]
        return families(reading, own)


def families(reading: Reading, more: Iterable[Sample] = ()) -> list[Family]:
    """Return a reading as families, in the order of the catalog."""
    by_name: dict[str, list[Sample]] = defaultdict(list)
    for sample in (*samples(reading), *more):
        by_name[sample.metric.name].append(sample)
    histograms = reading.redis.counted.histograms if reading.redis is not None else {}
    found = []
    for metric in c.CATALOG.values():
        family = _family(metric)
        for sample in by_name[metric.name]:
            family.add_sample(metric.name, _labels(metric, sample.labels), sample.value)
        for values, histogram in histograms.get(metric.name, {}).items():
            _add_histogram(family, metric, values, histogram)
        found.append(family)
    return found


def render(collector: Collector) -> bytes:
    """Return the text of one scrape."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    return generate_latest(registry)


def _family(metric: Metric) -> Family:
    # The library adds _total to the names of counters by itself.
    name = metric.name.removesuffix("_total") if metric.kind is Kind.COUNTER else metric.name
    return Family(name, metric.help, "unknown" if metric.kind is Kind.UNTYPED else metric.kind.value)


def _labels(metric: Metric, values: tuple[str, ...]) -> dict[str, str]:
    return dict(zip(metric.labels, values, strict=True))


def _add_histogram(family: Family, metric: Metric, values: tuple[str, ...], histogram: Histogram) -> None:
    labels = _labels(metric, values)
    for bound, count in histogram.buckets:
        family.add_sample(f"{metric.name}_bucket", {**labels, "le": bound}, count)
    family.add_sample(f"{metric.name}_count", labels, histogram.buckets[-1][1])
    family.add_sample(f"{metric.name}_sum", labels, histogram.sum)
