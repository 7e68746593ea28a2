"""Fetch the fills of one order from the exchange, by its order id, and hand them to the books."""

from collections.abc import Sequence
from typing import Final

from app.delivery import FOLLOWUP, Parcel
from app.exchange.errors import ExchangeQueryError
from app.exchange.weights import weight_of
from app.execution.context import ExecutionContext
from app.job_safety.errors import InvariantViolatedError
from app.job_safety.faults import FaultPoint
from app.job_safety.outcome import Venue
from app.journal import followups, intents
from app.journal.followups import Followup
from app.money import parse, total

BOOK_KINDS: Final = ("post_ledger", "post_pnl")
RETRY_MS: Final = 1_000
"""The trades of an order may become visible later than the order (BINANCE.md section 5)."""


def fetch_fills(context: ExecutionContext, followup: Followup) -> str:
    """Book the trades of the order that `followup` names; done when they add up to what was executed.

    Raises:
        StoreUnavailableError: the journal could not be written; the follow-up stays open.
    """
    if followup.intent_key is None:
        raise InvariantViolatedError(f"{followup.key}: fills of no intent")
    key = followup.intent_key
    order_id = int(followup.payload["order_id"])
    executed = parse(followup.payload["executed_quantity"])
    with context.journal.read() as connection:
        row = intents.load(connection, key)
    if row.venue is None or row.symbol is None:
        raise InvariantViolatedError(f"{key}: an order without venue or symbol")
    try:
        trades = context.gateway.trades_of_order(row.venue, row.symbol, order_id)
    except ExchangeQueryError as error:
        _later(context, followup, str(error))
        return f"not answered: {error.failure.rule}"
    context.faults.hit(FaultPoint.BEFORE_FILLS_TRANSACTION)
    is_complete = total(trade.quantity for trade in trades) >= executed
    now_ms = context.clock.now_ms()
    with context.journal.write() as connection:
        new = context.books.record_fills(connection, trades=trades, key=key, now_ms=now_ms)
        context.books.mark_booked(connection, key=key, now_ms=now_ms)
        context.faults.hit(FaultPoint.IN_FILLS_TRANSACTION)
        if is_complete:
            followups.finish(connection, followup.key, now_ms=now_ms)
        else:
            followups.postpone(
                connection, followup.key, run_at_ms=now_ms + RETRY_MS, error="trades are not visible yet"
            )
    context.faults.hit(FaultPoint.AFTER_FILLS_COMMIT)
    deliver_book_work(context, key)
    return f"done: {len(new)} new of {len(trades)} trades" if is_complete else "trades are not visible yet"


def cost_of(followup: Followup) -> tuple[Venue, int] | None:
    """Return whose request weight `fetch_fills` is about to use, and how much, so that its admission can count it."""
    if followup.kind != "fetch_fills" or "venue" not in followup.payload:
        return None
    venue = Venue(followup.payload["venue"])
    endpoint, asked = ("futures_account_trades", "symbol") if venue is Venue.USDM else ("get_my_trades", "orderId")
    return venue, weight_of(venue, endpoint, {asked: ""})


def deliver_book_work(context: ExecutionContext, intent_key: str) -> None:
    """Hand the open ledger and PnL follow-ups of an intent to their queues."""
    with context.journal.read() as connection:
        work = followups.open_of_intent(connection, intent_key, BOOK_KINDS)
    context.hand_over(parcels_of(work))


def parcels_of(work: Sequence[Followup]) -> list[Parcel]:
    """Return what delivers `work` to its queues."""
    return [
        Parcel(key=one.key, type=FOLLOWUP, queue=one.queue, description=f"{one.kind} {one.intent_key or one.key}")
        for one in work
    ]


def _later(context: ExecutionContext, followup: Followup, error: str) -> None:
    now_ms = context.clock.now_ms()
    with context.journal.write() as connection:
        followups.postpone(connection, followup.key, run_at_ms=now_ms + RETRY_MS, error=error[:500])
    context.record.event("fills_not_fetched", level="warning", key=followup.intent_key, error=error)


__all__ = ["BOOK_KINDS", "cost_of", "deliver_book_work", "fetch_fills", "parcels_of"]
