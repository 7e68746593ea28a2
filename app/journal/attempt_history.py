"""The whole history of attempts, page by page in the order of time: every attempt, its class, its delay, its result."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from sqlalchemy import Select, and_, or_, select

from app.job_safety.retry_metrics import job_type_of
from app.journal import schema
from app.journal.engine import Journal

PAGE: Final = 500
_A, _I = schema.attempts.c, schema.intents.c

OPEN: Final = "OPEN"
"""The result of an attempt of which nobody knows yet what became of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which attempts. None and False: all of them."""

    since_ms: int | None = None
    job_type: str | None = None
    """A type of intent (`order`), or a job type (`order_usdm`)."""
    failure_class: str | None = None
    only_retries: bool = False
    """Only attempts after the first of their intent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PastAttempt:
    """One attempt with what is known of it. `result`: its outcome, or OPEN. Times in milliseconds since the epoch."""

    dispatched_at_ms: int
    key: str
    job_type: str
    symbol: str | None
    attempt: int
    result: str
    failure_class: str | None
    rule: str | None
    http_status: int | None
    code: int | None
    retry_delay_ms: int | None
    settled_at_ms: int | None
    settled_by: str | None
    owner: str
    state: str
    answer: str | None
    type: str
    venue: str | None
    opens_risk: bool
    unknown_at_ms: int | None
    """When an answer left it unknown; None: none did, or none came."""


def pages(
    journal: Journal, wanted: Wanted, *, newest_first: bool = False, limit: int | None = None
) -> Iterator[list[PastAttempt]]:
    """Yield attempts in pages, each read by itself: neither memory nor a transaction grows with the history.

    What is dispatched meanwhile comes at the end, or not at all if the newest come first.

    Raises:
        StoreUnavailableError: the journal does not answer.
    """
    after: PastAttempt | None = None
    left = limit
    while left is None or left > 0:
        query = page_query(wanted, after, newest_first=newest_first, size=PAGE if left is None else min(PAGE, left))
        with journal.read() as connection:
            page = [_past(cast("Mapping[str, Any]", row)) for row in connection.execute(query).mappings()]
        if not page:
            return
        yield page
        after = page[-1]
        left = None if left is None else left - len(page)


def page_query(wanted: Wanted, after: PastAttempt | None, *, newest_first: bool, size: int) -> Select[Any]:
    """Return the question for the page behind `after`."""
    query = select(schema.attempts, _I.type, _I.venue, _I.symbol, _I.state, _I.opens_risk).join_from(
        schema.attempts, schema.intents, _A.key == _I.key
    )
    if wanted.since_ms is not None:
        query = query.where(_A.dispatched_at_ms >= wanted.since_ms)
    if wanted.job_type is not None:
        intent_type, _, venue = wanted.job_type.partition("_")
        query = query.where(_I.type == intent_type)
        if venue:
            query = query.where(_I.venue == venue)
    if wanted.failure_class is not None:
        query = query.where(_A.failure_class == wanted.failure_class)
    if wanted.only_retries:
        query = query.where(_A.attempt > 1)
    columns = (_A.dispatched_at_ms, _A.key, _A.attempt)
    if after is not None:
        at, key, number = columns
        if newest_first:
            same = and_(
                at == after.dispatched_at_ms, or_(key < after.key, and_(key == after.key, number < after.attempt))
            )
            query = query.where(at <= after.dispatched_at_ms, or_(at < after.dispatched_at_ms, same))
        else:
            same = and_(
                at == after.dispatched_at_ms, or_(key > after.key, and_(key == after.key, number > after.attempt))
            )
            query = query.where(at >= after.dispatched_at_ms, or_(at > after.dispatched_at_ms, same))
    return query.order_by(*(column.desc() if newest_first else column for column in columns)).limit(size)


def _past(row: Mapping[str, Any]) -> PastAttempt:
    return PastAttempt(
        dispatched_at_ms=row["dispatched_at_ms"],
        key=row["key"],
        job_type=job_type_of(row["type"], row["venue"]),
        symbol=row["symbol"],
        attempt=row["attempt"],
        result=row["outcome"] or OPEN,
        failure_class=row["failure_class"],
        rule=row["rule"],
        http_status=row["http_status"],
        code=row["code"],
        retry_delay_ms=row["retry_delay_ms"],
        settled_at_ms=row["settled_at_ms"],
        settled_by=row["settled_by"],
        owner=row["owner"],
        state=row["state"],
        answer=row["answer"],
        type=row["type"],
        venue=row["venue"],
        opens_risk=row["opens_risk"],
        unknown_at_ms=row["unknown_at_ms"],
    )
