"""Circuits as execution and the journal see them: late results, evidence for reconcile, and the history of changes."""

import contextlib
from collections.abc import Callable, Sequence
from typing import TypeAlias

from sqlalchemy import Connection

from app.clock import Clock
from app.execution.context import ExecutionContext
from app.execution.heard import call_name
from app.job_safety.circuit_breaker import BreakerState, job_type_of
from app.job_safety.circuit_changes import CircuitChange, CircuitChanges
from app.job_safety.effect import EffectKind
from app.job_safety.errors import StoreUnavailableError
from app.job_safety.failure_classifier import counts_for_breaker
from app.job_safety.outcome import Venue
from app.journal import circuits
from app.journal.engine import Journal
from app.journal.rows import AttemptRow, IntentRow
from app.observability.recorder import Recorder

InTransaction: TypeAlias = Callable[[Connection, CircuitChange], None]


def tell_of_unknown(context: ExecutionContext, row: IntentRow, attempt: AttemptRow) -> None:
    """Count an answer that left an attempt unknown, in case its worker died before it told the circuit.

    That a worker died before it had any answer says nothing about the exchange, and does not count.
    """
    if attempt.outcome is not None or attempt.unknown_at_ms is None or not counts_for_breaker(attempt.rule or ""):
        return
    kind = EffectKind.OPEN if row.opens_risk else EffectKind.REDUCE
    job_type = job_type_of(kind, (row.venue or Venue.USDM).value) or ""
    age_ms = context.clock.now_ms() - attempt.unknown_at_ms
    # Without Redis nothing that opens risk is admitted, and the next step tells again.
    with contextlib.suppress(StoreUnavailableError):
        context.breakers.report_late(job_type, member=call_name(attempt.key, attempt.attempt), age_ms=age_ms)


def is_closed(context: ExecutionContext, venue: Venue) -> bool:
    """Return whether the circuit of what opens risk is closed; one that cannot be read is not known to be."""
    try:
        return context.breakers.read(job_type_of(EffectKind.OPEN, venue.value) or "").state is BreakerState.CLOSED
    except StoreUnavailableError:
        return False


def journal_changes(
    journal: Journal, changes: CircuitChanges, clock: Clock, record: Recorder, *, also: Sequence[InTransaction] = ()
) -> int:
    """Write what has changed about circuits into the audit trail, each change once; return how many were new.

    Killed anywhere in here, or run twice at once, it loses and doubles none: a change leaves Redis only after the
    journal has it, and the journal knows which it has.

    Args:
        journal: Takes the rows.
        changes: Where the changes wait.
        clock: Dates the taking; a change itself is dated by Redis.
        record: Tells of each new change.
        also: Called for each new change in the transaction of its row.

    Raises:
        StoreUnavailableError: a store does not answer; what was not taken waits.
    """
    batch = changes.read()
    if not batch:
        return 0
    new: list[CircuitChange] = []
    with journal.write() as connection:
        for change in batch:
            if circuits.append(connection, change, now_ms=clock.now_ms()):
                new.append(change)
                for act in also:
                    act(connection, change)
    changes.drop(batch)
    for change in new:
        record.event(
            "circuit_changed",
            level="warning",
            job_type=change.job_type,
            action=change.action,
            from_state=change.from_state,
            to_state=change.to_state,
            reason=change.why,
            by=change.by,
            until_ms=change.until_ms,
        )
    return len(new)
