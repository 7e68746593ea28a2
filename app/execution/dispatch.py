"""One attempt: journal DISPATCHED on disk, then send one request, once, then journal what became of it."""

from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple, TypeAlias

from sqlalchemy import Connection

from app.exchange.models import PinnedOrder
from app.exchange.signing import payload_hash
from app.execution.conditions import Denied, Pin, closing_states, first_denied
from app.execution.context import ExecutionContext
from app.execution.heard import Heard, call_name
from app.execution.settle import Settled, close_gate, settle, settle_accepted
from app.execution.verify import ask_whether_single
from app.intents import OrderIntent
from app.job_safety.admission import EffectKind
from app.job_safety.circuit_breaker import weight_of
from app.job_safety.errors import InvariantViolatedError, LeaseLostError, StoreUnavailableError
from app.job_safety.faults import FaultPoint
from app.job_safety.outcome import Accepted, FailureClass, NotSent, Outcome, Refused, Unknown, Venue
from app.job_safety.state import SENDABLE, IntentState
from app.journal import attempts, intents, standing
from app.journal.fence import next_fence
from app.journal.meta import Meta
from app.journal.prepared import Bound, counts_if_first, counts_of
from app.journal.rows import AttemptRow, IntentRow
from app.journal.standing import Standing

SETTLE_PAUSES_S: Final = (0.1, 0.4, 1.0, 1.5)

STALE_SHARE: Final = 0.1
"""Who has waited for SQLite's one writer longer than this part of the time in which a request must leave pins anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Dispatched:
    row: IntentRow
    attempt: AttemptRow
    request: PinnedOrder
    pinned_at_s: float


class _Planned(NamedTuple):
    pin: Pin
    move: Bound
    dispatched: _Dispatched


DispatchResult: TypeAlias = Settled | Denied


def dispatch(
    context: ExecutionContext,
    row: IntentRow,
    intent: OrderIntent,
    kind: EffectKind,
    heard: Heard,
    *,
    stamp: Meta,
) -> DispatchResult:
    """Place `intent` once.

    The row is DISPATCHED on disk before the request leaves. A crash between the two costs one reconciliation; the other
    order could cost a second order.

    Args:
        context: This process, which holds the guard's lease.
        row: The row as it was read; it must be sendable.
        intent: Its content.
        kind: Which gates can stop it.
        heard: Takes what the answer shows of the exchange.
        stamp: The journal's, as it was read with the row: in its kill epoch the intent was admitted.

    Returns:
        What was settled, or the condition that did not hold, in which case nothing was written or sent.

    Raises:
        LeaseLostError: somebody moved the row first; nothing was sent.
        ExchangeClockUnknownError: the exchange's time is not known; nothing was written or sent.
        StoreUnavailableError: the journal could not be written. If that was before sending, nothing was sent.
    """
    if _was_ill_timed(context, row):
        context.exchange_clock.forget(heard.venue)
    context.exchange_clock.freshen(heard.venue)  # measures now if that is due, and not inside the transaction
    dispatched = _write_dispatched(context, row, intent, kind, heard.venue, stamp=stamp)
    if isinstance(dispatched, Denied):
        return dispatched
    context.faults.hit(FaultPoint.AFTER_DISPATCH_COMMIT)
    return _send(context, dispatched, row, heard)


def _was_ill_timed(context: ExecutionContext, row: IntentRow) -> bool:
    """Return whether the exchange has refused the last attempt for its time.

    Who sent it has measured the clock since, and who tries again may be another, with a measurement as old as that was.
    """
    if row.attempt == 0:
        return False
    with context.journal.read() as connection:
        last = attempts.of_intent(connection, row.key)[-1:]
    return any(one.failure_class == FailureClass.CLOCK_SKEW.value for one in last)


def _write_dispatched(
    context: ExecutionContext, row: IntentRow, intent: OrderIntent, kind: EffectKind, venue: Venue, *, stamp: Meta
) -> _Dispatched | Denied:
    """Write DISPATCHED at once if nothing has changed since `row` and `stamp` were read, else under locks."""
    if row.attempt == 0:  # a later one counts, and asks, for more than goes into one statement
        written = _write_at_once(context, row, intent, kind, venue, stamp=stamp)
        if written is not None:
            return written
    return _write_under_locks(context, row, intent, kind, venue, kill_epoch=stamp.kill_epoch)


def _write_at_once(
    context: ExecutionContext, row: IntentRow, intent: OrderIntent, kind: EffectKind, venue: Venue, *, stamp: Meta
) -> _Dispatched | None:
    """Do as `_write_under_locks` does, by one change that insists on what was read before.

    What it would write is made before the change begins, so that others may write meanwhile.

    Returns:
        None, and nothing is written: something has changed or speaks against it, which the other finds out.
    """
    looked = Standing(row=row, stamp=stamp, has_proof=False, closed_by=None)
    is_struck = context.faults.may_strike(FaultPoint.IN_DISPATCH_TRANSACTION)
    plan = partial(_planned, context, looked, intent, venue, kill_epoch=stamp.kill_epoch)
    planned = plan()
    written: _Dispatched | None = None

    def write(connection: Connection) -> _Dispatched | None:
        nonlocal planned, written
        written = None  # what an earlier run wrote was rolled back
        waited_ms = (context.clock.monotonic() - planned.dispatched.pinned_at_s) * 1000
        if waited_ms > STALE_SHARE * context.horizons.pin_to_send_limit_ms:
            planned = plan()
        if first_denied(context, looked, kind, planned.pin) is not None:
            return None
        written = planned.dispatched
        move = standing.unless_changed(planned.move, looked, closing=closing_states(context))
        if counts_if_first(connection, move, attempts.insertion(written.attempt)) is None:
            written = None
        else:
            context.faults.hit(FaultPoint.IN_DISPATCH_TRANSACTION)
        return written

    try:
        return context.journal.make(write, kept_open=is_struck)
    except StoreUnavailableError:
        if written is not None:
            _disown(context, written)
        raise


def _write_under_locks(
    context: ExecutionContext, row: IntentRow, intent: OrderIntent, kind: EffectKind, venue: Venue, *, kill_epoch: int
) -> _Dispatched | Denied:
    written: _Dispatched | None = None
    try:
        with context.journal.write() as connection:
            stands = standing.hold(connection, row.key, closing=closing_states(context))
            fresh = stands.row
            if fresh.state not in SENDABLE or (fresh.attempt, fresh.fence) != (row.attempt, row.fence):
                raise LeaseLostError(f"{row.key}: moved to {fresh.state} by somebody else")
            if stands.has_proof:
                raise InvariantViolatedError(f"{row.key}: the exchange has this order; it must not be sent")
            planned = _planned(context, stands, intent, venue, kill_epoch=kill_epoch)
            denied = first_denied(context, stands, kind, planned.pin)
            if denied is not None:
                return denied
            dispatched = planned.dispatched
            attempt = dispatched.attempt
            if counts_of(connection, planned.move, attempts.insertion(attempt)) != [1, 1]:
                raise LeaseLostError(f"{row.key}: lost to another worker at the last moment")
            attempts.tally(connection, dispatched.row, attempt)
            if attempt.attempt > 1:
                ask_whether_single(connection, fresh, attempt.attempt, now_ms=attempt.dispatched_at_ms)
            context.faults.hit(FaultPoint.IN_DISPATCH_TRANSACTION)
            written = dispatched
    except StoreUnavailableError:
        if written is not None:
            _disown(context, written)
        raise
    return written


def _disown(context: ExecutionContext, dispatched: _Dispatched) -> None:
    """The answer of the commit was lost. It is not won: this process, which alone could send, says so."""
    settle(context, dispatched.attempt, NotSent(reason="the answer of the commit was lost"), is_snooze=True)


def _planned(
    context: ExecutionContext, stands: Standing, intent: OrderIntent, venue: Venue, *, kill_epoch: int
) -> _Planned:
    """Pin the timestamp; return what is then to be written and sent, if nothing speaks against it."""
    pinned_at_s = context.clock.monotonic()
    pin = Pin(
        timestamp_ms=context.exchange_clock.lower_bound_ms(venue),
        recv_window_ms=context.horizons.recv_window_ms,
        kill_epoch=kill_epoch,
    )
    request = pinned_order(stands.row, intent, pin)
    now_ms = context.clock.now_ms()
    attempt = _new_attempt(context, stands.stamp, stands.row, request, now_ms=now_ms)
    move, moved = intents.moving(
        stands.row, IntentState.DISPATCHED, now_ms=now_ms, attempt=attempt.attempt, fence=attempt.fence,
        run_at_ms=now_ms + context.horizons.lease_check_ms,
    )  # fmt: skip
    return _Planned(pin, move, _Dispatched(row=moved, attempt=attempt, request=request, pinned_at_s=pinned_at_s))


def _send(context: ExecutionContext, dispatched: _Dispatched, row: IntentRow, heard: Heard) -> Settled:
    attempt, request = dispatched.attempt, dispatched.request
    context.faults.hit(FaultPoint.BEFORE_SEND)
    sent_at_s = context.clock.monotonic()
    waited_ms = round((sent_at_s - dispatched.pinned_at_s) * 1000)
    if waited_ms > context.horizons.pin_to_send_limit_ms:
        reason = f"not sent: {waited_ms} ms passed after its timestamp was pinned"
        return settle(context, attempt, NotSent(reason=reason), is_snooze=True)
    outcome = context.gateway.place_order(request)
    heard.call = call_name(attempt.key, attempt.attempt)
    heard.weight = weight_of(outcome, context.breakers.policy)
    took_ms = round((context.clock.monotonic() - sent_at_s) * 1000, 3)
    context.faults.hit(FaultPoint.AFTER_SEND)
    settled = _settle_surely(context, dispatched, outcome)
    context.faults.hit(FaultPoint.AFTER_SETTLE_COMMIT)
    match outcome:
        case Refused(failure=failure) | Unknown(failure=failure):
            close_gate(context, request.venue, failure, strikes=row.attempt + 1)
            if failure.failure_class is FailureClass.CLOCK_SKEW:
                context.exchange_clock.forget(request.venue)
        case _:
            pass
    context.record.event(
        "attempt_settled", count=False, key=attempt.key, attempt=attempt.attempt, state=settled.row.state.value,
        fence=attempt.fence, outcome=type(outcome).__name__, order_id=settled.row.exchange_order_id,
        took_ms=took_ms, age_ms=context.clock.now_ms() - row.created_at_ms, type=row.type, job_type=row.job_type,
        venue=request.venue.value, symbol=request.symbol, side=request.side,
        failure_class=None if isinstance(outcome, Accepted) or outcome.failure is None
        else outcome.failure.failure_class.value,
    )  # fmt: skip
    return settled


def _settle_surely(context: ExecutionContext, dispatched: _Dispatched, outcome: Outcome) -> Settled:
    """Journal an answer that is known, through a short absence of the database: writing it twice changes nothing."""
    for pause_s in SETTLE_PAUSES_S:
        try:
            return _settle(context, dispatched, outcome)
        except StoreUnavailableError as error:
            key = dispatched.attempt.key
            context.record.event("settle_again", level="warning", count=False, key=key, error=str(error))
            context.clock.sleep(pause_s)
    return _settle(context, dispatched, outcome)


def _settle(context: ExecutionContext, dispatched: _Dispatched, outcome: Outcome) -> Settled:
    if isinstance(outcome, Accepted):
        return settle_accepted(context, dispatched.attempt, outcome.order, dispatched.row)
    return settle(context, dispatched.attempt, outcome)


def pinned_order(row: IntentRow, intent: OrderIntent, pin: Pin) -> PinnedOrder:
    """Return the request of `row` with `pin`: every attempt differs from the last in nothing but its timestamp.

    Raises:
        InvariantViolatedError: the row has no client order id.
    """
    if row.client_order_id is None:
        raise InvariantViolatedError(f"{row.key}: an order without a client order id")
    return PinnedOrder(
        venue=Venue(intent.venue),
        symbol=intent.symbol,
        side=intent.side,
        order_type=intent.order_type,
        quantity=intent.quantity,
        price=intent.price,
        stop_price=intent.stop_price,
        time_in_force=intent.time_in_force,
        reduce_only=intent.reduce_only,
        client_order_id=row.client_order_id,
        timestamp_ms=pin.timestamp_ms,
        recv_window_ms=pin.recv_window_ms,
    )


def _new_attempt(
    context: ExecutionContext, stamp: Meta, row: IntentRow, request: PinnedOrder, *, now_ms: int
) -> AttemptRow:
    return AttemptRow(
        key=row.key,
        attempt=row.attempt + 1,
        owner=context.owner,
        fence=next_fence(row.fence, stamp.epoch),
        client_order_id=request.client_order_id,
        timestamp_ms=request.timestamp_ms,
        recv_window_ms=request.recv_window_ms,
        payload_hash=payload_hash(request),
        config_hash=context.config_hash,
        dispatched_at_ms=now_ms,
    )
