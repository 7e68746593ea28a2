"""End the HALT of a journal that was lost, once everything at the exchange is accounted for."""

from app.exchange.errors import ExchangeQueryError
from app.execution.context import ExecutionContext
from app.execution.strays import stray_orders
from app.job_safety.kill_switch import KillSource, KillState
from app.journal import kill_latches
from app.journal.kill_latches import Change


def release_halt_when_reconciled(context: ExecutionContext) -> bool:
    """Resume after a lost journal once no unknown order of ours is open; return whether it did.

    Only the latch that the software set itself is released. Every intent is still looked up before its first order
    (`recheck`), for as long as this journal lives.

    Raises:
        StoreUnavailableError: the journal does not answer.
    """
    with context.journal.read() as connection:
        if kill_latches.of(connection, KillSource.SYSTEM) is None:
            return False
    try:
        strays = stray_orders(context)
    except ExchangeQueryError as error:
        context.record.event("not_answered", level="warning", what="resume", error=str(error))
        return False
    if strays:
        context.record.event("halt_stays", level="error", why="orders of ours are open and unknown", orders=strays)
        return False
    release = Change(
        source=KillSource.SYSTEM,
        state=KillState.RUN,
        actor=context.owner,
        reason="no unknown order of ours is open; every intent is looked up before its first order",
        config_hash=context.config_hash,
    )
    with context.journal.write() as connection:
        kill_latches.change(connection, release, now_ms=context.clock.now_ms())
    context.record.event("halt_released", level="warning")
    return True
