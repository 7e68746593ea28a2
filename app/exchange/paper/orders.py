"""All orders and trades of one symbol on one venue, with the look-ups the engine and the queries need."""

from __future__ import annotations

from decimal import Decimal
from heapq import heappop, heappush

from app.exchange.paper.model import Order, Status, Trade
from app.exchange.paper.series import TimeSeries

# Ids of every symbol start at the same number: on Binance they are unique per symbol only, and code that
# forgets the symbol should fail here first.
FIRST_ORDER_ID = 100_000_001
FIRST_TRADE_ID = 500_000_001


class OrderStore:
    """Orders of one symbol; client order ids are unique among the open ones only, as at Binance."""

    def __init__(self) -> None:
        self.orders: TimeSeries[Order] = TimeSeries()
        self.trades: TimeSeries[Trade] = TimeSeries()
        self.by_id: dict[int, Order] = {}
        self.open: dict[int, Order] = {}
        self.open_by_client_id: dict[str, Order] = {}
        self.open_reduce_only: dict[int, Order] = {}
        self.accepted_count: dict[str, int] = {}
        self._by_client_id: dict[str, list[Order]] = {}
        self._buys: list[tuple[Decimal, int]] = []
        self._sells: list[tuple[Decimal, int]] = []

    @property
    def next_order_id(self) -> int:
        """The id the next accepted order gets."""
        return FIRST_ORDER_ID + len(self.orders.items)

    @property
    def next_trade_id(self) -> int:
        """The id the next trade gets."""
        return FIRST_TRADE_ID + len(self.trades.items)

    def orders_from(self, order_id: int) -> list[Order]:
        """Orders with this id and above; ids have no gaps."""
        return self.orders.items[max(order_id - FIRST_ORDER_ID, 0) :]

    def trades_from(self, trade_id: int) -> list[Trade]:
        """Trades with this id and above; ids have no gaps."""
        return self.trades.items[max(trade_id - FIRST_TRADE_ID, 0) :]

    def add(self, order: Order) -> None:
        """Take in an accepted order as open."""
        self.orders.append(order)
        self.by_id[order.order_id] = order
        self.open[order.order_id] = order
        self.open_by_client_id[order.client_order_id] = order
        if order.reduce_only:
            self.open_reduce_only[order.order_id] = order
        self._by_client_id.setdefault(order.client_order_id, []).append(order)
        self.accepted_count[order.client_order_id] = self.accepted_count.get(order.client_order_id, 0) + 1

    def rest(self, order: Order) -> None:
        """Put the open order's remainder into the book."""
        if order.side == "BUY":
            heappush(self._buys, (-order.price, order.order_id))
        else:
            heappush(self._sells, (order.price, order.order_id))

    def close(self, order: Order, status: Status, at_ms: int) -> None:
        """End an open order; its client order id is free again from here on."""
        order.status = status
        order.update_ms = at_ms
        del self.open[order.order_id]
        del self.open_by_client_id[order.client_order_id]
        self.open_reduce_only.pop(order.order_id, None)

    def rename(self, order: Order, client_order_id: str) -> None:
        """Spot only: a cancel replaces the client order id, so that the old one finds nothing any more."""
        named = self._by_client_id[order.client_order_id]
        named.remove(order)
        if not named:
            del self._by_client_id[order.client_order_id]
        order.client_order_id = client_order_id
        self._by_client_id.setdefault(client_order_id, []).append(order)

    def with_client_id(self, client_order_id: str) -> Order | None:
        """The newest order with this id; Binance documents no order, and the newest is the open one if any is."""
        named = self._by_client_id.get(client_order_id)
        return named[-1] if named else None

    def crossed(self, price: Decimal) -> list[Order]:
        """Resting orders that a trade at ``price`` reaches, best price and oldest first.

        Each is taken out of the book; who does not fill it whole puts the remainder back with `rest`.
        """
        reached: list[Order] = []
        while self._buys and -self._buys[0][0] >= price:
            order = self.open.get(heappop(self._buys)[1])
            if order is not None:
                reached.append(order)
        while self._sells and self._sells[0][0] <= price:
            order = self.open.get(heappop(self._sells)[1])
            if order is not None:
                reached.append(order)
        return reached
