"""End the HALT of a journal that was lost, once everything at the exchange is accounted for."""

from app.exchange.errors import ExchangeQueryError
from app.execution.context import ExecutionContext
from app.execution.follow import Spent, sweep_trades
from app.job_safety.keys import CLIENT_ORDER_ID_PREFIX
from app.job_safety.kill_switch import KillState
from app.job_safety.outcome import Venue
from app.journal import audit, intents, meta

LOST_JOURNAL = "this journal is new"
"""How the reason of such a HALT begins; any other HALT is a person's to end."""


def release_halt_when_reconciled(context: ExecutionContext) -> bool:
    """Resume after a lost journal once no unknown order of ours is open; return whether it did.

    Every intent is still looked up before its first order (`recheck`), for as long as this journal lives.

    Raises:
        StoreUnavailableError: the journal does not answer.
    """
    with context.journal.read() as connection:
        stamp = meta.load(connection)
    if stamp.kill_state != KillState.HALT.value or not stamp.kill_reason.startswith(LOST_JOURNAL):
        return False
    try:
        strays = _stray_orders(context)
    except ExchangeQueryError as error:
        context.record.event("not_answered", level="warning", what="resume", error=str(error))
        return False
    if strays:
        context.record.event("halt_stays", level="error", why="orders of ours are open and unknown", orders=strays)
        return False
    now_ms = context.clock.now_ms()
    with context.journal.write() as connection:
        meta.set_kill_state(connection, state=KillState.RUN.value, reason="")
        detail = {"why": "no unknown order of ours is open; every intent is looked up before its first order"}
        audit.append(
            connection, now_ms=now_ms, actor=context.owner, action="resume", subject="kill_switch", detail=detail
        )
    context.record.event("halt_released", level="warning")
    return True


def _stray_orders(context: ExecutionContext) -> list[int]:
    strays: list[int] = []
    for venue in Venue:
        for symbol in context.symbols.get(venue, ()):
            sweep_trades(context, venue, symbol, Spent(weight={}))
            shown = [
                order
                for order in context.gateway.open_orders(venue, symbol)
                if order.client_order_id.startswith(CLIENT_ORDER_ID_PREFIX)
            ]
            with context.journal.read() as connection:
                known = intents.by_client_order_ids(connection, [order.client_order_id for order in shown])
            strays += [order.order_id for order in shown if order.client_order_id not in known]
    return strays
