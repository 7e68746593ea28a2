"""USD-M futures: placing, canceling and querying ordinary orders; leverage and modes."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from app.exchange.paper import filters
from app.exchange.paper import params as p
from app.exchange.paper.algo import ALGO_TYPES
from app.exchange.paper.commands import CancelOrder, PlaceOrder, SetLeverage
from app.exchange.paper.errors import PaperError, invalid_symbol, missing, no_such_order, unknown_order
from app.exchange.paper.exchange import Exchange
from app.exchange.paper.gateway import Call, Route, Routes, random_client_id
from app.exchange.paper.model import Order, Venue
from app.exchange.paper.orders import OrderStore
from app.exchange.paper.queries import DAY_MS, find_order, is_forgotten, orders_page, store_of, trades_page
from app.exchange.paper.shapes import futures_ack, futures_order, futures_trade
from app.exchange.paper.symbols import SymbolSpec

WINDOW_MS = 7 * DAY_MS
_TYPES = frozenset({"LIMIT", "MARKET"}) | ALGO_TYPES | {"TRAILING_STOP_MARKET"}
_TIMES_IN_FORCE = frozenset({"GTC", "IOC", "FOK", "GTX"})


def _too_long() -> PaperError:
    return PaperError(-4167, "Query time range is too long: more than 7 days.")


def check_one_way(params: p.Params) -> None:
    """Only one-way mode exists here.

    Raises:
        PaperError: -4061.
    """
    if params.get("positionSide", "BOTH") != "BOTH":
        raise PaperError(-4061, "Order's position side does not match user's setting.")


def check_limit_price(spec: SymbolSpec, side: str, price: Decimal | None, mark: Decimal) -> Decimal:
    """The price of a limit order, checked against the filters.

    Raises:
        PaperError: -1102 or a filter's code.
    """
    if price is None:
        raise missing("price")
    filters.check_futures_price(spec, price)
    filters.check_futures_percent_price(spec, side, price, mark)
    return price


class FuturesOrders:
    """Handlers of the order endpoints."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._engine = exchange.futures

    def routes(self) -> Routes:
        """Method and path to handler, with the documented request weights."""
        futures = Venue.FUTURES
        return {
            ("POST", "/fapi/v1/order"): Route(
                venue=futures, handle=self.place, weight=0, is_order=True, is_engine=True
            ),
            ("POST", "/fapi/v1/order/test"): Route(venue=futures, handle=self.test, weight=0),
            ("DELETE", "/fapi/v1/order"): Route(venue=futures, handle=self.cancel, is_engine=True),
            ("DELETE", "/fapi/v1/allOpenOrders"): Route(venue=futures, handle=self.cancel_all, is_engine=True),
            ("GET", "/fapi/v1/order"): Route(venue=futures, handle=self.get),
            ("GET", "/fapi/v1/openOrder"): Route(venue=futures, handle=self.get_open),
            ("GET", "/fapi/v1/openOrders"): Route(
                venue=futures, handle=self.list_open, weight=lambda params: 1 if "symbol" in params else 40
            ),
            ("GET", "/fapi/v1/allOrders"): Route(venue=futures, handle=self.list_all, weight=5),
            ("GET", "/fapi/v1/userTrades"): Route(venue=futures, handle=self.list_trades, weight=5),
            ("POST", "/fapi/v1/leverage"): Route(venue=futures, handle=self.set_leverage),
            ("POST", "/fapi/v1/marginType"): Route(venue=futures, handle=self.set_margin_type),
            ("GET", "/fapi/v1/positionSide/dual"): Route(
                venue=futures, handle=lambda _: {"dualSidePosition": False}, weight=30
            ),
            ("POST", "/fapi/v1/positionSide/dual"): Route(venue=futures, handle=self.set_position_mode),
        }

    def place(self, call: Call) -> dict[str, Any]:
        """New order."""
        command = self._parse(call)
        call.check_engine_window()
        order = self._exchange.place(command)
        response = call.params.get("newOrderRespType") or "ACK"
        if response == "RESULT":
            return futures_order(order, call.now_ms, with_time=False)
        return futures_ack(order)

    def test(self, call: Call) -> dict[str, Any]:
        """Check an order without placing it."""
        self._parse(call)
        return {}

    def _parse(self, call: Call) -> PlaceOrder:
        params = call.params
        symbol = p.required(params, "symbol")
        spec = self._engine.specs.get(symbol)
        if spec is None:
            raise invalid_symbol()
        side = p.side(params)
        p.required(params, "type")
        kind = p.one_of(params, "type", _TYPES, "", code=-1116, msg="Invalid orderType.")
        if kind not in {"LIMIT", "MARKET"}:
            raise PaperError(
                -4120, "Order type not supported for this endpoint. Please use the Algo Order API endpoints instead."
            )
        check_one_way(params)
        quantity = p.decimal(params, "quantity")
        if quantity is None:
            raise missing("quantity")
        price = p.decimal(params, "price")
        time_in_force = "GTC"
        mark = self._engine.last(symbol)
        if kind == "LIMIT":
            p.required(params, "timeInForce")
            time_in_force = p.time_in_force(params, _TIMES_IN_FORCE, "")
            price = check_limit_price(spec, side, price, mark)
        elif price is not None or "timeInForce" in params:
            name = "price" if price is not None else "timeInForce"
            raise PaperError(-1106, f"Parameter '{name}' sent when not required.")
        reduce_only = p.boolean(params, "reduceOnly")
        filters.check_futures_quantity(spec, quantity, is_market=kind == "MARKET")
        if not reduce_only:
            filters.check_futures_notional(spec, price if price is not None else mark, quantity)
        fraction = call.strike.fraction
        return PlaceOrder(
            at=call.now_ms,
            venue=Venue.FUTURES,
            symbol=symbol,
            side=side,
            type=kind,
            client_order_id=p.futures_client_id(params, "newClientOrderId") or random_client_id(),
            time_in_force=time_in_force,
            price=price,
            quantity=quantity,
            reduce_only=reduce_only,
            liquidity=partial_liquidity(spec, quantity, fraction) if fraction else None,
        )

    def cancel(self, call: Call) -> dict[str, Any]:
        """Cancel one order; it keeps its client order id."""
        order = find_order(store_of(self._engine.stores, call.params), call.params)
        if order is None or not order.is_open:
            raise unknown_order()
        self._cancel(order, call.now_ms)
        return futures_order(order, call.now_ms, with_time=False)

    def _cancel(self, order: Order, at: int) -> None:
        self._exchange.cancel(CancelOrder(at=at, venue=Venue.FUTURES, symbol=order.symbol, order_id=order.order_id))

    def cancel_all(self, call: Call) -> dict[str, Any]:
        """Cancel all open orders of a symbol. The reply has a positive ``code``."""
        for order in list(store_of(self._engine.stores, call.params).open.values()):
            self._cancel(order, call.now_ms)
        return {"code": 200, "msg": "The operation of cancel all open order is done."}

    def _find_visible(self, call: Call) -> Order:
        order = find_order(store_of(self._engine.stores, call.params), call.params)
        if order is None or order.time_ms > call.seen_until_ms or is_forgotten(order, call.now_ms):
            raise no_such_order()
        return order

    def get(self, call: Call) -> dict[str, Any]:
        """One order, open or not, within the horizons."""
        return futures_order(self._find_visible(call), call.seen_until_ms)

    def get_open(self, call: Call) -> dict[str, Any]:
        """One order, if it is open: a filled or canceled one does not exist here."""
        order = self._find_visible(call)
        if not order.is_open:
            raise no_such_order()
        return futures_order(order, call.seen_until_ms)

    def _stores(self, call: Call) -> list[OrderStore]:
        if call.params.get("symbol"):
            return [store_of(self._engine.stores, call.params)]
        return list(self._engine.stores.values())

    def list_open(self, call: Call) -> list[dict[str, Any]]:
        """Open orders of one symbol or of all."""
        return [
            futures_order(order, call.seen_until_ms)
            for store in self._stores(call)
            for order in store.open.values()
            if order.time_ms <= call.seen_until_ms
        ]

    def list_all(self, call: Call) -> list[dict[str, Any]]:
        """Orders of a time window or from an order id on."""
        rows = [
            order
            for store in self._stores(call)
            for order in orders_page(call, store, WINDOW_MS, _too_long, WINDOW_MS)
            if not is_forgotten(order, call.now_ms)
        ]
        return [futures_order(order, call.seen_until_ms) for order in rows]

    def list_trades(self, call: Call) -> list[dict[str, Any]]:
        """Own trades of a time window, from a trade id on, or of one order."""
        rows = [
            trade
            for store in self._stores(call)
            for trade in trades_page(call, store, WINDOW_MS, _too_long, WINDOW_MS)
            if call.now_ms - trade.time_ms <= 90 * DAY_MS
        ]
        return [futures_trade(trade) for trade in rows]

    def set_leverage(self, call: Call) -> dict[str, Any]:
        """Change the initial leverage of a symbol."""
        symbol = p.required(call.params, "symbol")
        if symbol not in self._engine.specs:
            raise invalid_symbol()
        leverage = p.integer(call.params, "leverage")
        if leverage is None:
            raise missing("leverage")
        if not 1 <= leverage <= 125:
            raise PaperError(-4028, f"Leverage {leverage} is not valid")
        self._exchange.execute(SetLeverage(at=call.now_ms, symbol=symbol, leverage=leverage))
        return {"leverage": leverage, "maxNotionalValue": "1000000000", "symbol": symbol}

    def set_margin_type(self, call: Call) -> dict[str, Any]:
        """Only cross margin exists here."""
        store_of(self._engine.stores, call.params)
        if p.required(call.params, "marginType") == "CROSSED":
            raise PaperError(-4046, "No need to change margin type.")
        raise PaperError(-1020, "This operation is not supported.")

    def set_position_mode(self, call: Call) -> dict[str, Any]:
        """Only one-way mode exists here."""
        if p.required(call.params, "dualSidePosition") == "false":
            raise PaperError(-4059, "No need to change position side.")
        raise PaperError(-1020, "This operation is not supported.")


def partial_liquidity(spec: SymbolSpec, quantity: Decimal, fraction: str) -> Decimal:
    """How much of an order a partial-fill fault lets trade, on the step grid."""
    return quantity * Decimal(fraction) // spec.step * spec.step
