"""Run one cancel intent. It is repeatable: doubt costs a question and at worst a second cancel, never an order."""

from collections.abc import Sequence

from app.delivery import Parcel
from app.exchange.errors import ExchangeClockUnknownError, ExchangeQueryError
from app.exchange.models import CancelAccepted, CancelOutcome, PinnedCancel
from app.exchange.signing import payload_hash
from app.execution.adopt import adopt
from app.execution.alone import be_alone_with
from app.execution.conditions import Denied, Pin, closing_states, first_denied
from app.execution.context import ExecutionContext
from app.execution.heard import Heard, call_name
from app.execution.settle import close_gate
from app.intents import CancelIntent, from_canonical
from app.job_safety.admission import Admitted, Blocked, EffectKind, Held
from app.job_safety.circuit_breaker import job_type_of, weight_of
from app.job_safety.errors import InvariantViolatedError, StoreUnavailableError
from app.job_safety.outcome import ExchangeOrder, NotSent, Refused, Unknown, Venue
from app.job_safety.side_effect_guard import Token
from app.job_safety.state import DOUBTFUL, LIVE, SENDABLE, TERMINAL_STATES, IntentState
from app.journal import attempts, intents, standing
from app.journal.fence import next_fence
from app.journal.meta import Meta
from app.journal.rows import AttemptRow, IntentRow

LOOK_AGAIN_MS = 500
LOOK_AGAIN_MAX_MS = 10_000
FAILED_AGAIN_MS = 1_000


def run_cancel(context: ExecutionContext, key: str) -> str:
    """Move the cancel `key` as far as it can go now; return where it stands, for people.

    Raises:
        IntentNotFoundError: the journal does not know the key.
        StoreUnavailableError: the journal does not answer.
        NotAloneError: a worker has died of it, and this process is at other work too.
    """
    with context.journal.read() as connection:
        row = intents.load(connection, key)
        be_alone_with(context, row)
        intent = from_canonical(row.content)
        if not isinstance(intent, CancelIntent):
            raise InvariantViolatedError(f"{key} is a {row.type}, not a cancel")
        target = intents.find(connection, intent.order_key)
    if row.state in TERMINAL_STATES:
        return row.state.value
    if target is None:
        return _finish(context, row, IntentState.REJECTED, "the journal knows no such order")
    if target.type != "order":
        return _finish(context, row, IntentState.REJECTED, f"{target.key} is a {target.type}, not an order")
    if target.state in SENDABLE:
        return _cancel_unsent(context, row, target)
    if target.state in DOUBTFUL:
        return _wait_for_settlement(context, row, target)
    if target.state not in LIVE:
        return _finish(context, row, IntentState.DONE, f"the order is {target.state} already")
    return _cancel_live(context, row, target)


def _cancel_unsent(context: ExecutionContext, row: IntentRow, target: IntentRow) -> str:
    now_ms = context.clock.now_ms()
    with context.journal.write() as connection:
        fresh = intents.load(connection, target.key, lock=True)
        moved = fresh.state in SENDABLE and intents.move(
            connection, fresh, IntentState.EXPIRED, now_ms=now_ms, cancel_requested=True, booked_at_ms=now_ms,
            reason="canceled before it was sent",
        )  # fmt: skip
    return (
        _finish(context, row, IntentState.DONE, "the order was never sent") if moved else _later(context, row, "moving")
    )


def _wait_for_settlement(context: ExecutionContext, row: IntentRow, target: IntentRow) -> str:
    """Bar any further send of an order in doubt; the cancel itself waits until it is known what to cancel."""
    now_ms = context.clock.now_ms()
    if not target.cancel_requested:
        with context.journal.write() as connection:
            fresh = intents.load(connection, target.key, lock=True)
            intents.touch(connection, fresh, now_ms=now_ms, cancel_requested=True)
    return _later(context, row, f"the order is {target.state}")


def _cancel_live(context: ExecutionContext, row: IntentRow, target: IntentRow) -> str:
    if target.venue is None or target.exchange_order_id is None:
        raise InvariantViolatedError(f"{target.key}: on the exchange without venue or order id")
    token: Token | None = None
    heard = Heard(venue=target.venue, ticket=None)
    try:
        answer = context.admission.ask(
            "cancel", row.key, kind=EffectKind.CANCEL, venue=target.venue.value, distrust_done=True
        )
    except StoreUnavailableError:
        pass  # without Redis a cancel goes out from the journal; its compare-and-set is the guard
    else:
        match answer:
            case Admitted(token=token, ticket=ticket):
                heard.ticket = ticket
            case Held(by=by):
                return f"held by {by}"
            case Blocked(why=why, gate=gate):
                context.record.event(
                    "blocked",
                    key=row.key,
                    gate=gate,
                    reason=why,
                    job_type=job_type_of(EffectKind.CANCEL, target.venue),
                    venue=target.venue.value,
                )
                return _later(context, row, why)
            case _:
                raise InvariantViolatedError(f"{row.key}: admission answered {answer}")
    try:
        if (row.attempt > 0 or target.is_algo) and _is_over(context, target):
            return _finish(context, row, IntentState.DONE, "the order is finished")
        with context.journal.read() as connection:
            target = intents.load(connection, target.key)
        return _send(context, row, target, heard)
    except (ExchangeQueryError, ExchangeClockUnknownError) as error:
        return _later(context, row, str(error))
    finally:
        if token is not None:
            context.end_lease("cancel", row.key, token, told=heard.told(context))


def _is_over(context: ExecutionContext, target: IntentRow) -> bool:
    """Ask for the order by its id and take what the exchange says; return whether there is nothing left to cancel."""
    if target.venue is None or target.symbol is None:
        raise InvariantViolatedError(f"{target.key}: an order without venue or symbol")
    if target.is_algo and target.actual_order_id is None:
        answer = context.gateway.get_order(
            target.venue, target.symbol, client_order_id=target.client_order_id, is_algo=True
        )
    else:
        order_id = target.actual_order_id or target.exchange_order_id
        answer = context.gateway.get_order(target.venue, target.symbol, order_id=order_id)
    if not isinstance(answer, ExchangeOrder):
        return False
    told = [answer]
    if answer.is_algo and answer.actual_order_id is not None:
        actual = context.gateway.get_order(target.venue, target.symbol, order_id=answer.actual_order_id)
        told += [actual] if isinstance(actual, ExchangeOrder) else []
    is_over = False
    for order in told:
        with context.journal.write() as connection:
            adopted = adopt(context, connection, key=target.key, order=order, source="cancel")
        context.hand_over(adopted.parcels)
        is_over = adopted.row.state in TERMINAL_STATES
    return is_over


def _send(context: ExecutionContext, row: IntentRow, target: IntentRow, heard: Heard) -> str:
    venue = target.venue or Venue.USDM
    context.exchange_clock.freshen(venue)
    with context.journal.write() as connection:
        stands = standing.hold(connection, row.key, closing=closing_states(context))
        fresh = stands.row
        if fresh.state in TERMINAL_STATES:
            return fresh.state.value
        pin = Pin(
            timestamp_ms=context.exchange_clock.lower_bound_ms(venue), recv_window_ms=context.horizons.recv_window_ms
        )
        denied = first_denied(context, stands, EffectKind.CANCEL, pin)
        if isinstance(denied, Denied):
            request = None
        else:
            is_algo = target.is_algo and target.actual_order_id is None
            request = PinnedCancel(
                venue=venue,
                symbol=target.symbol or "",
                timestamp_ms=pin.timestamp_ms,
                recv_window_ms=pin.recv_window_ms,
                order_id=target.actual_order_id or target.exchange_order_id,
                client_order_id=target.client_order_id,
                is_algo=is_algo,
            )
            attempt = _new_attempt(context, stands.stamp, fresh, request)
            now_ms = context.clock.now_ms()
            moved, _ = intents.move_with(
                connection, fresh, IntentState.DISPATCHED, [attempts.insertion(attempt)], now_ms=now_ms,
                attempt=attempt.attempt, fence=attempt.fence, run_at_ms=now_ms + context.horizons.lease_check_ms,
            )  # fmt: skip
            if moved is None:
                raise InvariantViolatedError(f"{row.key}: the row moved although this transaction holds it")
            attempts.tally(connection, moved, attempt)
    if request is None or denied is not None:
        why = denied.why if denied else "denied"
        return (
            _finish(context, row, IntentState.EXPIRED, why) if denied and denied.is_final else _later(context, row, why)
        )
    sent_at_s = context.clock.monotonic()
    outcome = context.gateway.cancel_order(request)
    heard.call = call_name(attempt.key, attempt.attempt)
    heard.weight = 0 if isinstance(outcome, CancelAccepted) else weight_of(outcome, context.breakers.policy)
    took_ms = round((context.clock.monotonic() - sent_at_s) * 1000, 3)
    text = _settle(context, attempt, target, outcome)
    failure = None if isinstance(outcome, CancelAccepted) else outcome.failure
    context.record.event(
        "attempt_settled", level="debug", count=False, key=row.key, attempt=attempt.attempt, type=row.type,
        job_type=row.job_type, venue=venue.value, took_ms=took_ms,
        outcome="Accepted" if isinstance(outcome, CancelAccepted) else type(outcome).__name__,
        failure_class=failure.failure_class.value if failure else None,
    )  # fmt: skip
    return text


def _settle(context: ExecutionContext, attempt: AttemptRow, target: IntentRow, outcome: CancelOutcome) -> str:
    now_ms = context.clock.now_ms()
    match outcome:
        case CancelAccepted(order=order):
            return _settle_accepted(context, attempt, target, order)
        case NotSent(failure=failure):
            after, settled_as = IntentState.RETRY_WAIT, "NOT_SENT"
        case Refused(failure=failure):
            after, settled_as = IntentState.RETRY_WAIT, "REFUSED"
        case Unknown(failure=failure):
            after, settled_as = IntentState.IN_DOUBT, ""
    at_ms = now_ms + FAILED_AGAIN_MS
    reason = failure.rule if failure else "not sent"
    with context.journal.write() as connection:
        row = intents.load(connection, attempt.key, lock=True)
        if settled_as:
            attempts.settle(
                connection,
                key=attempt.key,
                attempt=attempt.attempt,
                outcome=settled_as,
                by="own_answer",
                now_ms=now_ms,
                failure=failure,
            )
        elif failure is not None:
            attempts.note_unknown(connection, key=row.key, attempt=attempt.attempt, failure=failure, now_ms=now_ms)
        if row.state not in TERMINAL_STATES:
            intents.move(connection, row, after, now_ms=now_ms, run_at_ms=at_ms, not_before_ms=at_ms, reason=reason)
    if failure is not None:
        close_gate(context, target.venue or Venue.USDM, failure, strikes=attempt.attempt)
    context.record.event("cancel_again", key=attempt.key, reason=reason)
    return f"{after.value}: {reason}"


def _settle_accepted(
    context: ExecutionContext, attempt: AttemptRow, target: IntentRow, order: ExchangeOrder | None
) -> str:
    now_ms = context.clock.now_ms()
    with context.journal.write() as connection:
        attempts.settle(
            connection, key=attempt.key, attempt=attempt.attempt, outcome="ACCEPTED", by="own_answer", now_ms=now_ms
        )
        parcels: Sequence[Parcel] = ()
        if order is not None:
            parcels = adopt(context, connection, key=target.key, order=order, source="cancel").parcels
        row = intents.load(connection, attempt.key, lock=True)
        if row.state not in TERMINAL_STATES:  # another process may have finished it: what this answer told still counts
            reason = "canceled at the exchange"
            intents.move(connection, row, IntentState.DONE, now_ms=now_ms, reason=reason, booked_at_ms=now_ms)
    context.hand_over(parcels)
    if order is None:
        _is_over(context, target)
    return IntentState.DONE.value


def _new_attempt(context: ExecutionContext, stamp: Meta, row: IntentRow, request: PinnedCancel) -> AttemptRow:
    return AttemptRow(
        key=row.key,
        attempt=row.attempt + 1,
        owner=context.owner,
        fence=next_fence(row.fence, stamp.epoch),
        client_order_id=request.client_order_id or "",
        timestamp_ms=request.timestamp_ms,
        recv_window_ms=request.recv_window_ms,
        payload_hash=payload_hash(request),
        config_hash=context.config_hash,
        dispatched_at_ms=context.clock.now_ms(),
    )


def _finish(context: ExecutionContext, row: IntentRow, after: IntentState, reason: str) -> str:
    now_ms = context.clock.now_ms()
    with context.journal.write() as connection:
        fresh = intents.load(connection, row.key, lock=True)
        if fresh.state not in TERMINAL_STATES:
            intents.move(connection, fresh, after, now_ms=now_ms, reason=reason, booked_at_ms=now_ms)
    return f"{after.value}: {reason}"


def _later(context: ExecutionContext, row: IntentRow, why: str) -> str:
    now_ms = context.clock.now_ms()
    at_ms = now_ms + min(LOOK_AGAIN_MS << min(row.snoozes // 10, 8), LOOK_AGAIN_MAX_MS)
    with context.journal.write() as connection:
        fresh = intents.load(connection, row.key, lock=True)
        if fresh.state not in TERMINAL_STATES:
            intents.touch(
                connection, fresh, now_ms=now_ms, run_at_ms=at_ms, not_before_ms=at_ms, snoozes=fresh.snoozes + 1,
                reason=f"waits: {why}"[:500],
            )  # fmt: skip
    context.record.event("cancel_waits", key=row.key, why=why, job_type=row.job_type)
    return f"waits: {why}"
