"""A model of the exchange: what it took, when, and what each kind of question shows of that. Its history is the truth.

As documented or observed (BINANCE.md): a client order id is unique among open orders only; `recvWindow` is checked when
the order is executed, by the engine's own clock; a request may arrive late, never, or with its answer lost; each kind
of query reads from a side that lags behind by a time of its own.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal

from app.clock import Clock
from app.exchange.models import ExchangeTrade, PinnedCancel, PinnedOrder
from app.job_safety.outcome import ExchangeOrder, Venue

PRICE = Decimal(100)
QUERIES = ("get_order", "all_orders", "open_orders", "trades", "positions")
MAX_AHEAD_MS = 1_000
"""A timestamp further in the exchange's future than this is refused (BINANCE.md section 4)."""


@dataclass(slots=True)
class Order:
    """One order that the engine took, with every state it has had."""

    order_id: int
    request: PinnedOrder
    taken_ms: int
    """By the engine's clock: what the exchange says."""
    versions: list[tuple[int, str, Decimal]]
    """(true time, status, executed quantity), oldest first."""

    @property
    def status(self) -> str:
        return self.versions[-1][1]

    @property
    def executed(self) -> Decimal:
        return self.versions[-1][2]

    def seen_at(self, true_ms: int) -> ExchangeOrder | None:
        """Return what a reader sees whose data are as of `true_ms`."""
        seen = [version for version in self.versions if version[0] <= true_ms]
        if not seen:
            return None
        _, status, executed = seen[-1]
        request = self.request
        return ExchangeOrder(
            venue=request.venue,
            symbol=request.symbol,
            order_id=self.order_id,
            client_order_id=request.client_order_id,
            side=request.side,
            order_type=request.order_type,
            status=status,
            quantity=request.quantity,
            executed_quantity=executed,
            price=request.price or Decimal(0),
            average_price=PRICE if executed else Decimal(0),
            time_in_force=request.time_in_force or "",
            reduce_only=request.reduce_only,
            time_ms=self.taken_ms,
            update_time_ms=self.taken_ms,
        )


@dataclass(slots=True)
class Flight:
    """A request on its way. `arrives_ms` None: it never will."""

    request: PinnedOrder
    arrives_ms: int | None
    answer: str = ""
    """What the engine said: an error such as -1021, or `taken`; empty while it has not arrived."""


@dataclass(slots=True)
class ModelExchange:
    """The engine and its read side. `engine_behind_ms`: how far its clock is behind the one that is told."""

    clock: Clock
    engine_behind_ms: int = 0
    lag_ms: dict[str, int] = field(default_factory=dict)
    """How far each kind of query lags behind."""
    stuck_at_ms: dict[str, int] = field(default_factory=dict)
    """Since when a kind of query shows nothing new at all."""
    margin_for: int | None = None
    """How many opening orders the account can pay for; None: any number."""
    orders: list[Order] = field(default_factory=list)
    trades: list[tuple[int, ExchangeTrade]] = field(default_factory=list)
    flights: list[Flight] = field(default_factory=list)
    cancels: int = 0
    blind_sends: list[str] = field(default_factory=list)
    """What was sent while the same order could still be, or had been, executed: each is a breach of I4."""
    on_send: Callable[[PinnedOrder], None] = lambda _request: None
    """Looks at every request when it leaves."""

    def now_ms(self) -> int:
        """Return what a time request is told."""
        return self.clock.now_ms()

    def engine_ms(self) -> int:
        """Return the engine's own clock."""
        return self.clock.now_ms() - self.engine_behind_ms

    def send(self, request: PinnedOrder, *, delay_ms: int | None = 0) -> Flight:
        """Put a request on the wire; with `delay_ms` None it is lost."""
        self.on_send(request)
        if self._could_execute(request):
            if self.executions(request.client_order_id):
                self.blind_sends.append(f"{request.client_order_id}: sent though it had been executed")
            if any(self._is_alive(other) for other in self.flights if self._is_same(other.request, request)):
                self.blind_sends.append(f"{request.client_order_id}: sent while an earlier attempt was on its way")
        flight = Flight(request=request, arrives_ms=None if delay_ms is None else self.clock.now_ms() + delay_ms)
        self.flights.append(flight)
        if delay_ms == 0:
            self._execute(flight)
        return flight

    def settle_arrivals(self) -> None:
        """Execute what has arrived by now."""
        due = [f for f in self.flights if f.arrives_ms is not None and not f.answer]
        for flight in sorted(due, key=lambda f: f.arrives_ms or 0):
            if (flight.arrives_ms or 0) <= self.clock.now_ms():
                self._execute(flight)

    def next_arrival_ms(self) -> int | None:
        """Return when the next request on the wire arrives."""
        return min((f.arrives_ms for f in self.flights if f.arrives_ms is not None and not f.answer), default=None)

    def executions(self, client_order_id: str) -> list[Order]:
        """Return every order that the engine took under an id."""
        return [order for order in self.orders if order.request.client_order_id == client_order_id]

    def is_on_its_way(self, client_order_id: str) -> bool:
        """Return whether a request with this id could still be executed."""
        return any(self._is_alive(f) for f in self.flights if f.request.client_order_id == client_order_id)

    def fill(self, order: Order, quantity: Decimal | None = None) -> None:
        """Fill a resting order, in whole or by `quantity`."""
        left = order.request.quantity - order.executed
        part = left if quantity is None else min(quantity, left)
        if part <= 0 or order.status in {"FILLED", "CANCELED"}:
            return
        executed = order.executed + part
        status = "FILLED" if executed == order.request.quantity else "PARTIALLY_FILLED"
        order.versions.append((self.clock.now_ms(), status, executed))
        number = len(self.trades) + 1
        self.trades.append(
            (
                self.clock.now_ms(),
                ExchangeTrade(
                    venue=order.request.venue,
                    symbol=order.request.symbol,
                    trade_id=number,
                    order_id=order.order_id,
                    side=order.request.side,
                    price=PRICE,
                    quantity=part,
                    quote_quantity=PRICE * part,
                    commission=Decimal(0),
                    commission_asset="USDT",
                    time_ms=self.engine_ms(),
                ),
            )
        )

    def cancel(self, cancel: PinnedCancel) -> ExchangeOrder | int:
        """Cancel an open order; return it, or the error code."""
        self.cancels += 1
        for order in self.orders:
            if order.order_id == cancel.order_id and order.status in {"NEW", "PARTIALLY_FILLED"}:
                order.versions.append((self.clock.now_ms(), "CANCELED", order.executed))
                shown = order.seen_at(self.clock.now_ms())
                assert shown is not None
                return shown
        return -2011

    def foreign_order(self, symbol: str) -> Order:
        """Take an order that somebody placed by hand on this account."""
        request = PinnedOrder(
            venue=Venue.USDM,
            symbol=symbol,
            side="SELL",
            order_type="MARKET",
            quantity=Decimal(7),
            client_order_id=f"web_{len(self.orders)}",
            timestamp_ms=self.clock.now_ms(),
            recv_window_ms=3000,
        )
        return self._take(request)

    def position(self, symbol: str, *, as_of_ms: int | None = None) -> Decimal:
        """Return the signed quantity that the trades add up to."""
        quantity = Decimal(0)
        for true_ms, trade in self.trades:
            if trade.symbol == symbol and (as_of_ms is None or true_ms <= as_of_ms):
                quantity += trade.quantity if trade.side == "BUY" else -trade.quantity
        return quantity

    def as_of_ms(self, query: str) -> int:
        """Return as of when a kind of query is answered now."""
        return min(self.clock.now_ms() - self.lag_ms.get(query, 0), self.stuck_at_ms.get(query, self.clock.now_ms()))

    def lag_everywhere(self, milliseconds: int) -> None:
        """Let every kind of query lag behind by the same time."""
        self.lag_ms = dict.fromkeys(QUERIES, milliseconds)

    def _execute(self, flight: Flight) -> None:
        request = flight.request
        taken_before = self.executions(request.client_order_id)
        opened = sum(1 for o in self.orders if not o.request.reduce_only and o.request.client_order_id[:3] == "fo-")
        if not self._could_execute(request):
            flight.answer = "-1021"
        elif any(order.status in {"NEW", "PARTIALLY_FILLED"} for order in taken_before):
            flight.answer = "-4116"
        elif self.margin_for is not None and not request.reduce_only and opened >= self.margin_for:
            flight.answer = "-2019"
        else:
            self._take(request)
            flight.answer = "taken"

    def _take(self, request: PinnedOrder) -> Order:
        order = Order(
            order_id=1000 + len(self.orders),
            request=request,
            taken_ms=self.engine_ms(),
            versions=[(self.clock.now_ms(), "NEW", Decimal(0))],
        )
        self.orders.append(order)
        if request.order_type == "MARKET":
            self.fill(order)
        return order

    def _could_execute(self, request: PinnedOrder) -> bool:
        is_late = self.engine_ms() > request.timestamp_ms + request.recv_window_ms
        return not is_late and request.timestamp_ms <= self.now_ms() + MAX_AHEAD_MS

    def _is_alive(self, flight: Flight) -> bool:
        if flight.answer or flight.arrives_ms is None:
            return False
        fence_ms = flight.request.timestamp_ms + flight.request.recv_window_ms
        return flight.arrives_ms - self.engine_behind_ms <= fence_ms

    @staticmethod
    def _is_same(one: PinnedOrder, other: PinnedOrder) -> bool:
        return one.client_order_id == other.client_order_id
