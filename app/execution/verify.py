"""After a resend: the exchange must show one order with the client order id, not two."""

from typing import Final

from sqlalchemy import Connection

from app.exchange.errors import ExchangeQueryError
from app.execution.adopt import adopt
from app.execution.context import ExecutionContext
from app.job_safety.errors import InvariantViolatedError
from app.journal import attempts, followups, intents
from app.journal.followups import Followup
from app.journal.rows import IntentRow

VERIFY_SINGLE: Final = "verify_single"
AGAIN_MS: Final = 5_000
LAST_LOOK_MS: Final = 60_000
"""For how long a second order could still become visible (BINANCE.md section 8, step 5)."""


def ask_whether_single(connection: Connection, row: IntentRow, attempt: int, *, now_ms: int) -> None:
    """Have the orders of `row` counted after this attempt, if an earlier one was only declared absent."""
    if all(earlier.ended_by_own_answer for earlier in attempts.of_intent(connection, row.key)[: attempt - 1]):
        return
    followup = Followup(
        key=f"{VERIFY_SINGLE}:{row.key}:{attempt}",
        kind=VERIFY_SINGLE,
        queue="positions",
        intent_key=row.key,
        payload={},
        run_at_ms=now_ms + AGAIN_MS,
    )
    followups.add(connection, followup, now_ms=now_ms)


def verify_single(context: ExecutionContext, followup: Followup) -> str:
    """Count the orders with the intent's client order id; a second one is an alarm, and its fills are swept and booked.

    Raises:
        StoreUnavailableError: the journal could not be read or written.
    """
    with context.journal.read() as connection:
        row = intents.load(connection, followup.intent_key or "")
        tries = attempts.of_intent(connection, row.key)
    if row.venue is None or row.symbol is None or not tries:
        raise InvariantViolatedError(f"{row.key}: resent without venue, symbol or attempt")
    now_ms = context.clock.now_ms()
    since_ms = tries[0].timestamp_ms - context.horizons.all_orders_lookback_ms
    try:
        listed = context.gateway.all_orders(row.venue, row.symbol, since_ms, is_algo=row.is_algo)
    except ExchangeQueryError as error:
        with context.journal.write() as connection:
            followups.postpone(connection, followup.key, run_at_ms=now_ms + AGAIN_MS, error=str(error)[:500])
        return "not answered"
    ours = [order for order in listed if order.client_order_id == row.client_order_id]
    for order in ours:
        with context.journal.write() as connection:
            adopted = adopt(context, connection, key=row.key, order=order, source="verify")
        context.hand_over(adopted.parcels)
    is_over = now_ms - tries[-1].dispatched_at_ms >= LAST_LOOK_MS
    with context.journal.write() as connection:
        if is_over or len(ours) > 1:
            followups.finish(connection, followup.key, now_ms=now_ms)
        else:
            followups.postpone(connection, followup.key, run_at_ms=now_ms + LAST_LOOK_MS // 2)
    return f"done: {len(ours)} orders with this id" if is_over or len(ours) > 1 else "looked; again later"
