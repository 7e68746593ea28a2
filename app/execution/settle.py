"""Journal what became of an attempt: outcome, next state and follow-ups in one transaction.

Proof of execution is taken at any fence. A claim that nothing was executed counts only from the attempt that still
holds the row; from anyone else it is noted in the log and changes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from app.delivery import Parcel
from app.execution.adopt import adopt, adopt_at_once
from app.execution.context import ExecutionContext
from app.job_safety.errors import StoreUnavailableError
from app.job_safety.faults import FaultPoint
from app.job_safety.outcome import (
    Accepted,
    Advice,
    ExchangeOrder,
    Failure,
    FailureClass,
    NotSent,
    Outcome,
    Refused,
    Unknown,
    Venue,
)
from app.job_safety.retry_policy import Expire, GiveUp, NeedsPerson, NeedsProof, RetryAt, decide, pause_until_ms
from app.job_safety.state import IntentState
from app.journal import attempts, intents, meta
from app.journal.rows import AttemptRow, IntentRow

FIRST_QUERY_AFTER_MS = 500
OWN_PAUSE_MS = 200
OWN_PAUSE_MAX_MS = 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """The row after the attempt, and what is now to be delivered."""

    row: IntentRow
    parcels: Sequence[Parcel]


def settle_accepted(context: ExecutionContext, attempt: AttemptRow, order: ExchangeOrder, row: IntentRow) -> Settled:
    """Write that `attempt` was accepted, as `settle` does: at once, if `row` is still as it was dispatched.

    Args:
        context: This process, the owner of the attempt.
        attempt: As it was dispatched.
        order: What the exchange said.
        row: As this process moved it to DISPATCHED.

    Raises:
        StoreUnavailableError: as `settle`.
    """
    context.faults.hit(FaultPoint.IN_SETTLE_TRANSACTION)
    adopted = adopt_at_once(context, row, order)
    if adopted is None:
        return settle(context, attempt, Accepted(order=order))
    return Settled(row=adopted.row, parcels=adopted.parcels)


def settle(context: ExecutionContext, attempt: AttemptRow, outcome: Outcome, *, is_snooze: bool = False) -> Settled:
    """Write `outcome` of `attempt` into the journal.

    Args:
        context: This process, the owner of the attempt.
        attempt: As it was dispatched.
        outcome: What the venue port said.
        is_snooze: A NotSent of our own making, which is tried again at once and costs no attempt.

    Raises:
        StoreUnavailableError: the journal could not be written; the row stays DISPATCHED and reconcile takes it up.
    """
    with context.journal.write() as connection:
        context.faults.hit(FaultPoint.IN_SETTLE_TRANSACTION)
        match outcome:
            case Accepted(order=order):
                adopted = adopt(context, connection, key=attempt.key, order=order, source="dispatch")
                return Settled(row=adopted.row, parcels=adopted.parcels)
            case Unknown(failure=failure):
                row = _doubt(context, connection, attempt, failure)
            case Refused(failure=failure):
                row = _not_executed(context, connection, attempt, failure, outcome="REFUSED")
            case NotSent(failure=failure, reason=reason):
                if is_snooze or failure is None:
                    row = _not_sent_by_us(context, connection, attempt, reason)
                else:
                    row = _not_executed(context, connection, attempt, failure, outcome="NOT_SENT")
    return Settled(row=row, parcels=[])


def close_gate(context: ExecutionContext, venue: Venue, failure: Failure, *, strikes: int) -> None:
    """Make everybody pause if `failure` asks for that.

    A ban names its end in exchange time, so the present is taken from the exchange's clock too.
    """
    if failure.failure_class not in {FailureClass.RATE_LIMITED, FailureClass.BANNED}:
        return
    now_ms = exchange_now_ms(context, venue)
    for_ms = pause_until_ms(failure=failure, strikes=strikes, now_ms=now_ms, policy=context.retry) - now_ms
    whole_address = failure.code != -1015  # TOO_MANY_ORDERS counts per account, all else per address
    why = f"{failure.http_status}:{failure.rule}"
    try:
        context.pause.close(venue.value, for_ms=for_ms, why=why, whole_address=whole_address)
    except StoreUnavailableError as error:
        # Without Redis nothing that opens risk is admitted anyway.
        context.record.event("gate_not_closed", level="error", count=False, venue=venue, why=why, error=str(error))
    context.record.event("gate_closed", level="warning", venue=venue.value, why=why, for_ms=for_ms)


def exchange_now_ms(context: ExecutionContext, venue: Venue) -> int:
    """Return the exchange's time as far as it is known, else ours: for deciding when, never for proving anything."""
    known = context.exchange_clock.estimate_ms(venue)
    return context.clock.now_ms() if known is None else known


def _doubt(context: ExecutionContext, connection: Connection, attempt: AttemptRow, failure: Failure) -> IntentRow:
    now_ms = context.clock.now_ms()
    row = intents.load(connection, attempt.key, lock=True)
    attempts.note_unknown(connection, key=attempt.key, attempt=attempt.attempt, failure=failure, now_ms=now_ms)
    if _is_held_by(row, attempt):
        intents.move(
            connection, row, IntentState.IN_DOUBT, now_ms=now_ms, run_at_ms=now_ms + FIRST_QUERY_AFTER_MS,
            in_doubt_since_ms=row.in_doubt_since_ms or now_ms, reason=f"in doubt: {failure.rule}",
        )  # fmt: skip
    context.record.event(
        "in_doubt", level="warning", key=row.key, attempt=attempt.attempt, rule=failure.rule, job_type=row.job_type
    )
    return intents.load(connection, attempt.key)


def _not_sent_by_us(context: ExecutionContext, connection: Connection, attempt: AttemptRow, reason: str) -> IntentRow:
    now_ms = context.clock.now_ms()
    row = intents.load(connection, attempt.key, lock=True)
    if _is_held_by(row, attempt) and _is_its_owner(connection, attempt):
        attempts.settle(
            connection, key=row.key, attempt=attempt.attempt, outcome="NOT_SENT", by="own", now_ms=now_ms, answer=reason
        )
        # The first time at once, since the pause that caused it is over; from then on ever later.
        at_ms = now_ms + (min(OWN_PAUSE_MS << min(row.snoozes - 1, 8), OWN_PAUSE_MAX_MS) if row.snoozes else 0)
        intents.move(
            connection, row, IntentState.RETRY_WAIT, now_ms=now_ms, run_at_ms=at_ms, not_before_ms=at_ms,
            snoozes=row.snoozes + 1, reason=reason, fence=meta.raise_fence(connection, row.fence),
        )  # fmt: skip
    context.record.event("not_sent", key=row.key, attempt=attempt.attempt, reason=reason)
    return intents.load(connection, attempt.key)


def _not_executed(
    context: ExecutionContext, connection: Connection, attempt: AttemptRow, failure: Failure, *, outcome: str
) -> IntentRow:
    now_ms = context.clock.now_ms()
    row = intents.load(connection, attempt.key, lock=True)
    if not _is_held_by(row, attempt):
        context.record.event(
            "late_refusal_ignored", level="warning", key=row.key, attempt=attempt.attempt, rule=failure.rule
        )
        return row
    all_attempts = attempts.of_intent(connection, row.key)
    tries = sum(1 for other in all_attempts if other.settled_by != "own")
    decision = decide(
        failure=failure, attempt=max(tries, 1), now_ms=now_ms, valid_until_ms=row.valid_until_ms, policy=context.retry,
        jitter=context.jitter,
    )  # fmt: skip
    delay_ms = decision.at_ms - now_ms if isinstance(decision, RetryAt) else None
    attempts.settle(
        connection, key=row.key, attempt=attempt.attempt, outcome=outcome, by="own_answer", now_ms=now_ms,
        failure=failure, answer=failure.message, retry_delay_ms=delay_ms,
    )  # fmt: skip
    earlier_ended = all(other.ended_by_own_answer for other in all_attempts if other.attempt != attempt.attempt)
    if outcome == "REFUSED" and not earlier_ended:
        return _doubt_everything(context, connection, row, failure)
    fence = meta.raise_fence(connection, row.fence)
    match decision:
        case RetryAt(at_ms=at_ms, reason=reason):
            intents.move(
                connection, row, IntentState.RETRY_WAIT, now_ms=now_ms, run_at_ms=at_ms, not_before_ms=at_ms,
                reason=reason, fence=fence,
            )  # fmt: skip
            context.record.event("retry", key=row.key, attempt=attempt.attempt, rule=failure.rule, delay_ms=delay_ms)
        case Expire(reason=reason):
            # EXPIRED is never reached straight from DISPATCHED: the next run finds the validity over and closes it.
            intents.move(
                connection, row, IntentState.RETRY_WAIT, now_ms=now_ms, run_at_ms=now_ms, not_before_ms=0,
                reason=reason, fence=fence, valid_until_ms=min(row.valid_until_ms or now_ms, now_ms),
            )  # fmt: skip
        case GiveUp(reason=reason) | NeedsPerson(reason=reason) | NeedsProof(reason=reason):
            if not earlier_ended:
                return _doubt_everything(context, connection, row, failure)
            text = f"{reason}: {failure.message}"[:500]
            intents.move(
                connection, row, IntentState.REJECTED, now_ms=now_ms, reason=text, fence=fence, booked_at_ms=now_ms
            )
            is_tried_out = isinstance(decision, GiveUp) and failure.advice is not Advice.NEVER
            context.record.event(
                "rejected", level="warning", key=row.key, rule=failure.rule, code=failure.code, job_type=row.job_type,
                attempt=attempt.attempt, ended_by="max_attempts" if is_tried_out else "non_retryable",
            )  # fmt: skip
    return intents.load(connection, attempt.key)


def _doubt_everything(context: ExecutionContext, connection: Connection, row: IntentRow, failure: Failure) -> IntentRow:
    """An earlier attempt was only declared absent, and its success may have caused this refusal: ask again for all."""
    now_ms = context.clock.now_ms()
    why = f"refused ({failure.rule}) after an attempt that was declared absent"
    intents.move(
        connection, row, IntentState.IN_DOUBT, now_ms=now_ms, run_at_ms=now_ms + FIRST_QUERY_AFTER_MS,
        in_doubt_since_ms=now_ms, answered_doubt_ms=0, fence=meta.raise_fence(connection, row.fence), reason=why,
    )  # fmt: skip
    attempts.reopen(connection, row.key, now_ms=now_ms, by=context.owner, why=why)
    context.record.event("refusal_reopens_doubt", level="warning", key=row.key, rule=failure.rule)
    return intents.load(connection, row.key)


def _is_held_by(row: IntentRow, attempt: AttemptRow) -> bool:
    return (row.state, row.attempt, row.fence) == (IntentState.DISPATCHED, attempt.attempt, attempt.fence)


def _is_its_owner(connection: Connection, attempt: AttemptRow) -> bool:
    """Return whether the attempt in the journal is this one, and not that of another, who read the same row.

    Of an attempt whose commit was not answered nobody knows; number and fence are those of whoever came next.
    """
    return any(
        (one.attempt, one.owner) == (attempt.attempt, attempt.owner)
        for one in attempts.of_intent(connection, attempt.key)
    )
