"""Follow orders that rest at the exchange until they are finished, and sweep trades that nobody has claimed yet.

Polled per symbol. A sweep maps every trade to its intent: a late fill of an order that was declared absent is booked
and is an alarm; a trade that is not ours goes to the account `external`, visibly.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from app.delivery import Parcel
from app.exchange.models import ExchangeTrade, OrderAbsent
from app.execution.adopt import adopt
from app.execution.context import ExecutionContext
from app.execution.swept import Ours, book_external, book_ours, take_in
from app.job_safety.keys import CLIENT_ORDER_ID_PREFIX
from app.job_safety.outcome import ExchangeOrder, Venue
from app.job_safety.state import LIVE, ON_EXCHANGE, IntentState
from app.journal import alerts, intents, watermarks
from app.journal.alerts import Alert, Severity
from app.journal.rows import IntentRow

OPEN_ORDERS_WEIGHT = {Venue.USDM: 1, Venue.SPOT: 6}
GET_ORDER_WEIGHT = {Venue.USDM: 1, Venue.SPOT: 4}
TRADES_WEIGHT = {Venue.USDM: 5, Venue.SPOT: 20}
"""Request weights (BINANCE.md section 5)."""

ORDER_IS_SHOWN_AFTER_MS = 600_000
"""How long the order query may lag behind the trade list before a trade without an order counts as not ours."""


@dataclass(slots=True)
class Spent:
    """Request weight used so far, per venue."""

    weight: dict[Venue, int]

    def add(self, venue: Venue, weight: int) -> None:
        """Count `weight`."""
        self.weight[venue] = self.weight.get(venue, 0) + weight


def live_symbols(context: ExecutionContext) -> dict[tuple[Venue, str], list[IntentRow]]:
    """Return the orders that rest at the exchange, by venue and symbol."""
    with context.journal.look() as connection:
        rows = intents.in_states(connection, sorted(LIVE), limit=10_000, intent_type="order")
    found: dict[tuple[Venue, str], list[IntentRow]] = defaultdict(list)
    for row in rows:
        if row.venue is not None and row.symbol is not None:
            found[row.venue, row.symbol].append(row)
    return dict(found)


def follow_symbol(
    context: ExecutionContext, venue: Venue, symbol: str, rows: Sequence[IntentRow], spent: Spent
) -> list[Parcel]:
    """Ask for the resting orders of one symbol and take in what has changed; return what is now to be delivered.

    Raises:
        ExchangeQueryError: a question was not answered; nothing is concluded from that.
    """
    orders = {order.order_id: order for order in context.gateway.open_orders(venue, symbol)}
    spent.add(venue, OPEN_ORDERS_WEIGHT[venue])
    waiting = [row for row in rows if row.is_algo and row.actual_order_id is None]
    algo_orders: dict[int, ExchangeOrder] = {}
    if waiting:
        algo_orders = {order.order_id: order for order in context.gateway.open_orders(venue, symbol, is_algo=True)}
        spent.add(venue, OPEN_ORDERS_WEIGHT[venue])
    parcels: list[Parcel] = []
    for row in rows:
        is_waiting = row.is_algo and row.actual_order_id is None
        shown = (algo_orders if is_waiting else orders).get(row.trading_id)
        if shown is not None and shown.executed_quantity == (row.executed_quantity or 0):
            continue
        parcels += _look_closer(context, row, is_waiting=is_waiting, spent=spent)
    return parcels


def sweep_trades(context: ExecutionContext, venue: Venue, symbol: str, spent: Spent) -> int:
    """Book every trade of `symbol` that is not booked yet, and return how many that were.

    Raises:
        ExchangeQueryError: a question was not answered.
    """
    with context.journal.read() as connection:
        if not context.books.is_open(connection, venue):
            return 0
        swept = watermarks.swept(connection, venue=venue.value, symbol=symbol)
    spent.add(venue, TRADES_WEIGHT[venue])
    if swept is None:
        newest = context.gateway.newest_trades(venue, symbol)
        trades = [trade for trade in newest if _is_after_opening(context, venue, trade)]
        first = min((trade.trade_id for trade in trades), default=max((t.trade_id for t in newest), default=-1) + 1)
        with context.journal.write() as connection:
            watermarks.begin(connection, venue=venue.value, symbol=symbol, trade_id=first - 1)
    else:
        trades = context.gateway.trades_since(venue, symbol, from_id=swept + 1)
    if not trades:
        return 0
    by_order: dict[int, list[ExchangeTrade]] = defaultdict(list)
    for trade in trades:
        by_order[trade.order_id].append(trade)
    with context.journal.read() as connection:
        owners = intents.by_order_ids(connection, venue=venue.value, symbol=symbol, order_ids=list(by_order))
    known: dict[str, Ours] = {}
    for order_id, owner in owners.items():
        known.setdefault(owner.key, Ours(owner=owner)).trades.extend(by_order.pop(order_id))
    # Before anybody is asked: a question that is not answered holds up nobody else's books.
    count = book_ours(context, list(known.values()))
    unshown: list[ExchangeTrade] = []
    for order_id, group in by_order.items():
        asked = _owner_by_asking(context, venue, symbol, order_id, spent)
        if isinstance(asked, OrderAbsent) and _is_young(context, group):
            # The trade proves that the order exists: whose it is must not be decided before that is shown.
            unshown += group
        elif isinstance(asked, IntentRow):
            count += book_ours(context, [Ours(owner=asked, trades=group)])
        else:
            count += book_external(context, group)
    swept_up_to = min((trade.trade_id for trade in unshown), default=max(t.trade_id for t in trades) + 1) - 1
    with context.journal.write() as connection:
        watermarks.advance(connection, venue=venue.value, symbol=symbol, trade_id=swept_up_to)
    return count


def sweep_orders(context: ExecutionContext, venue: Venue, symbol: str, spent: Spent) -> list[Parcel]:
    """Take in every open order of ours that the journal does not hold for open, such as one declared absent.

    Raises:
        ExchangeQueryError: a question was not answered.
    """
    shown = [*context.gateway.open_orders(venue, symbol)]
    spent.add(venue, OPEN_ORDERS_WEIGHT[venue])
    if venue is Venue.USDM:
        shown += context.gateway.open_orders(venue, symbol, is_algo=True)
        spent.add(venue, OPEN_ORDERS_WEIGHT[venue])
    ours = [order for order in shown if order.client_order_id.startswith(CLIENT_ORDER_ID_PREFIX)]
    if not ours:
        return []
    with context.journal.read() as connection:
        owners = intents.by_client_order_ids(connection, [order.client_order_id for order in ours])
    parcels: list[Parcel] = []
    for order in ours:
        owner = owners.get(order.client_order_id)
        if owner is None:
            context.record.alarm(
                "order_of_ours_unknown", order_id=order.order_id, client_order_id=order.client_order_id
            )
        elif owner.state not in ON_EXCHANGE and owner.state is not IntentState.DISPATCHED:
            parcels += take_in(context, owner, order).parcels
    return parcels


def sweep_income(context: ExecutionContext) -> int:
    """Book what moved the futures wallet without a trade: funding, transfers; return how many entries were new.

    Raises:
        ExchangeQueryError: the question was not answered.
    """
    venue = Venue.USDM
    with context.journal.read() as connection:
        if not context.books.is_open(connection, venue):
            return 0
        since_ms = watermarks.income_since_ms(connection, venue=venue.value)
    entries = context.gateway.income(since_ms)
    with context.journal.write() as connection:
        return context.books.book_income(connection, entries, now_ms=context.clock.now_ms())


def _look_closer(context: ExecutionContext, row: IntentRow, *, is_waiting: bool, spent: Spent) -> list[Parcel]:
    if row.venue is None or row.symbol is None:
        return []
    spent.add(row.venue, GET_ORDER_WEIGHT[row.venue])
    if is_waiting:
        answer = context.gateway.get_order(row.venue, row.symbol, client_order_id=row.client_order_id, is_algo=True)
    else:
        answer = context.gateway.get_order(row.venue, row.symbol, order_id=row.trading_id)
    parcels: list[Parcel] = []
    found = [answer] if isinstance(answer, ExchangeOrder) else []
    if found and found[0].is_algo and found[0].actual_order_id:
        spent.add(row.venue, GET_ORDER_WEIGHT[row.venue])
        actual = context.gateway.get_order(row.venue, row.symbol, order_id=found[0].actual_order_id)
        found += [actual] if isinstance(actual, ExchangeOrder) else []
    for order in found:
        with context.journal.write() as connection:
            parcels += adopt(context, connection, key=row.key, order=order, source="follow").parcels
    return parcels


def _owner_by_asking(
    context: ExecutionContext, venue: Venue, symbol: str, order_id: int, spent: Spent
) -> IntentRow | OrderAbsent | None:
    """Find the intent of an order that the journal does not know by its exchange id, and take the proof in."""
    spent.add(venue, GET_ORDER_WEIGHT[venue])
    answer = context.gateway.get_order(venue, symbol, order_id=order_id)
    if isinstance(answer, OrderAbsent):
        return answer
    if not isinstance(answer, ExchangeOrder):
        return None
    with context.journal.read() as connection:
        owner = intents.by_client_order_ids(connection, [answer.client_order_id]).get(answer.client_order_id)
    if owner is None:
        if answer.client_order_id.startswith(CLIENT_ORDER_ID_PREFIX):
            _alarm_unknown(context, venue, symbol, answer)
        return None
    adopted = take_in(context, owner, answer)
    context.hand_over(adopted.parcels)
    return adopted.row


def _alarm_unknown(context: ExecutionContext, venue: Venue, symbol: str, order: ExchangeOrder) -> None:
    context.record.alarm("order_of_ours_unknown", order_id=order.order_id, client_order_id=order.client_order_id)
    unknown = Alert(
        name="order_of_ours_unknown",
        severity=Severity.CRITICAL,
        summary=f"order {order.order_id} of {symbol} has an id of ours, and no intent explains it",
        labels={"venue": venue.value, "symbol": symbol},
        values={"order_id": order.order_id, "client_order_id": order.client_order_id},
    )
    with context.journal.write() as connection:
        alerts.raise_alert(connection, unknown, now_ms=context.clock.now_ms())


def _is_young(context: ExecutionContext, trades: Sequence[ExchangeTrade]) -> bool:
    now_ms = context.exchange_clock.estimate_ms(trades[0].venue) or context.clock.now_ms()
    return now_ms - max(trade.time_ms for trade in trades) < ORDER_IS_SHOWN_AFTER_MS


def _is_after_opening(context: ExecutionContext, venue: Venue, trade: ExchangeTrade) -> bool:
    with context.journal.read() as connection:
        opened_at_ms = watermarks.opened_at_ms(connection, venue=venue.value)
    return opened_at_ms is not None and trade.time_ms > opened_at_ms
