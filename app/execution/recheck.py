"""After the journal was lost or rolled back, an intent is looked up at the exchange before its next order goes out."""

from typing import Final

from app.exchange.models import OrderAbsent
from app.execution.adopt import adopt
from app.execution.context import ExecutionContext
from app.intents import OrderIntent
from app.job_safety.errors import LeaseLostError, RetryableError
from app.job_safety.outcome import ExchangeOrder, Venue
from app.journal import intents, meta
from app.journal.fence import is_before
from app.journal.meta import Meta
from app.journal.rows import IntentRow

LOOKBACK_MS: Final = 24 * 3600 * 1000


class RestoredLatelyError(RetryableError):
    """The journal was restored so lately that "not found" would prove nothing yet; nothing was sent."""


def look_up_first(context: ExecutionContext, row: IntentRow, intent: OrderIntent, stamp: Meta) -> IntentRow | None:
    """Return the row as it may be dispatched, or None if the exchange has, or had, this order; it is adopted then.

    A journal that was never rolled back remembers every attempt itself. After a restore any row that could be sent may
    have forgotten one, whatever the number of the last that it knows. The time of the restore is the fence: what was
    forgotten was pinned earlier, so "not found" counts once the exchange refuses such requests and its read side has
    caught up. That a row was looked up is kept as its fence, which then is of the present epoch; the transaction that
    writes DISPATCHED insists on it (`conditions.looked_up`), and on a restore that has come after `stamp` was read.

    Raises:
        ExchangeQueryError: the exchange could not be asked; nothing may be sent.
        RestoredLatelyError: it is too early to tell.
        LeaseLostError: somebody moved the row, or restored the journal, meanwhile.
    """
    if stamp.restored_at_ms is None or not is_before(row.fence, stamp.epoch):
        return row
    early_ms = stamp.restored_at_ms + _provable_after_ms(context, row) - context.clock.now_ms()
    found = _ask(context, row, intent, stamp.restored_at_ms)
    if isinstance(found, ExchangeOrder):
        with context.journal.write() as connection:
            adopted = adopt(context, connection, key=row.key, order=found, source="recheck")
        context.hand_over(adopted.parcels)
        return None
    if not isinstance(found, OrderAbsent):
        return None  # archived: it was there; a person must look, and nothing is sent
    if early_ms > 0:
        raise RestoredLatelyError(f"the journal was restored lately; absence can be told in {early_ms} ms")
    with context.journal.write() as connection:
        if meta.load(connection).epoch != stamp.epoch or not intents.touch(
            connection, row, now_ms=context.clock.now_ms(), fence=meta.raise_fence(connection, row.fence)
        ):
            raise LeaseLostError(f"{row.key}: moved by somebody else while it was looked up")
        return intents.load(connection, row.key)


def _ask(context: ExecutionContext, row: IntentRow, intent: OrderIntent, restored_at_ms: int) -> object:
    venue = Venue(intent.venue)
    answer = context.gateway.get_order(venue, intent.symbol, client_order_id=row.client_order_id, is_algo=row.is_algo)
    if isinstance(answer, OrderAbsent) and venue is Venue.SPOT:
        # The list is another read side, and on Spot the slower one to forget.
        since_ms = restored_at_ms - LOOKBACK_MS
        listed = context.gateway.all_orders(venue, intent.symbol, since_ms, is_algo=row.is_algo)
        return next((order for order in listed if order.client_order_id == row.client_order_id), answer)
    return answer


def _provable_after_ms(context: ExecutionContext, row: IntentRow) -> int:
    """Return how long after the restore "not found" begins to count."""
    horizons = context.horizons
    margin_ms = horizons.absent_spread_algo_ms if row.is_algo else horizons.fence_margin_ms
    return horizons.recv_window_ms + margin_ms + horizons.max_read_lag_ms
