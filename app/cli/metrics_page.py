"""Writes docs/reference/metrics.md: `python -m app.cli.metrics_page > docs/reference/metrics.md`."""

import sys
from collections.abc import Iterator
from typing import Final

from app.observability.catalog import CATALOG, NOT_EXPORTED
from app.observability.labels import MAX_VALUES
from app.observability.metric import Kind, Metric

_HEAD: Final = f"""# Metrics

Every name that `/metrics` exports. This file is made by `python -m app.cli.metrics_page` from the catalog
(`app/observability/catalog.py`); a test compares it. How to scrape and read them:
[../how-to/monitor.md](../how-to/monitor.md).

## What they survive

| kept in | what that means |
| --- | --- |
| journal | written in the transaction of what it counts, or looked up by an index: right, whatever dies |
| Redis | counted in the process, added to Redis within a second: `kill -9` loses that second, a lost Redis all of it |
| live | looked up at the moment of the scrape |

No process keeps a number to itself: workers may die, fork and be replaced. A number that cannot be read is absent,
never zero: `store_up` says why. After a restore of the journal, or the loss of Redis, a counter starts lower, which
Prometheus takes for a restart.

No label holds an id: a metric with a label such as `order_id`, `…_uuid` or `timestamp` cannot be declared, and a
value that looks like an id, a time or a hash is counted as `other`, as is everything after {MAX_VALUES} values of one
label.

`job_type` is the type of the intent and its venue: `order_usdm`, `order_spot`, `cancel`. For circuits it is the
circuit's name, and cancels and orders that only reduce have circuits of their own: `cancel_usdm`, `reduce_usdm`.

A scrape costs the same after a million orders: nothing that is finished is counted or read.

## Rates

`retry_rate_per_minute`, `retry_success_rate`, `retry_failure_rate`, `retry_avg_attempts`, `retry_block_rate` and
`trader_fill_ratio` look at the last `metrics.window_minutes` (60) and at nothing before; they are no lifetime
counters. Retries and their ends are read from the journal. Blocks, attempts and finished orders are counted by the
minute in Redis.

## Spikes and anomalies

Retries are counted in windows of `metrics.spike_window_s` (300 s), aligned to the clock. The running window is a
spike when it has at least as many as the largest of

- `metrics.spike_least` (10),
- `metrics.spike_factor` (3) times the median of the baseline,
- that median plus `metrics.spike_mads` (5) times the scaled median absolute deviation (1.4826 MAD).

The baseline is made of the last `metrics.spike_samples` (12) *completed* windows that were no spikes themselves. The
running window is never part of its own baseline, and a spike does not become the new normal while it lasts: a storm
of an hour is a spike for the whole hour. Twice as many windows (2 hours) are looked at; what has gone on for longer
than that is normal.

`retry_anomaly` counts: `share`, 1 if more than `metrics.anomaly_share_percent` (50 %) of the intents tried within the
window were retried, once there are `metrics.anomaly_least_jobs` (10); `attempts`, open intents with more than
`metrics.anomaly_attempts` (10) attempts; `age`, open intents that have been retried for longer than
`metrics.anomaly_age_s` (3600 s).

## Two kinds of duplicates

`duplicate_blocked_total` counts second tries that did no harm: the same intent enqueued again, a job delivered twice.
It is the system at work, and no reason for an alert. `duplicate_executed_total` counts second *orders* that the
exchange showed under one client order id. It must stay 0; anything else is critical. `side_effect_duplicates` is the
old name of the second one.

## Exported
"""


def page() -> str:
    """Return the whole page."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield _HEAD
    yield "| name | type | labels | meaning | kept in | feature |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for metric in CATALOG.values():
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        cells = [f"`{metric.name}`", _kind(metric), labels, metric.help, metric.origin.value, metric.feature]
        yield f"| {' | '.join(cells)} |"
    yield ""
    yield "## Not exported yet"
    yield ""
    yield "Names that stand in the plan and have nothing to measure yet. No value is better than an invented one."
    yield ""
    yield "| name | feature | why |"
    yield "| --- | --- | --- |"
    for name, (feature, why) in NOT_EXPORTED.items():
        yield f"| `{name}` | {feature} | {why} |"


def _kind(metric: Metric) -> str:
    if metric.kind is Kind.UNTYPED:
        return "counter (old name)"
    return metric.kind.value


if __name__ == "__main__":
    sys.stdout.write(page())
