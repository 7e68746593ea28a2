"""Spot: orders, cancels, queries, trades, account."""

from __future__ import annotations

from typing import Any

from app.exchange.paper import filters
from app.exchange.paper import params as p
from app.exchange.paper.commands import CancelOrder, PlaceOrder
from app.exchange.paper.errors import PaperError, invalid_symbol, missing, no_such_order, unknown_order
from app.exchange.paper.exchange import Exchange
from app.exchange.paper.gateway import Call, Route, Routes, random_client_id
from app.exchange.paper.limits import RateLimiter
from app.exchange.paper.model import UNFILLED_END, ZERO, Order, Venue, text
from app.exchange.paper.orders import OrderStore
from app.exchange.paper.queries import DAY_MS, HORIZON_MS, find_order, orders_page, store_of, trades_page
from app.exchange.paper.routes_futures import partial_liquidity
from app.exchange.paper.shapes import spot_order, spot_reply, spot_trade
from app.exchange.paper.symbols import SymbolSpec

_TYPES = frozenset({"LIMIT", "MARKET", "LIMIT_MAKER"})
_TIMES_IN_FORCE = frozenset({"GTC", "IOC", "FOK"})
_RESPONSES = frozenset({"ACK", "RESULT", "FULL"})


def _too_long() -> PaperError:
    return PaperError(-1127, "More than 24 hours between startTime and endTime.")


# Without a window the newest orders are shown, however old: a century.
_EVER_MS = 36_500 * DAY_MS


class SpotOrders:
    """Handlers of the Spot endpoints."""

    def __init__(self, exchange: Exchange, limiter: RateLimiter) -> None:
        self._exchange = exchange
        self._engine = exchange.spot
        self._limiter = limiter

    def routes(self) -> Routes:
        """Method and path to handler, with the documented request weights."""
        spot = Venue.SPOT
        return {
            ("POST", "/api/v3/order"): Route(venue=spot, handle=self.place, is_order=True, is_engine=True),
            ("POST", "/api/v3/order/test"): Route(venue=spot, handle=self.test),
            ("DELETE", "/api/v3/order"): Route(venue=spot, handle=self.cancel, is_engine=True),
            ("DELETE", "/api/v3/openOrders"): Route(venue=spot, handle=self.cancel_all, is_engine=True),
            ("GET", "/api/v3/order"): Route(venue=spot, handle=self.get, weight=4),
            ("GET", "/api/v3/openOrders"): Route(
                venue=spot, handle=self.list_open, weight=lambda params: 6 if "symbol" in params else 80
            ),
            ("GET", "/api/v3/allOrders"): Route(venue=spot, handle=self.list_all, weight=20),
            ("GET", "/api/v3/myTrades"): Route(
                venue=spot, handle=self.list_trades, weight=lambda params: 5 if "orderId" in params else 20
            ),
            ("GET", "/api/v3/account"): Route(venue=spot, handle=self.account, weight=20),
            ("GET", "/api/v3/rateLimit/order"): Route(venue=spot, handle=self.order_counts, weight=40),
        }

    def place(self, call: Call) -> dict[str, Any]:
        """New order; MARKET and LIMIT answer FULL unless told otherwise, LIMIT_MAKER answers ACK."""
        command = self._parse(call)
        default = "ACK" if command.type == "LIMIT_MAKER" else "FULL"
        response = p.one_of(
            call.params,
            "newOrderRespType",
            _RESPONSES,
            default,
            code=-1130,
            msg="Data sent for parameter 'newOrderRespType' is not valid.",
        )
        call.check_engine_window()
        order = self._exchange.place(command)
        if order.executed:
            self._limiter.order_filled()
        return spot_reply(order, response)

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
        quantity = p.decimal(params, "quantity")
        quote_quantity = p.decimal(params, "quoteOrderQty")
        price = p.decimal(params, "price")
        time_in_force = "GTC"
        if kind == "MARKET":
            if (quantity is None) == (quote_quantity is None):
                raise (
                    missing("quantity")
                    if quantity is None
                    else PaperError(-1106, "Parameter 'quoteOrderQty' sent when not required.")
                )
            if price is not None or "timeInForce" in params:
                name = "price" if price is not None else "timeInForce"
                raise PaperError(-1106, f"Parameter '{name}' sent when not required.")
        else:
            if quantity is None:
                raise missing("quantity")
            if price is None:
                raise missing("price")
            if kind == "LIMIT":
                p.required(params, "timeInForce")
                time_in_force = p.one_of(
                    params, "timeInForce", _TIMES_IN_FORCE, "", code=-1115, msg="Invalid timeInForce."
                )
            filters.check_spot_price(spec, price)
            filters.check_spot_percent_price(spec, price, self._engine.last(symbol))
        if quantity is not None:
            filters.check_spot_quantity(spec, quantity, is_market=kind == "MARKET")
            notional = quantity * (price if price is not None else self._engine.last(symbol))
        else:
            notional = quote_quantity or ZERO
        filters.check_spot_notional(spec, notional)
        fraction = call.strike.fraction
        return PlaceOrder(
            at=call.now_ms,
            venue=Venue.SPOT,
            symbol=symbol,
            side=side,
            type=kind,
            client_order_id=p.spot_client_id(params, "newClientOrderId") or random_client_id(),
            time_in_force=time_in_force,
            price=price,
            quantity=quantity,
            quote_quantity=quote_quantity,
            liquidity=self._liquidity(spec, call, quantity) if fraction else None,
        )

    def _liquidity(self, spec: SymbolSpec, call: Call, quantity: Any) -> Any:
        return None if quantity is None else partial_liquidity(spec, quantity, call.strike.fraction)

    def cancel(self, call: Call) -> dict[str, Any]:
        """Cancel one order and give it ``newClientOrderId`` or a random one."""
        order = find_order(store_of(self._engine.stores, call.params), call.params)
        if order is None or not order.is_open:
            raise unknown_order()
        return self._cancel(order, call, p.spot_client_id(call.params, "newClientOrderId"))

    def _cancel(self, order: Order, call: Call, new_id: str | None) -> dict[str, Any]:
        original = order.client_order_id
        self._exchange.cancel(
            CancelOrder(
                at=call.now_ms,
                venue=Venue.SPOT,
                symbol=order.symbol,
                order_id=order.order_id,
                new_client_order_id=new_id or random_client_id(),
            )
        )
        shape = spot_reply(order, "RESULT")
        del shape["workingTime"]
        return {"symbol": order.symbol, "origClientOrderId": original, **shape, "transactTime": call.now_ms}

    def cancel_all(self, call: Call) -> list[dict[str, Any]]:
        """Cancel all open orders of a symbol.

        Raises:
            PaperError: -2011 if there are none.
        """
        orders = list(store_of(self._engine.stores, call.params).open.values())
        if not orders:
            raise unknown_order()
        return [self._cancel(order, call, None) for order in orders]

    def get(self, call: Call) -> dict[str, Any]:
        """One order. Unfilled ends older than 90 days are archived: -2026."""
        order = find_order(store_of(self._engine.stores, call.params), call.params)
        if order is None or order.time_ms > call.seen_until_ms:
            raise no_such_order()
        is_old = call.now_ms - order.time_ms > HORIZON_MS
        if is_old and order.status in UNFILLED_END and not order.executed:
            raise PaperError(
                -2026, "Order was canceled or expired with no executed qty over 90 days ago and has been archived."
            )
        return spot_order(order, call.seen_until_ms)

    def _stores(self, call: Call) -> list[OrderStore]:
        if call.params.get("symbol"):
            return [store_of(self._engine.stores, call.params)]
        return list(self._engine.stores.values())

    def list_open(self, call: Call) -> list[dict[str, Any]]:
        """Open orders of one symbol or of all."""
        return [
            spot_order(order, call.seen_until_ms)
            for store in self._stores(call)
            for order in store.open.values()
            if order.time_ms <= call.seen_until_ms
        ]

    def list_all(self, call: Call) -> list[dict[str, Any]]:
        """Orders of a window of at most a day, from an order id on, or the newest."""
        store = store_of(self._engine.stores, call.params)
        rows = orders_page(call, store, DAY_MS, _too_long, _EVER_MS)
        return [spot_order(order, call.seen_until_ms) for order in rows]

    def list_trades(self, call: Call) -> list[dict[str, Any]]:
        """Own trades of a window of at most a day, from a trade id on, of one order, or the newest."""
        store = store_of(self._engine.stores, call.params)
        return [spot_trade(trade) for trade in trades_page(call, store, DAY_MS, _too_long, _EVER_MS)]

    def account(self, call: Call) -> dict[str, Any]:
        """Balances and rates."""
        omit_zero = p.boolean(call.params, "omitZeroBalances")
        balances = []
        for asset, balance in self._engine.balances.items():
            entry = self._engine.ledgers[asset].last_at(call.seen_until_ms)
            total = entry.balance_after if entry is not None else ZERO
            # What was locked is not kept over time; but nobody sees more locked than there was.
            locked = min(balance.locked, total)
            if not omit_zero or total:
                balances.append({"asset": asset, "free": text(total - locked), "locked": text(locked)})
        maker, taker = text(self._engine.maker_rate), text(self._engine.taker_rate)
        return {
            "makerCommission": 10,
            "takerCommission": 10,
            "buyerCommission": 0,
            "sellerCommission": 0,
            "commissionRates": {"maker": maker, "taker": taker, "buyer": "0.00000000", "seller": "0.00000000"},
            "canTrade": True,
            "canWithdraw": True,
            "canDeposit": True,
            "brokered": False,
            "requireSelfTradePrevention": False,
            "preventSor": False,
            "updateTime": min(call.seen_until_ms, call.now_ms),
            "accountType": "SPOT",
            "balances": balances,
            "permissions": ["SPOT"],
            "uid": 1,
        }

    def order_counts(self, call: Call) -> list[dict[str, Any]]:
        """Orders counted in each window."""
        return [
            {
                "rateLimitType": "ORDERS",
                "interval": rule.interval,
                "intervalNum": rule.interval_num,
                "limit": rule.most,
                "count": count,
            }
            for rule, count in self._limiter.order_counts(call.now_ms)
        ]
