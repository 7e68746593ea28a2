"""Attempts and proofs: every try to dispatch with what is known of it, and everything the exchange ever confirmed."""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import Connection, and_, bindparam, or_, select, update

from app.job_safety.outcome import ExchangeOrder, Failure
from app.job_safety.state import DOUBTFUL
from app.journal import audit, schema, sql, tallies
from app.journal.prepared import Bound, Prepared, counts_of
from app.journal.rows import AttemptRow, IntentRow
from app.journal.tallies import Tally

_A = schema.attempts
_OF_INTENT = Prepared(select(_A).where(_A.c.key == bindparam("key")).order_by(_A.c.attempt))
_I = schema.intents
_OPEN = Prepared(
    select(_A.c.owner, _A.c.key)
    .join(_I, _I.c.key == _A.c.key)
    .where(or_(*(_I.c.state == sql.word(state.value) for state in sorted(DOUBTFUL))), _A.c.outcome.is_(None))
)
MAX_ANSWER = 500
ABSENT = "ABSENT"
"""The outcome of an attempt that reconcile has proven not executed."""

REOPENED = "attempts_reopened"
"""The action in the audit trail that says which settled attempts of an intent were opened again, and why."""


def insertion(attempt: AttemptRow) -> Bound:
    """Return the statement that writes a new attempt. A second one of the same number fails in the database."""
    known = {name: value for name, value in attempt._asdict().items() if value is not None}
    return Bound(_inserting(tuple(known)), known)


@cache
def _inserting(columns: tuple[str, ...]) -> Prepared:
    return Prepared(_A.insert().values({name: bindparam(name) for name in columns}))


def tally(connection: Connection, row: IntentRow, attempt: AttemptRow) -> None:
    """Count what `attempt`, new in this transaction, is to its intent: an attempt after the first is a retry."""
    if attempt.attempt > 1:
        tallies.add(connection, Tally.RETRIES, row.job_type)


def is_first_proof(connection: Connection, *, key: str, order_id: int) -> bool:
    """Return whether no more than one proof of this order is kept: the one that has just been added."""
    table = schema.proofs.c
    query = select(table.id).where(table.key == key, table.order_id == order_id).limit(2)
    return len(connection.execute(query).all()) <= 1


def of_intent(connection: Connection, key: str) -> list[AttemptRow]:
    """Return the attempts of an intent in their order."""
    return [AttemptRow._make(row) for row in _OF_INTENT.rows(connection, key=key)]


def open_by_owner(connection: Connection) -> list[tuple[str, str]]:
    """Return owner and intent of every attempt that nobody knows the outcome of, and whose intent waits for it.

    By the states of intents, of which few are in doubt: an index of open attempts would be written twice per order.
    """
    return [(owner, key) for owner, key in _OPEN.rows(connection)]


def settle(
    connection: Connection,
    *,
    key: str,
    attempt: int,
    outcome: str,
    by: str,
    now_ms: int,
    failure: Failure | None = None,
    answer: str = "",
    retry_delay_ms: int | None = None,
) -> bool:
    """Record what became of an attempt unless that is recorded already; return whether it was."""
    statement = settling(
        key=key, attempt=attempt, outcome=outcome, by=by, now_ms=now_ms, failure=failure, answer=answer,
        retry_delay_ms=retry_delay_ms,
    )  # fmt: skip
    return counts_of(connection, statement) == [1]


def settling(
    *,
    key: str,
    attempt: int,
    outcome: str,
    by: str,
    now_ms: int,
    failure: Failure | None = None,
    answer: str = "",
    retry_delay_ms: int | None = None,
) -> Bound:
    """Return the statement of `settle`, to be run with others."""
    values: dict[str, object] = {
        "outcome": outcome,
        "settled_at_ms": now_ms,
        "settled_by": by,
        "answer": answer[:MAX_ANSWER] or None,
        "retry_delay_ms": retry_delay_ms,
        **_failure_columns(failure),
    }
    return Bound(_settling(tuple(values)), {"as_key": key, "as_attempt": attempt, **values})


@cache
def _settling(columns: tuple[str, ...]) -> Prepared:
    still_open = and_(_A.c.key == bindparam("as_key"), _A.c.attempt == bindparam("as_attempt"), _A.c.outcome.is_(None))
    return Prepared(update(_A).where(still_open).values({name: bindparam(name) for name in columns}))


def note_unknown(connection: Connection, *, key: str, attempt: int, failure: Failure, now_ms: int) -> None:
    """Keep the answer that left an attempt in doubt, and when; its outcome stays open."""
    statement = update(_A).where(_A.c.key == key, _A.c.attempt == attempt, _A.c.outcome.is_(None))
    values = {"answer": failure.message[:MAX_ANSWER], "unknown_at_ms": now_ms}
    connection.execute(statement.values(**values, **_failure_columns(failure)))


def reopen(connection: Connection, key: str, *, now_ms: int, by: str, why: str) -> None:
    """Open the attempts that were declared absent: a later refusal has cast doubt on that. Evidence starts again.

    That is the only way in which what has settled changes, so it is a row of the audit trail: without one, whoever
    verifies the seals would call it forged. Comes last in its transaction, as every row of the trail does.
    """
    opened = connection.execute(
        update(_A)
        .where(_A.c.key == key, _A.c.outcome == ABSENT)
        .values(outcome=None, settled_at_ms=None, evidence=None, seal=None)
        .returning(_A.c.attempt)
    ).scalars()
    numbers = sorted(opened)
    connection.execute(update(_A).where(_A.c.key == key, _A.c.outcome.is_(None)).values(evidence=None))
    if numbers:
        audit.append(
            connection, now_ms=now_ms, actor=by, action=REOPENED, subject=key,
            detail={"attempts": numbers, "why": why},
        )  # fmt: skip


def keep_evidence(connection: Connection, *, key: str, attempt: int, evidence: Mapping[str, object]) -> None:
    """Store the evidence gathered for an open attempt."""
    text = json.dumps(evidence, sort_keys=True)
    connection.execute(
        update(_A).where(_A.c.key == key, _A.c.attempt == attempt, _A.c.outcome.is_(None)).values(evidence=text)
    )


def venue_left_unknown(connection: Connection, *, venue: str, since_ms: int) -> bool:
    """Return whether an answer of `venue` left an attempt unknown since `since_ms`; our own crashes do not count."""
    query = select(_A.c.key).join(_I, _I.c.key == _A.c.key).where(_A.c.unknown_at_ms >= since_ms, _I.c.venue == venue)
    return connection.execute(query.limit(1)).first() is not None


def proof(*, key: str, order: ExchangeOrder, source: str, before: str, now_ms: int) -> Bound:
    """Return the statement that appends what the exchange said of an order of ours, if that is news."""
    return sql.insertion(
        schema.proofs,
        key=key,
        order_id=order.order_id,
        status=order.status,
        executed_quantity=order.executed_quantity,
        source=source,
        state_before=before,
        recorded_at_ms=now_ms,
    )


def proofs_of(connection: Connection, key: str) -> Sequence[Mapping[str, Any]]:
    """Return the proofs of an intent, oldest first."""
    query = select(schema.proofs).where(schema.proofs.c.key == key).order_by(schema.proofs.c.id)
    return [dict(row) for row in connection.execute(query).mappings()]


def _failure_columns(failure: Failure | None) -> dict[str, object]:
    if failure is None:
        return {}
    return {
        "failure_class": failure.failure_class.value,
        "rule": failure.rule,
        "http_status": failure.http_status,
        "code": failure.code,
    }
