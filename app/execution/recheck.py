"""After the journal was lost or rolled back, an intent is looked up at the exchange before its first order goes out."""

from typing import Final

from app.exchange.models import OrderAbsent
from app.execution.adopt import adopt
from app.execution.context import ExecutionContext
from app.intents import OrderIntent
from app.job_safety.outcome import ExchangeOrder, Venue
from app.journal import meta
from app.journal.rows import IntentRow

LOOKBACK_MS: Final = 24 * 3600 * 1000


def found_before_first_send(context: ExecutionContext, row: IntentRow, intent: OrderIntent) -> bool:
    """Return whether the exchange has this order although the journal knows of no attempt; it is adopted then.

    Only after a restore: a journal that was never rolled back remembers every attempt itself.

    Raises:
        ExchangeQueryError: the exchange could not be asked; nothing may be sent.
    """
    with context.journal.read() as connection:
        restored_at_ms = meta.load(connection).restored_at_ms
    if restored_at_ms is None or row.attempt > 0:
        return False
    venue = Venue(intent.venue)
    found: ExchangeOrder | None = None
    answer = context.gateway.get_order(venue, intent.symbol, client_order_id=row.client_order_id, is_algo=row.is_algo)
    if isinstance(answer, ExchangeOrder):
        found = answer
    elif not isinstance(answer, OrderAbsent):
        return True  # archived: it was there; a person must look, and nothing is sent
    elif venue is Venue.SPOT or context.clock.now_ms() < restored_at_ms + context.horizons.max_read_lag_ms:
        # The read side may still lag behind the moment of the restore, and a canceled Spot order has lost its id.
        since_ms = restored_at_ms - LOOKBACK_MS
        listed = context.gateway.all_orders(venue, intent.symbol, since_ms, is_algo=row.is_algo)
        found = next((order for order in listed if order.client_order_id == row.client_order_id), None)
    if found is None:
        return False
    with context.journal.write() as connection:
        adopted = adopt(context, connection, key=row.key, order=found, source="recheck")
    context.hand_over(adopted.parcels)
    return True
