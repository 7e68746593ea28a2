"""What workers run: thin functions, one per type of work, each given a key and nothing else."""

import contextlib
from contextvars import ContextVar
from typing import Final

from app.books import handlers
from app.delivery import JOB_FUNCTIONS, Leavings
from app.execution.cancel import run_cancel as execute_cancel
from app.execution.context import ExecutionContext
from app.execution.fills import cost_of, fetch_fills
from app.execution.order import run_order as execute_order
from app.execution.signal import run_signal as execute_signal
from app.execution.verify import verify_single
from app.job_safety.admission import Admitted, Blocked, EffectKind, Held
from app.job_safety.errors import InvariantViolatedError, RetryableError, StoreUnavailableError
from app.job_safety.faults import FaultPoint
from app.job_safety.side_effect_guard import Told
from app.journal import followups
from app.journal.followups import Followup
from workers.bookjobs import run_book_job

CONTEXT: Final[ContextVar[ExecutionContext]] = ContextVar("execution_context")
"""Set by the worker of this process before its first job."""

ALLOWED: Final = frozenset(JOB_FUNCTIONS.values())
"""The only functions that a job may name."""

BROKEN_PAUSE_MS: Final = 5_000
BROKEN_PAUSE_MAX_MS: Final = 3_600_000

_FAULT_POINTS: Final = {
    "post_ledger": (FaultPoint.IN_LEDGER_TRANSACTION, FaultPoint.AFTER_LEDGER_COMMIT),
    "post_pnl": (FaultPoint.IN_PNL_TRANSACTION, FaultPoint.AFTER_PNL_COMMIT),
}


def run(function: str, key: str) -> str:
    """Run one of `ALLOWED` by the name that RQ knows it under."""
    return FUNCTIONS[function](key)


def after_the_end(context: ExecutionContext, leavings: Leavings) -> None:
    """Let a test strike right after Redis was told what a job has left."""
    if leavings.guards:
        context.faults.hit(FaultPoint.AFTER_GUARD_DONE)
    if leavings.parcels:
        context.faults.hit(FaultPoint.AFTER_FOLLOWUPS_DELIVERED)


def run_order(key: str) -> str:
    """Run an order intent."""
    return execute_order(CONTEXT.get(), key)


def run_cancel(key: str) -> str:
    """Run a cancel intent."""
    return execute_cancel(CONTEXT.get(), key)


def run_signal(key: str) -> str:
    """Run a signal."""
    return execute_signal(CONTEXT.get(), key)


def run_position(key: str) -> str:
    """Book a trade into its position."""
    return run_book_job(CONTEXT.get(), key)


def run_ledger(key: str) -> str:
    """Post a ledger transaction."""
    return run_book_job(CONTEXT.get(), key)


def run_pnl(key: str) -> str:
    """Book a trade into profit and loss."""
    return run_book_job(CONTEXT.get(), key)


def run_followup(key: str) -> str:
    """Do what must still be done because of something that is done."""
    context = CONTEXT.get()
    with context.journal.read() as connection:
        followup = followups.load_open(connection, key)
    if followup is None:
        return "done before"
    cost = cost_of(followup)
    venue, weight = cost or (None, 0)
    try:
        answer = context.admission.ask(
            "followup", key, kind=EffectKind.BOOK, venue=venue, distrust_done=True, weight=weight
        )
    except StoreUnavailableError:
        return _run_or_postpone(context, followup)  # the inbox is the guard that counts
    match answer:
        case Held(by=by):
            return f"held by {by}"
        case Blocked(why=why, for_ms=for_ms):
            return _hold_back(context, followup, why, for_ms)
        case Admitted(token=token):
            spent = context.rate.prepaid(venue, weight) if venue else contextlib.nullcontext()
            try:
                with context.leases.keep("followup", key, token), spent:
                    return _run_or_postpone(context, followup)
            finally:
                # No result is kept: the inbox in the journal is the one that counts.
                told = Told(venue=venue, seen=context.rate.take_seen(venue)) if venue else None
                context.end_lease("followup", key, token, told=told)
        case _:
            raise InvariantViolatedError(f"{key}: admission answered {answer}")


def _hold_back(context: ExecutionContext, followup: Followup, why: str, for_ms: int | None) -> str:
    """Ask later: the venue has told everybody to wait, or its limits are used up."""
    pause_ms = context.retry.snooze_ms if for_ms is None else for_ms + context.jitter(context.retry.spread_ms)
    with context.journal.write() as connection:
        followups.postpone(connection, followup.key, run_at_ms=context.clock.now_ms() + pause_ms, error=why)
    context.record.event("blocked", gate=why.partition(":")[0], reason=why, key=followup.key)
    return f"waits: {why}"


def _run_or_postpone(context: ExecutionContext, followup: Followup) -> str:
    try:
        return _run(context, followup)
    except RetryableError:
        raise
    except Exception as error:
        # It broke a promise: it is tried again ever later, so that it does not stand before all others.
        now_ms = context.clock.now_ms()
        words = f"{type(error).__name__}: {error}"[:500]
        pause_ms = min(BROKEN_PAUSE_MS << min(followup.tries, 10), BROKEN_PAUSE_MAX_MS)
        with context.journal.write() as connection:
            followups.postpone(connection, followup.key, run_at_ms=now_ms + pause_ms, error=words)
        context.record.alarm("followup_failed", key=followup.key, error=words)
        raise


def _run(context: ExecutionContext, followup: Followup) -> str:
    if followup.kind == "fetch_fills":
        return fetch_fills(context, followup)
    if followup.kind == "verify_single":
        return verify_single(context, followup)
    points = _FAULT_POINTS.get(followup.kind)
    if points is None:
        raise InvariantViolatedError(f"{followup.key}: nobody knows how to do {followup.kind!r}")
    inside, after = points
    now_ms = context.clock.now_ms()
    with context.journal.write() as connection:
        drained = handlers.drain(connection, followup.kind, now_ms=now_ms)
        context.faults.hit(inside)
    context.faults.hit(after)
    for failed in drained.failed:
        context.record.alarm("followup_failed", key=failed)
    return "done"


FUNCTIONS: Final = {f"{__name__}.{one.__name__}": one for one in (
    run_order, run_cancel, run_signal, run_position, run_ledger, run_pnl, run_followup
)}  # fmt: skip
