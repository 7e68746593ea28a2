"""USD-M futures: the algo endpoints, where conditional orders live since December 2025."""

from __future__ import annotations

from typing import Any

from app.exchange.paper import filters
from app.exchange.paper import params as p
from app.exchange.paper.algo import ALGO_TYPES, AlgoOrder
from app.exchange.paper.commands import CancelAlgo, PlaceAlgo
from app.exchange.paper.errors import PaperError, invalid_symbol, missing, no_such_order, unknown_order
from app.exchange.paper.exchange import Exchange
from app.exchange.paper.gateway import Call, Route, Routes, random_client_id
from app.exchange.paper.model import ZERO, Venue, text
from app.exchange.paper.queries import DAY_MS, HORIZON_MS, UNFILLED_HORIZON_MS, page, window
from app.exchange.paper.routes_futures import check_limit_price, check_one_way

_WINDOW_MS = 7 * DAY_MS


def _too_long() -> PaperError:
    return PaperError(-4167, "Query time range is too long: more than 7 days.")


class AlgoOrders:
    """Handlers of the conditional order endpoints. There is no matching-engine look at recvWindow here."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._engine = exchange.algos
        self._futures = exchange.futures

    def routes(self) -> Routes:
        """Method and path to handler, with the documented request weights."""
        futures = Venue.FUTURES
        return {
            ("POST", "/fapi/v1/algoOrder"): Route(
                venue=futures, handle=self.place, weight=0, is_order=True, is_engine=True
            ),
            ("DELETE", "/fapi/v1/algoOrder"): Route(venue=futures, handle=self.cancel, is_engine=True),
            ("DELETE", "/fapi/v1/algoOpenOrders"): Route(venue=futures, handle=self.cancel_all, is_engine=True),
            ("GET", "/fapi/v1/algoOrder"): Route(venue=futures, handle=self.get),
            ("GET", "/fapi/v1/openAlgoOrders"): Route(
                venue=futures, handle=self.list_open, weight=lambda params: 1 if "symbol" in params else 40
            ),
            ("GET", "/fapi/v1/allAlgoOrders"): Route(venue=futures, handle=self.list_all, weight=5),
        }

    def place(self, call: Call) -> dict[str, Any]:
        """New conditional order."""
        return _shape(self._exchange.place_algo(self._parse(call)))

    def _parse(self, call: Call) -> PlaceAlgo:
        params = call.params
        if p.required(params, "algoType") != "CONDITIONAL":
            raise PaperError(-1130, "Data sent for parameter 'algoType' is not valid.")
        symbol = p.required(params, "symbol")
        spec = self._futures.specs.get(symbol)
        if spec is None:
            raise invalid_symbol()
        side = p.side(params)
        p.required(params, "type")
        kind = p.one_of(params, "type", ALGO_TYPES, "", code=-1116, msg="Invalid orderType.")
        check_one_way(params)
        trigger = p.decimal(params, "triggerPrice")
        if trigger is None:
            raise missing("triggerPrice")
        filters.check_futures_price(spec, trigger)
        is_market = kind.endswith("_MARKET")
        reduce_only, close_position = p.boolean(params, "reduceOnly"), p.boolean(params, "closePosition")
        quantity = p.decimal(params, "quantity")
        if close_position:
            if not is_market or quantity is not None or "reduceOnly" in params:
                raise PaperError(-4136, "Target strategy invalid for orderType, closePosition and reduceOnly.")
        elif quantity is None:
            raise missing("quantity")
        else:
            filters.check_futures_quantity(spec, quantity, is_market=is_market)
        price = p.decimal(params, "price")
        if not is_market:
            price = check_limit_price(spec, side, price, trigger)
        if quantity is not None and not reduce_only:
            filters.check_futures_notional(spec, price if price is not None else trigger, quantity)
        return PlaceAlgo(
            at=call.now_ms,
            symbol=symbol,
            side=side,
            type=kind,
            client_algo_id=p.futures_client_id(params, "clientAlgoId") or random_client_id(),
            trigger_price=trigger,
            actual_client_order_id=random_client_id(),
            time_in_force=p.one_of(
                params,
                "timeInForce",
                frozenset({"GTC", "IOC", "FOK", "GTX"}),
                "GTC",
                code=-1115,
                msg="Invalid timeInForce.",
            ),
            price=price,
            quantity=quantity,
            reduce_only=reduce_only,
            close_position=close_position,
        )

    def _find(self, call: Call) -> AlgoOrder | None:
        algo_id = p.integer(call.params, "algoId")
        client_id = call.params.get("clientAlgoId")
        if algo_id is not None:
            return self._engine.by_id.get(algo_id)
        if not client_id:
            raise missing("algoId")
        return self._engine.with_client_id(client_id)

    def cancel(self, call: Call) -> dict[str, Any]:
        """Cancel one. The reply's ``code`` is a string."""
        algo = self._find(call)
        if algo is None or algo.algo_id not in self._engine.open:
            raise unknown_order()
        self._exchange.execute(CancelAlgo(at=call.now_ms, algo_id=algo.algo_id))
        return {
            "algoId": algo.algo_id,
            "clientAlgoId": algo.command.client_algo_id,
            "code": "200",
            "msg": "success",
        }

    def cancel_all(self, call: Call) -> dict[str, Any]:
        """Cancel all of a symbol."""
        symbol = p.required(call.params, "symbol")
        for algo in [one for one in self._engine.open.values() if one.command.symbol == symbol]:
            self._exchange.execute(CancelAlgo(at=call.now_ms, algo_id=algo.algo_id))
        return {"code": 200, "msg": "The operation of cancel all open order is done."}

    def get(self, call: Call) -> dict[str, Any]:
        """One conditional order, within the horizons of ordinary orders."""
        algo = self._find(call)
        if algo is None or algo.time_ms > call.seen_until_ms or _is_forgotten(algo, call.now_ms):
            raise no_such_order()
        return _shape(algo)

    def list_open(self, call: Call) -> list[dict[str, Any]]:
        """Those that wait for their trigger."""
        symbol = call.params.get("symbol")
        return [
            _shape(algo)
            for algo in self._engine.open.values()
            if (not symbol or algo.command.symbol == symbol) and algo.time_ms <= call.seen_until_ms
        ]

    def list_all(self, call: Call) -> list[dict[str, Any]]:
        """Those of a time window or from an id on."""
        symbol = p.required(call.params, "symbol")
        limit = p.limit(call.params, 500, 1000)
        from_id = p.integer(call.params, "algoId")
        start, end = window(call, _WINDOW_MS, _too_long)
        rows = self._engine.algos.between(start if start is not None else call.now_ms - _WINDOW_MS, end)
        if from_id is not None:
            rows = [algo for algo in self._engine.algos.items if algo.algo_id >= from_id]
        wanted = [
            algo
            for algo in rows
            if algo.command.symbol == symbol
            and algo.time_ms <= call.seen_until_ms
            and not _is_forgotten(algo, call.now_ms)
        ]
        return [_shape(algo) for algo in page(wanted, limit, oldest_first=from_id is not None or start is not None)]


def _is_forgotten(algo: AlgoOrder, now_ms: int) -> bool:
    age_ms = now_ms - algo.time_ms
    is_unfilled = algo.order is None or not algo.order.executed
    return algo.shown_status not in {"NEW", "TRIGGERED"} and (
        age_ms > HORIZON_MS or (age_ms > UNFILLED_HORIZON_MS and is_unfilled)
    )


def _shape(algo: AlgoOrder) -> dict[str, Any]:
    command, order = algo.command, algo.order
    average = order.executed_quote / order.executed if order is not None and order.executed else ZERO
    return {
        "algoId": algo.algo_id,
        "clientAlgoId": command.client_algo_id,
        "algoType": "CONDITIONAL",
        "orderType": command.type,
        "symbol": command.symbol,
        "side": command.side,
        "positionSide": "BOTH",
        "timeInForce": command.time_in_force,
        "quantity": text(command.quantity or ZERO),
        "algoStatus": algo.shown_status.value,
        "actualOrderId": str(order.order_id) if order is not None else "",
        "actualPrice": text(round(average, 8)),
        "actualQty": text(order.executed if order is not None else ZERO),
        "actualType": order.type if order is not None else "",
        "triggerPrice": text(command.trigger_price),
        "price": text(command.price or ZERO),
        "icebergQuantity": None,
        "selfTradePreventionMode": "EXPIRE_MAKER",
        "workingType": "CONTRACT_PRICE",
        "priceMatch": "NONE",
        "closePosition": command.close_position,
        "priceProtect": False,
        "reduceOnly": command.reduce_only,
        "createTime": algo.time_ms,
        "updateTime": algo.update_ms,
        "triggerTime": algo.trigger_ms,
        "goodTillDate": 0,
        "failReason": algo.reject_reason,
    }
