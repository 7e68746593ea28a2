"""From the text of an answer to values, strictly: a missing or odd field is an error, never a default that looks fine.

Numbers are exact: strings and JSON numbers become `Decimal` without passing through a float.
"""

import json
from collections.abc import Callable, Mapping
from decimal import Context, Decimal
from typing import Any, Final, TypeAlias, TypeVar

from app.exchange.errors import AnswerShapeError
from app.exchange.models import (
    Balance,
    CancelAccepted,
    ExchangePosition,
    ExchangeTrade,
    Income,
    PinnedCancel,
    PinnedOrder,
)
from app.job_safety.outcome import Accepted, ExchangeOrder, Venue
from app.money import EXACT, ZERO, parse

JsonObject: TypeAlias = Mapping[str, Any]
_Item = TypeVar("_Item")
_KNOWN_ONLY_IN_FULL: Final = frozenset({"side", "type", "status", "origQty", "executedQty"})

_AVERAGE: Final = Context(prec=28)
"""Spot tells no average price; it is the quotient of two exact sums, rounded to this precision, for display only."""


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


_DECODER: Final = json.JSONDecoder(parse_float=Decimal, parse_constant=_refuse_constant)


def load(body: bytes | str) -> object:
    """Return the value of a JSON text, numbers exact.

    Raises:
        AnswerShapeError: not JSON, or nested so deeply that it cannot be read.
    """
    try:
        told = body if isinstance(body, str) else body.decode("utf-8")
        value: object = _DECODER.decode(told)
    except (ValueError, RecursionError) as error:
        raise AnswerShapeError(f"the body is not JSON: {body[:80]!r}") from error
    return value


def load_object(body: bytes | str) -> JsonObject:
    """Return the JSON object in `body`."""
    return _object(load(body))


def load_list(body: bytes | str, of: Callable[[JsonObject], _Item]) -> list[_Item]:
    """Return what `of` makes of each object of the JSON list in `body`."""
    value = load(body)
    if not isinstance(value, list):
        raise AnswerShapeError(f"the body is not a JSON list: {body[:80]!r}")
    return [of(_object(item)) for item in value]


def accepted_order(order: PinnedOrder, told: JsonObject, body: bytes) -> Accepted:
    """Return the proof that `order` was taken. `told` is the object in `body`.

    Raises:
        AnswerShapeError: the answer lacks an integer order id, or is about another client order id or symbol.
    """
    if _KNOWN_ONLY_IN_FULL.isdisjoint(told) and not order.is_algo:
        # An acknowledgment alone, which Spot may send whatever was asked for. Its order id is worth keeping: an order
        # that is canceled before it is found has lost our client order id. What became of it is asked for.
        told = {
            **told, "side": order.side, "type": order.order_type, "status": "NEW", "origQty": order.quantity,
            "executedQty": ZERO, "price": order.price,
        }  # fmt: skip
    read = algo_order(told) if order.is_algo else plain_order(order.venue, told)
    if read.client_order_id != order.client_order_id or read.symbol != order.symbol:
        raise AnswerShapeError(
            f"the answer is about {read.client_order_id!r} on {read.symbol!r}, "
            f"not about {order.client_order_id!r} on {order.symbol!r}"
        )
    return Accepted(order=read, raw=body.decode("utf-8"))


def accepted_cancel(cancel: PinnedCancel, told: JsonObject, body: bytes) -> CancelAccepted:
    """Return the proof that `cancel` was taken. `told` is the object in `body`.

    Raises:
        AnswerShapeError: the answer is about another order.
    """
    if cancel.is_algo:
        order_id, client_order_id, read = integer(told, "algoId"), text(told, "clientAlgoId"), None
    else:
        read = plain_order(cancel.venue, told)
        order_id = read.order_id
        # Spot answers with the new client id (ours again, because the cancel says so) beside the original one.
        client_order_id = text(told, "origClientOrderId") if cancel.venue is Venue.SPOT else read.client_order_id
    if cancel.order_id is not None and order_id != cancel.order_id:
        raise AnswerShapeError(f"the answer is about order {order_id}, not {cancel.order_id}")
    if cancel.client_order_id is not None and client_order_id != cancel.client_order_id:
        raise AnswerShapeError(f"the answer is about {client_order_id!r}, not {cancel.client_order_id!r}")
    return CancelAccepted(order_id=order_id, client_order_id=client_order_id, order=read, raw=body.decode("utf-8"))


def plain_order(venue: Venue, told: JsonObject) -> ExchangeOrder:
    """Read an order of either venue's order endpoints. Times that the answer does not carry are 0."""
    executed = decimal(told, "executedQty")
    if venue is Venue.USDM:
        average = decimal(told, "avgPrice", ZERO)
    else:
        # Binance's spelling. Negative means "not available" for very old orders.
        spent = decimal(told, "cummulativeQuoteQty", ZERO)
        average = _AVERAGE.divide(spent, executed) if executed > 0 and spent > 0 else ZERO
    placed_ms = integer(told, "transactTime", 0)
    return ExchangeOrder(
        venue=venue,
        symbol=text(told, "symbol"),
        order_id=integer(told, "orderId"),
        client_order_id=text(told, "clientOrderId"),
        side=text(told, "side"),
        order_type=text(told, "type"),
        status=text(told, "status"),
        quantity=decimal(told, "origQty"),
        executed_quantity=executed,
        price=decimal(told, "price", ZERO),
        average_price=average,
        time_in_force=text(told, "timeInForce", ""),
        reduce_only=flag(told, "reduceOnly"),
        time_ms=integer(told, "time", placed_ms),
        update_time_ms=integer(told, "updateTime", placed_ms),
    )


def algo_order(told: JsonObject) -> ExchangeOrder:
    """Read a conditional futures order. What it executed is told by the real order that it became."""
    actual = told.get("actualOrderId")
    return ExchangeOrder(
        venue=Venue.USDM,
        symbol=text(told, "symbol"),
        order_id=integer(told, "algoId"),
        client_order_id=text(told, "clientAlgoId"),
        side=text(told, "side"),
        order_type=text(told, "orderType", text(told, "type", "")),
        status=text(told, "algoStatus"),
        quantity=decimal(told, "quantity", ZERO),
        executed_quantity=ZERO,
        price=decimal(told, "price", ZERO),
        time_in_force=text(told, "timeInForce", ""),
        reduce_only=flag(told, "reduceOnly"),
        time_ms=integer(told, "createTime", 0),
        update_time_ms=integer(told, "updateTime", 0),
        is_algo=True,
        actual_order_id=int(actual) if str(actual).isascii() and str(actual).isdigit() and int(actual) > 0 else None,  # type: ignore[arg-type]
    )


def trade(venue: Venue, told: JsonObject) -> ExchangeTrade:
    """Read a line of userTrades (futures) or myTrades (Spot)."""
    price, quantity = decimal(told, "price"), decimal(told, "qty")
    if venue is Venue.USDM:
        side, is_maker = text(told, "side"), flag(told, "maker")
    else:
        side, is_maker = "BUY" if flag(told, "isBuyer", needed=True) else "SELL", flag(told, "isMaker")
    return ExchangeTrade(
        venue=venue,
        symbol=text(told, "symbol"),
        trade_id=integer(told, "id"),
        order_id=integer(told, "orderId"),
        side=side,
        price=price,
        quantity=quantity,
        quote_quantity=decimal(told, "quoteQty"),
        commission=decimal(told, "commission"),
        commission_asset=text(told, "commissionAsset"),
        time_ms=integer(told, "time"),
        realized_pnl=decimal(told, "realizedPnl") if venue is Venue.USDM else ZERO,
        is_maker=is_maker,
    )


def spot_fills(accepted: Accepted) -> tuple[ExchangeTrade, ...]:
    """Return the fills that a Spot placement was answered with: those that have a trade id, which alone may be booked.

    Futures answers carry none; their trades are fetched by a query.
    """
    order = accepted.order
    if order.venue is not Venue.SPOT:
        return ()
    told = load_object(accepted.raw)
    fills = [_object(fill) for fill in told.get("fills") or ()]
    return tuple(
        ExchangeTrade(
            venue=Venue.SPOT,
            symbol=order.symbol,
            trade_id=integer(fill, "tradeId"),
            order_id=order.order_id,
            side=order.side,
            price=decimal(fill, "price"),
            quantity=decimal(fill, "qty"),
            quote_quantity=EXACT.multiply(decimal(fill, "price"), decimal(fill, "qty")),
            commission=decimal(fill, "commission"),
            commission_asset=text(fill, "commissionAsset"),
            time_ms=integer(told, "transactTime"),
        )
        for fill in fills
        if "tradeId" in fill
    )


def futures_balance(told: JsonObject) -> Balance:
    """Read a line of the futures balance."""
    return Balance(
        venue=Venue.USDM,
        asset=text(told, "asset"),
        wallet=decimal(told, "balance"),
        available=decimal(told, "availableBalance"),
        unrealized_pnl=decimal(told, "crossUnPnl", ZERO),
        update_time_ms=integer(told, "updateTime", 0),
    )


def spot_balance(told: JsonObject, update_time_ms: int) -> Balance:
    """Read a line of the Spot account's balances."""
    free = decimal(told, "free")
    return Balance(
        venue=Venue.SPOT,
        asset=text(told, "asset"),
        wallet=EXACT.add(free, decimal(told, "locked")),
        available=free,
        update_time_ms=update_time_ms,
    )


def position(told: JsonObject) -> ExchangePosition:
    """Read a line of positionRisk."""
    return ExchangePosition(
        symbol=text(told, "symbol"),
        quantity=decimal(told, "positionAmt"),
        entry_price=decimal(told, "entryPrice"),
        mark_price=decimal(told, "markPrice"),
        unrealized_pnl=decimal(told, "unRealizedProfit"),
        liquidation_price=decimal(told, "liquidationPrice", ZERO),
        position_side=text(told, "positionSide", "BOTH"),
        update_time_ms=integer(told, "updateTime", 0),
    )


def income(told: JsonObject) -> Income:
    """Read a line of the futures income history."""
    number = told.get("tranId")
    return Income(
        income_type=text(told, "incomeType"),
        asset=text(told, "asset"),
        amount=decimal(told, "income"),
        time_ms=integer(told, "time"),
        # Binance sends a number here on some lines and a string on others.
        transaction_id=int(number) if isinstance(number, str) and number.isdigit() else integer(told, "tranId"),
        symbol=text(told, "symbol", ""),
        trade_id=str(told.get("tradeId") or ""),
        info=text(told, "info", ""),
    )


def objects(told: JsonObject, name: str) -> list[JsonObject]:
    """Return a field that is a list of objects."""
    value = told.get(name)
    if not isinstance(value, list):
        raise AnswerShapeError(f"{name}: expected a list, got {value!r:.80}")
    return [_object(item) for item in value]


def text(told: JsonObject, name: str, default: str | None = None) -> str:
    """Return a string field; `default` if it is missing or null."""
    value = told.get(name)
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise AnswerShapeError(f"{name}: expected a string, got {value!r:.80}")
    return value


def integer(told: JsonObject, name: str, default: int | None = None) -> int:
    """Return an integer field; `default` if it is missing or null. A string of digits is not an integer."""
    value = told.get(name)
    if value is None and default is not None:
        return default
    if not isinstance(value, int) or isinstance(value, bool):
        raise AnswerShapeError(f"{name}: expected an integer, got {value!r:.80}")
    return value


def decimal(told: JsonObject, name: str, default: Decimal | None = None) -> Decimal:
    """Return an exact number field, sent as a string or as a JSON number; `default` if it is missing, null or empty."""
    value = told.get(name)
    if value in (None, "") and default is not None:
        return default
    if isinstance(value, str):
        plain = value
    elif isinstance(value, int | Decimal) and not isinstance(value, bool):
        plain = format(value, "f") if isinstance(value, Decimal) else str(value)
    else:
        raise AnswerShapeError(f"{name}: expected a number, got {value!r:.80}")
    try:
        return parse(plain)
    except ValueError as error:
        raise AnswerShapeError(f"{name}: {error}") from error


def flag(told: JsonObject, name: str, *, needed: bool = False) -> bool:
    """Return a boolean field; false if it is missing and not `needed`."""
    value = told.get(name)
    if value is None and not needed:
        return False
    if not isinstance(value, bool):
        raise AnswerShapeError(f"{name}: expected true or false, got {value!r:.80}")
    return value


def _object(value: object) -> JsonObject:
    if not isinstance(value, dict):
        raise AnswerShapeError(f"expected a JSON object, got {value!r:.80}")
    return value
