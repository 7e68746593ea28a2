"""Run one order intent: settle what is settled, reconcile what is in doubt, dispatch what may be sent."""

import contextlib
from typing import Final

from app.exchange.errors import ExchangeClockUnknownError, ExchangeQueryError
from app.execution import kill, opening, reconcile
from app.execution.alone import be_alone_with
from app.execution.conditions import Denied
from app.execution.context import REDELIVER_AFTER_MS, ExecutionContext
from app.execution.dispatch import dispatch
from app.execution.heard import Heard
from app.execution.limits import ensure_known
from app.execution.open_alone import OpeningElsewhereError, open_alone
from app.execution.parcels import kind_of
from app.execution.recheck import RestoredLatelyError, look_up_first
from app.execution.settle import Settled
from app.intents import OrderIntent, from_canonical
from app.job_safety.admission import AdmissionAnswer, Admitted, Ahead, Blocked, Done, EffectKind, Held
from app.job_safety.circuit_breaker import job_type_of
from app.job_safety.errors import InvariantViolatedError, LeaseLostError, StoreUnavailableError
from app.job_safety.faults import FaultPoint
from app.job_safety.outcome import Venue
from app.job_safety.retry_policy import Expire, snooze_until
from app.job_safety.side_effect_guard import Token, Told
from app.job_safety.state import DOUBTFUL, SENDABLE, TERMINAL_STATES, IntentState
from app.journal import intents, snoozed, standing
from app.journal.meta import Meta
from app.journal.rows import IntentRow

MAX_ROUNDS: Final = 3
"""Attempts that we did not send (a slow disk, a pause) are repeated at once this often before the sweeper does."""


def run_order(context: ExecutionContext, key: str) -> str:
    """Move the order intent `key` as far as it can go now; return where it stands, for people.

    Raises:
        IntentNotFoundError: the journal does not know the key: the queue is never trusted to say what to do.
        StoreUnavailableError: a store does not answer; what opens risk was not sent.
        NotAloneError: a worker has died of it, and this process is at other work too.
    """
    text = ""
    for _ in range(MAX_ROUNDS):
        with context.journal.look() as connection:
            row, stamp = standing.look(connection, key)
        context.early.known_epoch = stamp.kill_epoch
        if row.type != "order":
            raise InvariantViolatedError(f"{key} is a {row.type}, not an order")
        be_alone_with(context, row)
        if row.state in DOUBTFUL:
            _give_back_early(context)  # or reconcile would find its lease held: by ourselves
            return reconcile_row(context, row)
        if row.state not in SENDABLE:
            context.record.event(
                "duplicate_blocked", level="debug", key=row.key, job_type=row.job_type, stopped_by="journal"
            )
            return row.state.value
        if context.clock.now_ms() < row.not_before_ms:
            return f"{row.state.value}: not yet"
        context.faults.hit(FaultPoint.BEFORE_ADMISSION)
        text, again = _attempt(context, row, stamp)
        if not again:
            break
    return text


def reconcile_row(context: ExecutionContext, row: IntentRow) -> str:
    """Take one step to settle `row`, unless the owner of its attempt is alive."""
    if row.attempt == 0:
        return f"{row.state.value}: it was never dispatched"  # poison, waiting for a person
    token: Token | None = None
    try:
        answer = context.admission.ask("order", row.key, kind=EffectKind.BOOK, distrust_done=True)
    except StoreUnavailableError:
        # No lease can be read. An attempt that may still have an owner is left alone until it cannot have one.
        age_ms = context.clock.now_ms() - row.updated_at_ms
        if row.state is IntentState.DISPATCHED and age_ms < context.horizons.orphan_after_ms:
            return "DISPATCHED: its owner may be alive"
    else:
        match answer:
            case Admitted(token=token):
                pass
            case Held(by=by):
                return f"{row.state.value}: {by} works on it"
            case _:
                raise InvariantViolatedError(f"{row.key}: reconcile was answered {answer}")
    try:
        result = reconcile.step(context, row.key)
    finally:
        if token is not None:
            context.end_lease("order", row.key, token)
    return f"reconcile: {result.value}"


def _attempt(context: ExecutionContext, row: IntentRow, stamp: Meta) -> tuple[str, bool]:
    intent = from_canonical(row.content)
    if not isinstance(intent, OrderIntent):
        raise InvariantViolatedError(f"{row.key}: the row is an order, its content is not")
    if row.cancel_requested:
        return _close(context, row, "canceled before it was sent"), False
    if _validity_is_over(context, row):
        return _close(context, row, "validity ran out before it was sent"), False
    if context.is_dry_run:
        return _simulate(context, row), False
    kind = kind_of(row)
    closed = kill.denied_before_admission(stamp, context.read_kill_here(), kind)
    if closed is not None:
        return _blocked(context, row, closed, None), False
    return _admit(context, row, intent, kind, stamp)


def _admit(
    context: ExecutionContext, row: IntentRow, intent: OrderIntent, kind: EffectKind, stamp: Meta
) -> tuple[str, bool]:
    venue = Venue(intent.venue)
    ensure_known(context, venue)
    try:
        answer = _ahead(context, row, kind, intent.venue, stamp) or context.admission.ask(
            "order", row.key, kind=kind, venue=intent.venue
        )
        if isinstance(answer, Done):
            # The journal says that it is not finished, and the journal is right.
            context.record.event("guard_distrusted", key=row.key, hint=answer.hint)
            answer = context.admission.ask("order", row.key, kind=kind, venue=intent.venue, distrust_done=True)
    except StoreUnavailableError:
        if kind is EffectKind.OPEN:
            raise  # what opens risk stops when Redis cannot be read
        return _with_lease(context, row, intent, kind, venue=venue, admitted=None, stamp=stamp)
    job_type = job_type_of(kind, intent.venue)
    match answer:
        case Held(by=by):
            context.record.event("duplicate_blocked", key=row.key, by=by, job_type=row.job_type, stopped_by="guard")
            return f"held by {by}", False
        case Blocked(why=why, gate=gate, for_ms=for_ms):
            context.record.event(
                "blocked", key=row.key, gate=gate, reason=why, job_type=job_type, venue=intent.venue, for_ms=for_ms
            )
            return _blocked(context, row, why, for_ms), False
        case Admitted(would_block=would_block):
            if would_block:
                context.record.event(
                    "would_block",
                    key=row.key,
                    gate=would_block.partition(":")[0],
                    reason=would_block,
                    job_type=job_type,
                    venue=intent.venue,
                )
            context.faults.hit(FaultPoint.AFTER_ADMISSION)
            return _with_lease(context, row, intent, kind, venue=venue, admitted=answer, stamp=stamp)
        case Done():
            raise InvariantViolatedError(f"{row.key}: the guard could not be taken over")


def _ahead(
    context: ExecutionContext, row: IntentRow, kind: EffectKind, venue: str, stamp: Meta
) -> AdmissionAnswer | None:
    """Return the answer that came with the beginning of this job, if it is one to what is asked now.

    What the queue said of the job is compared with the journal, and the kill epoch with the one that was known before
    it was asked: what was under way while the switch went on and off again is asked anew.
    """
    ahead, context.early.ahead = context.early.ahead, None
    if ahead is None:
        return None
    is_fresh = ahead.kill_epoch == stamp.kill_epoch and _is_fresh(context, ahead) and not _is_probe(ahead.answer)
    if is_fresh and (ahead.key, ahead.kind, ahead.venue) == (row.key, kind, venue):
        return ahead.answer
    context.end_early(ahead, now=True)
    return None


def _is_fresh(context: ExecutionContext, ahead: Ahead) -> bool:
    return context.clock.monotonic() - ahead.at_s <= context.admission.fresh_s


def _is_probe(answer: AdmissionAnswer) -> bool:
    """Return whether it holds a probe's permit, which may have run out by now: a permit lives for less long."""
    return isinstance(answer, Admitted) and answer.ticket is not None and answer.ticket.is_probe


def _give_back_early(context: ExecutionContext) -> None:
    ahead, context.early.ahead = context.early.ahead, None
    if ahead is not None:
        context.end_early(ahead, now=True)


def _with_lease(
    context: ExecutionContext,
    row: IntentRow,
    intent: OrderIntent,
    kind: EffectKind,
    *,
    venue: Venue,
    admitted: Admitted | None,
    stamp: Meta,
) -> tuple[str, bool]:
    """Dispatch under the lease; without one (Redis is down) the journal's compare-and-set alone keeps others off."""
    result: Settled | Denied | None = None
    token = admitted.token if admitted else None
    heard = Heard(venue=venue, ticket=admitted.ticket if admitted else None)
    try:
        with context.leases.keep("order", row.key, token, heard.permit) if token else contextlib.nullcontext():
            if intent.venue not in context.opened:
                open_alone(context, venue)
                context.opened.add(intent.venue)
            cleared = look_up_first(context, row, intent, stamp)
            if cleared is None:
                return "found at the exchange", False
            result = dispatch(context, cleared, intent, kind, heard, stamp=stamp)
        if isinstance(result, Denied):
            return _denied(context, row, result), False
    except LeaseLostError as error:
        return str(error), False
    except (ExchangeClockUnknownError, ExchangeQueryError) as error:
        return _snooze(context, row, f"exchange not readable: {error}", _may_be_asked_in_ms(error)), False
    except opening.AccountMovesError as error:
        return _snooze(context, row, str(error), error.for_ms), False
    except (OpeningElsewhereError, RestoredLatelyError) as error:
        return _snooze(context, row, str(error), None), False
    finally:
        if token is not None:
            _end_lease(context, row.key, token, result, heard.told(context))
    context.hand_over(result.parcels)
    return result.row.state.value, _may_go_on(context, result)


def _may_be_asked_in_ms(error: BaseException | None) -> int | None:
    """Return when the question that failed may be asked again, if it was held back or the exchange said so."""
    if isinstance(error, ExchangeClockUnknownError):
        error = error.__cause__
    if not isinstance(error, ExchangeQueryError) or error.failure.retry_after_s is None:
        return None
    return error.failure.retry_after_s * 1000


def _blocked(context: ExecutionContext, row: IntentRow, why: str, for_ms: int | None) -> str:
    """Snooze; and have the journal know what stopped this: the key may be flushed before anybody else has seen it."""
    is_news = why.startswith(kill.GATE) and not why.endswith(kill.JOURNAL)
    if is_news and context.kill is not None:
        context.kill.mirror()
    return _snooze(context, row, why, for_ms)


def _end_lease(context: ExecutionContext, key: str, token: Token, result: Settled | Denied | None, told: Told) -> None:
    """Keep the result of an order that is finished; else give the lease back, at once if this job goes on with it."""
    if not isinstance(result, Settled):
        context.end_lease("order", key, token, told=told)
    elif result.row.state in TERMINAL_STATES:
        context.end_lease("order", key, token, result.row.state.value, told=told)
    else:
        context.end_lease("order", key, token, told=told, now=_may_go_on(context, result))


def _may_go_on(context: ExecutionContext, result: Settled) -> bool:
    row = result.row
    return row.state is IntentState.RETRY_WAIT and row.not_before_ms <= context.clock.now_ms()


def _validity_is_over(context: ExecutionContext, row: IntentRow) -> bool:
    return (
        row.valid_until_ms is not None and context.clock.now_ms() + context.horizons.recv_window_ms > row.valid_until_ms
    )


def _denied(context: ExecutionContext, row: IntentRow, denied: Denied) -> str:
    return _close(context, row, denied.why) if denied.is_final else _blocked(context, row, denied.why, None)


def _close(context: ExecutionContext, row: IntentRow, why: str) -> str:
    """Close a row that was never executed: it is RECEIVED, or every attempt of it is proven not executed."""
    now_ms = context.clock.now_ms()
    with context.journal.write() as connection:
        fresh = intents.load(connection, row.key, lock=True)
        if fresh.state in SENDABLE and intents.move(
            connection, fresh, IntentState.EXPIRED, now_ms=now_ms, reason=why, booked_at_ms=now_ms
        ):
            context.record.event("expired", key=row.key, why=why, job_type=row.job_type)
            return f"EXPIRED: {why}"
    return "moved by somebody else"


def _simulate(context: ExecutionContext, row: IntentRow) -> str:
    now_ms = context.clock.now_ms()
    with context.journal.write() as connection:
        fresh = intents.load(connection, row.key, lock=True)
        if fresh.state is IntentState.RECEIVED:
            intents.move(
                connection, fresh, IntentState.SIMULATED, now_ms=now_ms, reason="mode dry_run", booked_at_ms=now_ms
            )
    return IntentState.SIMULATED.value


def _snooze(context: ExecutionContext, row: IntentRow, why: str, for_ms: int | None) -> str:
    now_ms = context.clock.now_ms()
    decision = snooze_until(
        opens_at_ms=None if for_ms is None else now_ms + for_ms,
        now_ms=now_ms,
        valid_until_ms=row.valid_until_ms,
        policy=context.retry,
        jitter=context.jitter,
        reason=why,
    )
    if isinstance(decision, Expire):
        return _close(context, row, decision.reason)
    with context.journal.write() as connection:
        fresh = intents.load(connection, row.key, lock=True)
        if fresh.state in SENDABLE:
            intents.touch(
                connection, fresh, now_ms=now_ms, run_at_ms=decision.at_ms, not_before_ms=decision.at_ms,
                snoozes=fresh.snoozes + 1, reason=snoozed.reason_of(why),
            )  # fmt: skip
    context.record.event("snoozed", key=row.key, why=why, until_ms=decision.at_ms, job_type=row.job_type)
    return f"snoozed: {why}"


__all__ = ["REDELIVER_AFTER_MS", "reconcile_row", "run_order"]
