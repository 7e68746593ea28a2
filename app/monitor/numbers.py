"""Turns a reading into samples: which metric, which label values, which number. Names come from the catalog only."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Final

from app.job_safety import retry_metrics
from app.job_safety.circuit_breaker import BreakerState
from app.job_safety.kill_switch import KillState
from app.job_safety.outcome import Venue
from app.job_safety.retry_metrics import job_type_of
from app.job_safety.state import LIVE, IntentState
from app.journal.tallies import Tally
from app.monitor import breakers
from app.monitor.readings import JournalReading, Reading, RedisReading, anomaly_rule, spike_rule
from app.observability import catalog as c
from app.observability.counted import LabelValues
from app.observability.metric import Metric

JOB_TYPES: Final = (*(job_type_of("order", venue) for venue in Venue), "cancel")
"""Shown from the start, so that an alert on their counts finds a zero and not nothing."""

_KILL_RANK: Final = {KillState.RUN: 0, KillState.REDUCE_ONLY: 1, KillState.CANCEL_ONLY: 2, KillState.HALT: 3}
_DOUBTFUL: Final = (IntentState.DISPATCHED, IntentState.IN_DOUBT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One number of one series."""

    metric: Metric
    labels: LabelValues
    value: float


def samples(reading: Reading) -> Iterator[Sample]:
    """Yield every number but those of histograms. What could not be read is absent, never zero."""
    yield from _process(reading)
    yield from _kill(reading)
    if reading.redis is not None:
        yield from _counted(reading.redis)
        yield from _queues(reading.redis)
        yield from _pauses(reading.redis)
        yield from _circuits(reading.redis)
        yield from _fill_ratio(reading.redis)
        yield from _blocks(reading.redis)
        yield from _safety(reading.redis)
    if reading.journal is not None:
        yield from _open(reading, reading.journal)
        yield from _tallies(reading.journal, reading.redis)
        yield from _retries(reading, reading.journal)
        yield from _spikes(reading, reading.journal)
        yield from _anomalies(reading, reading.journal)
        yield from _books(reading.journal)


def _one(metric: Metric, value: float, *labels: str) -> Sample:
    return Sample(metric=metric, labels=labels, value=float(value))


def _process(reading: Reading) -> Iterator[Sample]:
    settings = reading.settings
    yield _one(c.INFO, 1, version("fillonce"), settings.mode.value, settings.account)
    yield _one(c.RETRY_WINDOW, settings.metrics.window_minutes * 60)
    yield _one(c.STORE_UP, reading.journal is not None, "journal")
    yield _one(c.STORE_UP, reading.redis is not None, "redis")
    for venue, clock in reading.clocks.items():
        yield _one(c.CLOCK_KNOWN, clock.is_known, venue)


def _kill(reading: Reading) -> Iterator[Sample]:
    for source, state in {**reading.kill, "all": reading.kill_state}.items():
        yield _one(c.KILL_ACTIVE, state is not KillState.RUN, source)
        yield _one(c.KILL_STATE, _KILL_RANK[state], source)
    if reading.journal is not None:
        yield _one(c.KILL_EPOCH, reading.journal.stamp.kill_epoch)


def _counted(redis: RedisReading) -> Iterator[Sample]:
    for name, series in redis.counted.values.items():
        metric = c.CATALOG[name]
        if metric is c.DUPLICATE_BLOCKED:
            continue  # is put together with what the journal has counted
        for values, value in series.items():
            yield Sample(metric=metric, labels=values, value=value / 1000 if metric.is_time else float(value))
        if metric is c.RETRY_BLOCKS:
            for job_type, count in _by_first_label(series).items():
                yield _one(c.OLD_RETRY_BLOCKS, count, job_type)


def _queues(redis: RedisReading) -> Iterator[Sample]:
    for name, queue in redis.queues.items():
        yield _one(c.QUEUE_DEPTH, queue.depth, name)
        yield _one(c.QUEUE_AGE, (queue.oldest_ms or 0) / 1000, name)
        yield _one(c.WORKERS, queue.workers, name)


def _pauses(redis: RedisReading) -> Iterator[Sample]:
    for venue in Venue:
        pause = redis.pauses.get(venue.value)
        left = 0.0 if pause is None else float("inf") if pause.for_ms is None else pause.for_ms / 1000
        yield _one(c.PAUSE, left, venue.value)


def _safety(redis: RedisReading) -> Iterator[Sample]:
    if redis.ledger is not None:
        for asset, difference in redis.ledger.differences.items():
            yield _one(c.LEDGER_DIFFERENCE, float(difference), asset)
    if redis.safety is None:
        return
    yield _one(c.REDIS_CHECKED, redis.safety.at_ms / 1000)
    for finding in redis.safety.findings:
        yield _one(c.REDIS_SAFETY, 1, finding.check, finding.level.value)


def _circuits(redis: RedisReading) -> Iterator[Sample]:
    for one in redis.breakers:
        yield _one(c.BREAKER_STATE, breakers.RANK[one.state], one.job_type)
        yield _one(c.TRADER_BREAKER, one.state is BreakerState.OPEN, one.job_type)
        yield _one(c.BREAKER_OVERRIDE, one.override is not None, one.job_type)
        yield _one(c.API_CONSECUTIVE, one.consecutive_failures, one.job_type)


def _fill_ratio(redis: RedisReading) -> Iterator[Sample]:
    ended = redis.counted.recent.get(c.ORDERS_FINISHED.name, {})
    if total := sum(ended.values()):
        yield _one(c.FILL_RATIO, ended.get((IntentState.FILLED.value,), 0) / total)


def _blocks(redis: RedisReading) -> Iterator[Sample]:
    blocks = _by_first_label(redis.counted.recent.get(c.RETRY_BLOCKS.name, {}))
    tried = _by_first_label(redis.counted.recent.get(c.ATTEMPTS_TOTAL.name, {}))
    for job_type in sorted({*blocks, *tried}):
        rate = retry_metrics.block_rate(blocks.get(job_type, 0), tried.get(job_type, 0))
        if rate is not None:
            yield _one(c.RETRY_BLOCK_RATE, rate, job_type)


def _open(reading: Reading, journal: JournalReading) -> Iterator[Sample]:
    states = journal.states
    for state, one in states.items():
        yield _one(c.INTENTS_OPEN, one.count, state.value)
    yield _one(c.PENDING_ORDERS, sum(states[state].count for state in LIVE))
    yield _one(c.IN_DOUBT, states[IntentState.IN_DOUBT].count)
    yield _one(c.QUARANTINED, states[IntentState.QUARANTINED].count)
    yield _one(c.IN_DOUBT_AGE, doubt_age_s(reading, *_DOUBTFUL))
    yield _one(c.QUARANTINED_AGE, doubt_age_s(reading, IntentState.QUARANTINED))
    yield _one(c.JOURNAL_LAG, journal.lag.intents_ms / 1000, "intents")
    yield _one(c.JOURNAL_LAG, journal.lag.followups_ms / 1000, "followups")


def doubt_age_s(reading: Reading, *states: IntentState) -> float:
    """Return since when the oldest intent in `states` is in doubt, in seconds; 0 if none is."""
    if reading.journal is None:
        return 0.0
    since = [reading.journal.states[state].doubt_since_ms for state in states]
    known = [one for one in since if one is not None]
    return max(0, reading.now_ms - min(known)) / 1000 if known else 0.0


def _tallies(journal: JournalReading, redis: RedisReading | None) -> Iterator[Sample]:
    by_job_type = (
        (Tally.RETRIES, (c.RETRIES, c.OLD_RETRIES)),
        (Tally.RETRY_SUCCESSES, (c.RETRY_SUCCESSES, c.OLD_RETRY_SUCCESSES)),
        (Tally.RETRY_FAILURES, (c.RETRY_FAILURES, c.OLD_RETRY_FAILURES)),
        (Tally.DUPLICATES_EXECUTED, (c.DUPLICATE_EXECUTED, c.OLD_DUPLICATES)),
        (Tally.QUARANTINED, (c.QUARANTINED_TOTAL,)),
    )
    for tally, metrics in by_job_type:
        for label, count in {**dict.fromkeys(JOB_TYPES, 0), **journal.tallies[tally]}.items():
            yield from (_one(metric, count, label) for metric in metrics)
    for label, count in {**dict.fromkeys(map(str, Venue), 0), **journal.tallies[Tally.REJECTED]}.items():
        yield _one(c.REJECTIONS, count, label)
    blocked: dict[LabelValues, int] = {
        (label, "enqueue"): count for label, count in journal.tallies[Tally.DUPLICATES_AT_ENQUEUE].items()
    }
    if redis is not None:
        blocked |= redis.counted.values.get(c.DUPLICATE_BLOCKED.name, {})
    for labels, count in blocked.items():
        yield _one(c.DUPLICATE_BLOCKED, count, *labels)


def _retries(reading: Reading, journal: JournalReading) -> Iterator[Sample]:
    window_s = reading.settings.metrics.window_minutes * 60
    for job_type in sorted({*JOB_TYPES, *journal.retries}):
        one = journal.retries.get(job_type)
        yield _one(c.RETRY_RATE, retry_metrics.rate_per_minute(one.retries if one else 0, window_s), job_type)
    for job_type, ended in journal.ended.items():
        for metric, rate in (
            (c.RETRY_SUCCESS_RATE, ended.success_rate),
            (c.RETRY_FAILURE_RATE, ended.failure_rate),
            (c.RETRY_AVG_ATTEMPTS, ended.avg_attempts),
        ):
            if rate is not None:
                yield _one(metric, rate, job_type)


def spikes(reading: Reading) -> dict[str, retry_metrics.Spike]:
    """Return the running spike window of every job type against its baseline."""
    if reading.journal is None:
        return {}
    rule = spike_rule(reading.settings)
    found = {}
    for job_type in sorted({*JOB_TYPES, *reading.journal.spikes}):
        counts = reading.journal.spikes.get(job_type, {})
        completed, running = retry_metrics.windows(counts, now_ms=reading.now_ms, rule=rule)
        found[job_type] = retry_metrics.judge_spike(completed, running, rule)
    return found


def _spikes(reading: Reading, _journal: JournalReading) -> Iterator[Sample]:
    for job_type, spike in spikes(reading).items():
        yield _one(c.RETRY_SPIKE, spike.is_spike, job_type)
        yield _one(c.RETRY_SPIKE_COUNT, spike.count, job_type)
        yield _one(c.RETRY_SPIKE_BASELINE, spike.baseline, job_type)
        yield _one(c.RETRY_SPIKE_THRESHOLD, spike.threshold, job_type)


def anomalies(reading: Reading) -> dict[str, int]:
    """Return how many anomalies of each kind there are; a kind that cannot be judged is absent."""
    found: dict[str, int] = {}
    if reading.journal is None:
        return found
    found["attempts"] = reading.journal.odd_attempts
    found["age"] = reading.journal.odd_age
    if reading.redis is not None:
        sent = sum(reading.redis.counted.recent.get(c.ATTEMPTS_TOTAL.name, {}).values())
        retries = sum(one.retries for one in reading.journal.retries.values())
        retried = sum(one.intents for one in reading.journal.retries.values())
        tried = max(sent - retries, retried)
        is_odd = retry_metrics.share_is_odd(retried=retried, tried=tried, rule=anomaly_rule(reading.settings))
        found["share"] = int(is_odd)
    return found


def _anomalies(reading: Reading, _journal: JournalReading) -> Iterator[Sample]:
    for kind, count in anomalies(reading).items():
        yield _one(c.RETRY_ANOMALY, count, kind)


def _books(journal: JournalReading) -> Iterator[Sample]:
    for venue in Venue:
        yield _one(c.OPEN_POSITIONS, journal.positions.get(venue.value, 0), venue.value)
        yield _one(c.FILLS, journal.pnl.trades.get(venue.value, 0), venue.value)
    yield _one(c.PNL_DAILY, float(journal.pnl.daily))
    yield _one(c.PNL_WEEKLY, float(journal.pnl.weekly))
    yield _one(c.PNL_TOTAL, float(journal.pnl.total))


def _by_first_label(series: Mapping[LabelValues, int]) -> dict[str, int]:
    found: dict[str, int] = defaultdict(int)
    for values, count in series.items():
        found[values[0]] += count
    return dict(found)
