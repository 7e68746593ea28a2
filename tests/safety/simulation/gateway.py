"""The exchange as one process sees it: the gateway's port, its answers read by the real failure table.

What happens to a request is the reply of the driver at the point `send:…`; see `FAULTS_OF`.
"""

import json
from typing import Final

from app.clock import Clock
from app.exchange.errors import ExchangeQueryError
from app.exchange.models import (
    Balance,
    CancelAccepted,
    CancelOutcome,
    ExchangePosition,
    ExchangeTrade,
    OrderAbsent,
    PinnedCancel,
    PinnedOrder,
    ServerTime,
)
from app.job_safety.failure_classifier import classify_answer, classify_transport
from app.job_safety.failure_row import Method, TransportFault
from app.job_safety.outcome import (
    Accepted,
    Certainty,
    ExchangeOrder,
    Failure,
    NotSent,
    Outcome,
    Refused,
    Unknown,
    Venue,
)
from tests.safety.simulation.exchange import Flight, ModelExchange
from tests.safety.simulation.scheduler import Process

UNKNOWN_503: Final = "Unknown error, please check your request or try again later."
UNAVAILABLE_503: Final = "Service Unavailable."
MESSAGES: Final = {
    -1021: "Timestamp for this request is outside of the recvWindow.",
    -2011: "Unknown order sent.",
    -2013: "Order does not exist.",
    -2019: "Margin is insufficient.",
    -4116: "ClientOrderId is duplicated.",
}
_TURNED_AWAY: Final[dict[str | None, tuple[int, dict[str, object], dict[str, str]]]] = {
    "503_unavailable": (503, {"code": -1001, "msg": UNAVAILABLE_503}, {}),
    "rate_limited": (429, {"code": -1003, "msg": "Too many requests."}, {"Retry-After": "1"}),
    "refused": (400, {"code": -2019, "msg": MESSAGES[-2019]}, {}),
}
PLACE_FAULTS: Final = (
    "lost",
    "answer_lost",
    "delay 900",
    "delay 2900",
    "delay 3400",
    "delay 8000",
    "503_unknown_executed",
    "503_unknown",
    "503_unavailable",
    "not_connected",
    "rate_limited",
    "refused",
)
QUERY_FAULTS: Final = ("unanswered",)


def faults_at(where: str) -> tuple[str, ...]:
    """Return what can go wrong at a point; replies that the driver may give there."""
    if where == "send:place":
        return PLACE_FAULTS
    if where == "send:cancel":
        return ("lost", "answer_lost", "not_connected")
    if where.startswith("ask:"):
        return QUERY_FAULTS
    if where.startswith("redis:"):
        return ("down", "answer_lost")
    if where == "journal:begin":
        return ("down", "commit_lost")
    if where == "journal:committed":
        return ("answer_lost",)
    return ()


class SimulatedGateway:
    """Places, cancels and asks for one process."""

    def __init__(self, exchange: ModelExchange, process: Process, clock: Clock) -> None:
        self._exchange = exchange
        self._process = process
        self._clock = clock

    def place_order(self, order: PinnedOrder) -> Outcome:
        """Send one request, as the driver wills."""
        outcome = self._place(order, self._process.point("send:place"))
        self._process.point("answer:place")
        return outcome

    def _place(self, order: PinnedOrder, fault: str | None) -> Outcome:
        if fault in _TURNED_AWAY:
            return self._answer("order", *_TURNED_AWAY[fault])
        if fault == "not_connected":
            return _failed(classify_transport(fault=TransportFault.CONNECTION_REFUSED, method="order"))
        if fault in {"lost", "503_unknown"}:
            self._exchange.send(order, delay_ms=None)
        elif fault is not None and fault.startswith("delay "):
            self._exchange.send(order, delay_ms=int(fault.removeprefix("delay ")))
        else:
            flight = self._exchange.send(order)
            if fault is None:
                return self._answer_of(flight)
        if fault in {"503_unknown", "503_unknown_executed"}:
            return self._answer("order", 503, {"msg": UNKNOWN_503})
        return _failed(classify_transport(fault=TransportFault.OTHER, method="order"))

    def _answer_of(self, flight: Flight) -> Outcome:
        if flight.answer != "taken":
            code = int(flight.answer)
            return self._answer("order", 400, {"code": code, "msg": MESSAGES[code]})
        shown = self._exchange.orders[-1].seen_at(self._exchange.now_ms())
        assert shown is not None
        return Accepted(order=shown)

    def cancel_order(self, cancel: PinnedCancel) -> CancelOutcome:
        """Send one cancel, as the driver wills."""
        fault = self._process.point("send:cancel")
        outcome: CancelOutcome
        if fault == "not_connected":
            outcome = _failed(classify_transport(fault=TransportFault.CONNECTION_REFUSED, method="cancel"))
        elif fault == "lost":
            outcome = _failed(classify_transport(fault=TransportFault.OTHER, method="cancel"))
        else:
            told = self._exchange.cancel(cancel)
            if fault == "answer_lost":
                outcome = _failed(classify_transport(fault=TransportFault.OTHER, method="cancel"))
            elif isinstance(told, int):
                outcome = self._answer("cancel", 400, {"code": told, "msg": MESSAGES[told]})
            else:
                outcome = CancelAccepted(order_id=told.order_id, client_order_id=told.client_order_id, order=told)
        self._process.point("answer:cancel")
        return outcome

    def server_time(self, venue: Venue) -> ServerTime:
        """Tell the time."""
        self._ask("server_time")
        now = self._clock.monotonic()
        return ServerTime(
            venue=venue, server_time_ms=self._exchange.now_ms(), sent_monotonic=now, received_monotonic=now
        )

    def get_order(
        self,
        venue: Venue,
        symbol: str,
        *,
        client_order_id: str | None = None,
        order_id: int | None = None,
        is_algo: bool = False,
    ) -> ExchangeOrder | OrderAbsent:
        """Show the newest order with this id, as of the lag of this question."""
        self._ask("get_order")
        shown = [
            order
            for order in self._shown("get_order", symbol)
            if (order.order_id == order_id if order_id is not None else order.client_order_id == client_order_id)
        ]
        if shown:
            return shown[-1]
        return OrderAbsent(venue=venue, symbol=symbol, client_order_id=client_order_id, order_id=order_id)

    def all_orders(self, venue: Venue, symbol: str, start_ms: int, *, is_algo: bool = False) -> list[ExchangeOrder]:
        """Show every order since `start_ms`."""
        self._ask("all_orders")
        return [order for order in self._shown("all_orders", symbol) if order.time_ms >= start_ms]

    def open_orders(self, venue: Venue, symbol: str | None = None, *, is_algo: bool = False) -> list[ExchangeOrder]:
        """Show what rests."""
        self._ask("open_orders")
        if is_algo:
            return []
        return [o for o in self._shown("open_orders", symbol) if o.status in {"NEW", "PARTIALLY_FILLED"}]

    def trades_of_order(self, venue: Venue, symbol: str, order_id: int) -> list[ExchangeTrade]:
        """Show the trades of one order."""
        self._ask("trades")
        return [trade for trade in self._trades(symbol) if trade.order_id == order_id]

    def newest_trades(self, venue: Venue, symbol: str) -> list[ExchangeTrade]:
        """Show the newest trades."""
        self._ask("trades")
        return self._trades(symbol)

    def trades_since(
        self, venue: Venue, symbol: str, *, from_id: int | None = None, start_ms: int | None = None
    ) -> list[ExchangeTrade]:
        """Show the trades since an id or a time."""
        self._ask("trades")
        return [
            trade
            for trade in self._trades(symbol)
            if (trade.trade_id >= from_id if from_id is not None else trade.time_ms >= (start_ms or 0))
        ]

    def balances(self, venue: Venue) -> list[Balance]:
        """Show no balance: the books of this model hold none."""
        self._ask("positions")
        return []

    def positions(self, symbol: str | None = None) -> list[ExchangePosition]:
        """Show the position of every symbol that was traded."""
        self._ask("positions")
        as_of_ms = self._exchange.as_of_ms("positions")
        symbols = {trade.symbol for _, trade in self._exchange.trades}
        held = {one: self._exchange.position(one, as_of_ms=as_of_ms) for one in sorted(symbols)}
        zero = self._exchange.position("nothing")
        return [
            ExchangePosition(symbol=one, quantity=quantity, entry_price=zero, mark_price=zero, unrealized_pnl=zero)
            for one, quantity in held.items()
        ]

    def _ask(self, query: str) -> None:
        if self._process.point(f"ask:{query}") is not None:
            raise ExchangeQueryError(classify_transport(fault=TransportFault.OTHER, method="query"), query)

    def _shown(self, query: str, symbol: str | None) -> list[ExchangeOrder]:
        as_of_ms = self._exchange.as_of_ms(query)
        seen = [order.seen_at(as_of_ms) for order in self._exchange.orders]
        return [order for order in seen if order is not None and symbol in {None, order.symbol}]

    def _trades(self, symbol: str) -> list[ExchangeTrade]:
        as_of_ms = self._exchange.as_of_ms("trades")
        return [trade for at_ms, trade in self._exchange.trades if at_ms <= as_of_ms and trade.symbol == symbol]

    def _answer(
        self, method: Method, http_status: int, body: dict[str, object], headers: dict[str, str] | None = None
    ) -> NotSent | Refused | Unknown:
        failure = classify_answer(
            venue=Venue.USDM,
            method=method,
            http_status=http_status,
            body=json.dumps(body),
            headers=headers or {},
            now_ms=self._exchange.now_ms(),
        )
        assert failure is not None
        return _failed(failure)


def _failed(failure: Failure) -> NotSent | Refused | Unknown:
    if failure.certainty is Certainty.NOT_SENT:
        return NotSent(failure=failure, reason=failure.message)
    return Refused(failure=failure) if failure.certainty is Certainty.REFUSED else Unknown(failure=failure)
