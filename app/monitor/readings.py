"""Reads both stores once, for whoever asks: the numbers, the state and the readiness all come from one reading."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from app.clock import from_ms
from app.composition import guard_names, kill_sources_here
from app.delivery import QueueState
from app.execution.kill_status import Holding, holding
from app.job_safety import kill_key, kill_switch
from app.job_safety.circuit_breaker import BreakerStatus
from app.job_safety.errors import JobSafetyError
from app.job_safety.kill_switch import KillState, strictest
from app.job_safety.outcome import Venue
from app.job_safety.retry_metrics import AnomalyRule, Ended, SpikeRule
from app.job_safety.state import IntentState
from app.journal import kill_latches, measures, meta, tallies
from app.journal.kill_latches import Latch
from app.journal.measures import Lag, OpenState, Pnl, Retried
from app.journal.meta import Meta
from app.journal.tallies import Tally
from app.monitor import breakers, kill
from app.monitor.clocks import ClockReading
from app.observability import counted
from app.observability.buffer import CountNames
from app.observability.counted import Counted
from app.observability.ledger_status import LedgerStatus, ledger_key, read_ledger
from app.observability.redis_status import RedisStatus, read_status, status_key
from app.settings import Settings
from app.wiring import Installation

EVER_MS: Final = 10**15
"""A step so long that everything lies in one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalReading:
    """What the journal said."""

    stamp: Meta
    latches: Sequence[Latch]
    """Of the kill switch."""
    states: Mapping[IntentState, OpenState]
    named: Mapping[IntentState, list[str]]
    """Keys of the oldest intents that wait for an answer or a person."""
    retries: Mapping[str, Retried]
    """Within the window, by job type."""
    spikes: Mapping[str, Mapping[int, int]]
    """Retries by job type and number of the spike window."""
    ended: Mapping[str, Ended]
    odd_attempts: int
    odd_age: int
    lag: Lag
    tallies: Mapping[Tally, Mapping[str, int]]
    positions: Mapping[str, int]
    pnl: Pnl


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueReading:
    """What waits on one queue."""

    depth: int
    oldest_ms: int | None
    workers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseReading:
    """A venue that is closed because the exchange said so. `for_ms` None: until a person opens it."""

    for_ms: int | None
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisReading:
    """What Redis said."""

    counted: Counted
    kill_key: str | None
    """What the Redis key of the kill switch says; None: it is not there."""
    queues: Mapping[str, QueueReading]
    pauses: Mapping[str, PauseReading]
    """Closed venues only."""
    safety: RedisStatus | None
    """What the keeper last found about Redis; None if nobody has looked lately."""
    ledger: LedgerStatus | None
    """By how much the wallets differed when the keeper last looked; None as above."""
    breakers: Sequence[BreakerStatus]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Both stores at one moment. A store that did not answer is None, and its error says why."""

    now_ms: int
    settings: Settings
    journal: JournalReading | None
    redis: RedisReading | None
    errors: Mapping[str, str]
    """By store."""
    clocks: Mapping[str, ClockReading] = field(default_factory=dict)

    @property
    def kill(self) -> Mapping[str, KillState]:
        """What is read of the kill switch: the key, file and environment, and the journal with all that it holds."""
        return kill.sources(
            key=kill_switch.parse(self.redis.kill_key) if self.redis else None,
            stamp=self.journal.stamp if self.journal else None,
            here=kill_sources_here(self.settings)(),
        )

    @property
    def holding(self) -> Holding:
        """Who holds the switch. Without the journal nobody knows of latches."""
        journal = self.journal
        return holding(
            journal.latches if journal else (),
            journal=KillState(journal.stamp.kill_state) if journal else KillState.REDUCE_ONLY,
            key=self.redis.kill_key if self.redis else None,
            key_is_readable=self.redis is not None,
            here=kill_sources_here(self.settings)(),
        )

    @property
    def kill_state(self) -> KillState:
        """What holds."""
        return strictest(*self.kill.values())


def spike_rule(settings: Settings) -> SpikeRule:
    """Return when retries are a spike here."""
    one = settings.metrics
    return SpikeRule(
        window_s=one.spike_window_s,
        samples=one.spike_samples,
        factor=float(one.spike_factor),
        mads=float(one.spike_mads),
        least=one.spike_least,
    )


def anomaly_rule(settings: Settings) -> AnomalyRule:
    """Return what is odd here."""
    one = settings.metrics
    return AnomalyRule(
        share_percent=one.anomaly_share_percent,
        least_jobs=one.anomaly_least_jobs,
        attempts=one.anomaly_attempts,
        age_s=one.anomaly_age_s,
    )


def read(installation: Installation, redis: Redis, clocks: Mapping[str, ClockReading]) -> Reading:
    """Read both stores; one that does not answer is told of, and the other one is read all the same.

    Args:
        installation: What is looked at.
        redis: A client with a short timeout: a Redis that hangs must not hold up who asks.
        clocks: What is known of the exchange's time.
    """
    now_ms = installation.clock.now_ms()
    errors: dict[str, str] = {}
    journal: JournalReading | None = None
    found: RedisReading | None = None
    try:
        journal = _read_journal(installation, now_ms)
    except (JobSafetyError, SQLAlchemyError, OSError) as error:
        errors["journal"] = str(error).removeprefix("journal: ")
    try:
        found = _read_redis(installation, redis, now_ms)
    except RedisError as error:
        errors["redis"] = str(error)
    return Reading(
        now_ms=now_ms, settings=installation.settings, journal=journal, redis=found, errors=errors, clocks=clocks
    )


def _read_journal(installation: Installation, now_ms: int) -> JournalReading:
    settings = installation.settings
    rule, odd = spike_rule(settings), anomaly_rule(settings)
    window_ms, step_ms = settings.metrics.window_minutes * 60_000, rule.window_s * 1000
    today = from_ms(now_ms).date()
    with installation.journal.read() as connection:
        since_ms = (now_ms // step_ms - rule.history) * step_ms
        spikes = measures.retries(connection, since_ms=since_ms, step_ms=step_ms)
        recent = measures.retries(connection, since_ms=now_ms - window_ms, step_ms=EVER_MS)
        many, old = measures.odd(connection, attempts=odd.attempts, before_ms=now_ms - odd.age_s * 1000)
        return JournalReading(
            stamp=meta.load(connection),
            latches=kill_latches.held(connection),
            states=measures.open_states(connection),
            named={
                state: measures.named(connection, state) for state in (IntentState.IN_DOUBT, IntentState.QUARANTINED)
            },
            retries={job_type: steps[0] for job_type, steps in recent.items()},
            spikes={job_type: {step: one.retries for step, one in steps.items()} for job_type, steps in spikes.items()},
            ended=measures.ended(connection, since_ms=now_ms - window_ms),
            odd_attempts=many,
            odd_age=old,
            lag=measures.lag(connection, now_ms=now_ms),
            tallies=tallies.read(connection),
            positions=measures.open_positions(connection),
            pnl=measures.pnl(
                connection, day=today.isoformat(), monday=(today - timedelta(days=today.weekday())).isoformat()
            ),
        )


def _read_redis(installation: Installation, redis: Redis, now_ms: int) -> RedisReading:
    settings = installation.settings
    names = guard_names(settings)
    counts = counted.read(
        redis,
        CountNames(mode=installation.mode, account=installation.account),
        now_ms=now_ms,
        window_minutes=settings.metrics.window_minutes,
    )
    key: bytes | None = redis.get(names.kill_switch)  # type: ignore[assignment]  # a synchronous client
    return RedisReading(
        counted=counts,
        kill_key=None if key is None else kill_key.text(key),
        breakers=breakers.read(redis, settings),
        queues={name: _queue(seen, now_ms) for name, seen in installation.delivery.look(redis).items()},
        pauses=_pauses(redis, {venue.value: names.pauses(venue.value) for venue in Venue}),
        ledger=read_ledger(redis, ledger_key(mode=installation.mode, account=installation.account)),
        safety=read_status(
            redis, status_key(settings.redis_safety.status_key, mode=installation.mode, account=installation.account)
        ),
    )


def _queue(seen: QueueState, now_ms: int) -> QueueReading:
    oldest_ms = None if seen.enqueued_at_ms is None else max(0, now_ms - seen.enqueued_at_ms)
    return QueueReading(depth=seen.depth, oldest_ms=oldest_ms, workers=seen.workers)


def _pauses(redis: Redis, keys: Mapping[str, Sequence[str]]) -> dict[str, PauseReading]:
    """Return the pause of every venue that is closed; of several, the one that lasts longest."""
    asked = [(venue, key) for venue, several in keys.items() for key in several]
    with redis.pipeline(transaction=True) as pipe:
        for _, key in asked:
            pipe.pttl(key)
            pipe.get(key)
        told = pipe.execute()
    found: dict[str, PauseReading] = {}
    for (venue, _), left, why in zip(asked, told[0::2], told[1::2], strict=True):
        if left == -2:
            continue
        one = PauseReading(for_ms=None if left == -1 else left, why=(why or b"").decode("utf-8", "replace"))
        known = found.get(venue)
        if known is None or one.for_ms is None or (known.for_ms is not None and one.for_ms > known.for_ms):
            found[venue] = one
    return found
