"""What the exporter asks the journal. Every question is answered from an index over what is open or recent.

None counts what is finished: a scrape costs the same after a million orders. A test reads the plans of both databases.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final, TypeAlias

from sqlalchemy import Connection, Select, func, literal_column, select, text

from app.job_safety.retry_metrics import Ended, job_type_of
from app.job_safety.state import ON_EXCHANGE, TERMINAL_STATES, IntentState
from app.journal import schema

OPEN_STATES: Final = tuple(state for state in IntentState if state not in TERMINAL_STATES)
AnySelect: TypeAlias = "Select[*tuple[Any, ...]]"

NAMED: Final = 20
"""How many keys are named of what waits for somebody."""

USD: Final = frozenset({"USDT", "USDC", "BUSD", "FDUSD", "USD"})
"""Assets that count as dollars, one to one."""

_I, _A = schema.intents.c, schema.attempts.c
_RETRIED: Final = text("attempts.attempt > 1")
"""Written out, not bound: a partial index is used only if the database can see that the query implies it."""

_RETRIED_AND_FINISHED: Final = text("intents.attempt > 1 AND intents.finished_at_ms IS NOT NULL")


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenState:
    """Intents in one state that is not final."""

    count: int = 0
    doubt_since_ms: int | None = None
    """Since when the oldest of them is in doubt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retried:
    """Attempts after the first, and how many intents began to be retried."""

    retries: int = 0
    intents: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Lag:
    """How late the most overdue work is, in milliseconds; 0 if nothing is."""

    intents_ms: int = 0
    followups_ms: int = 0


@dataclass(slots=True, kw_only=True)
class Pnl:
    """Realized profit plus funding minus commission, in dollars, of this day, of this week, and of all days."""

    daily: Decimal = Decimal(0)
    weekly: Decimal = Decimal(0)
    total: Decimal = Decimal(0)
    trades: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """By venue."""


def open_states_query() -> AnySelect:
    """Intents by state, of the states that are not final."""
    named = [state.value for state in OPEN_STATES]
    return select(_I.state, func.count(), func.min(_I.in_doubt_since_ms)).where(_I.state.in_(named)).group_by(_I.state)


def open_states(connection: Connection) -> dict[IntentState, OpenState]:
    """Return how many intents are in each state that is not final."""
    found = {state: OpenState() for state in OPEN_STATES}
    for state, count, since_ms in connection.execute(open_states_query()):
        found[IntentState(state)] = OpenState(count=count, doubt_since_ms=since_ms)
    return found


def named_query(state: IntentState) -> AnySelect:
    """The oldest intents in `state`."""
    return select(_I.key).where(_I.state == state.value).order_by(_I.created_at_ms).limit(NAMED)


def named(connection: Connection, state: IntentState) -> list[str]:
    """Return the keys of the oldest intents in `state`, a few of them."""
    return list(connection.execute(named_query(state)).scalars())


def retries_query(*, since_ms: int, step_ms: int) -> AnySelect:
    """Attempts after the first since `since_ms`, and how many were second ones, by type, venue and number of step."""
    step = (_A.dispatched_at_ms // step_ms).label("step")
    return (
        select(_I.type, _I.venue, step, func.count(), func.count().filter(_A.attempt == 2))
        .join_from(schema.attempts, schema.intents, _A.key == _I.key)
        .where(_RETRIED, _A.dispatched_at_ms >= since_ms)
        .group_by(_I.type, _I.venue, literal_column("step"))
    )


def retries(connection: Connection, *, since_ms: int, step_ms: int) -> dict[str, dict[int, Retried]]:
    """Return how many retries there were since `since_ms`: by job type, then by the number of their step."""
    found: dict[str, dict[int, Retried]] = defaultdict(dict)
    for intent_type, venue, step, count, second in connection.execute(
        retries_query(since_ms=since_ms, step_ms=step_ms)
    ):
        found[job_type_of(intent_type, venue)][int(step)] = Retried(retries=count, intents=second)
    return dict(found)


def ended_query(*, since_ms: int) -> AnySelect:
    """Retried intents that ended since `since_ms`, by type, venue and state."""
    return (
        select(_I.type, _I.venue, _I.state, func.count(), func.sum(_I.attempt))
        .where(_RETRIED_AND_FINISHED, _I.finished_at_ms >= since_ms)
        .group_by(_I.type, _I.venue, _I.state)
    )


def ended(connection: Connection, *, since_ms: int) -> dict[str, Ended]:
    """Return what became of the retried intents that ended since `since_ms`, by job type."""
    sums: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for intent_type, venue, state, count, attempts in connection.execute(ended_query(since_ms=since_ms)):
        had_effect = IntentState(state) in ON_EXCHANGE or state == IntentState.DONE
        one = sums[job_type_of(intent_type, venue)]
        one[0 if had_effect else 1] += count
        one[2] += int(attempts)
    return {name: Ended(succeeded=one[0], failed=one[1], attempts=one[2]) for name, one in sums.items()}


def odd_query(*, attempts: int, before_ms: int) -> AnySelect:
    """Open intents with more than `attempts`, and retried ones that were made before `before_ms`."""
    open_ = _I.state.in_(
        [state.value for state in (IntentState.RETRY_WAIT, IntentState.DISPATCHED, IntentState.IN_DOUBT)]
    )
    many = func.count().filter(_I.attempt > attempts)
    old = func.count().filter(_I.attempt > 1, _I.created_at_ms < before_ms)
    return select(many, old).where(open_)


def odd(connection: Connection, *, attempts: int, before_ms: int) -> tuple[int, int]:
    """Return how many open intents have more than `attempts`, and how many are retried since before `before_ms`."""
    many, old = connection.execute(odd_query(attempts=attempts, before_ms=before_ms)).one()
    return int(many), int(old)


def lag_queries() -> tuple[AnySelect, AnySelect]:
    """When the most overdue intent and follow-up should have run."""
    due = schema.followups.c
    return (
        select(_I.run_at_ms).where(_I.run_at_ms.is_not(None)).order_by(_I.run_at_ms).limit(1),
        select(due.run_at_ms).where(due.done_at_ms.is_(None)).order_by(due.run_at_ms).limit(1),
    )


def lag(connection: Connection, *, now_ms: int) -> Lag:
    """Return how late the most overdue work is."""
    late = [connection.execute(query).scalar() for query in lag_queries()]
    intents_ms, followups_ms = (0 if at_ms is None else max(0, now_ms - at_ms) for at_ms in late)
    return Lag(intents_ms=intents_ms, followups_ms=followups_ms)


def open_positions(connection: Connection) -> dict[str, int]:
    """Return how many positions are not flat, by venue. The table has one row per symbol."""
    table = schema.positions.c
    found: dict[str, int] = defaultdict(int)
    for venue, quantity in connection.execute(select(table.venue, table.quantity)):
        found[venue] += quantity != 0
    return dict(found)


def pnl(connection: Connection, *, day: str, monday: str) -> Pnl:
    """Return profit and loss in dollars, and the trades booked. The table has one row per day, venue and asset."""
    found = Pnl()
    for row in connection.execute(select(schema.pnl_daily)).mappings():
        found.trades[row["venue"]] += row["trades"]
        if row["asset"] in USD:
            net = row["realized"] + row["funding"] - row["commission"]
            found.total += net
            found.weekly += net if row["day"] >= monday else 0
            found.daily += net if row["day"] == day else 0
    return found


def queries(*, now_ms: int) -> Mapping[str, AnySelect]:
    """Return every question about intents, attempts and follow-ups, for whoever wants to see how it is answered."""
    intents_lag, followups_lag = lag_queries()
    return {
        "open_states": open_states_query(),
        "named": named_query(IntentState.IN_DOUBT),
        "retries": retries_query(since_ms=now_ms - 7_200_000, step_ms=60_000),
        "ended": ended_query(since_ms=now_ms - 3_600_000),
        "odd": odd_query(attempts=10, before_ms=now_ms - 3_600_000),
        "intents_lag": intents_lag,
        "followups_lag": followups_lag,
    }
