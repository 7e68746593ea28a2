"""Open orders of ours at the exchange that no intent explains: work that somebody may still expect to happen."""

from app.execution.context import ExecutionContext
from app.execution.follow import Spent, sweep_trades
from app.job_safety.keys import CLIENT_ORDER_ID_PREFIX
from app.job_safety.outcome import Venue
from app.journal import intents


def stray_orders(context: ExecutionContext) -> list[int]:
    """Book what was traded, and return the ids of open orders with our prefix that the journal does not know.

    Raises:
        ExchangeQueryError: a question was not answered; nothing is concluded from that.
    """
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
