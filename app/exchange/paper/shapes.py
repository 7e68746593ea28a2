"""Reply shapes of both venues: decimals as strings, times in milliseconds.

Source: the "response" examples of Binance's endpoint documentation.
"""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

from app.exchange.paper.model import ZERO, Order, Status, Trade, Venue, text

Shape = dict[str, Any]
_AVERAGE_PLACES = Decimal("0.00000001")


def _seen(order: Order, seen_until_ms: int) -> tuple[Decimal, Decimal, Status]:
    """Executed quantity, quote and status as they were at ``seen_until_ms``."""
    if order.update_ms <= seen_until_ms:
        return order.executed, order.executed_quote, order.status
    trades = [trade for trade in order.trades if trade.time_ms <= seen_until_ms]
    executed = sum((trade.quantity for trade in trades), ZERO)
    quote = sum((trade.price * trade.quantity for trade in trades), ZERO)
    return executed, quote, Status.PARTIALLY_FILLED if trades else Status.NEW


def futures_order(order: Order, seen_until_ms: int, *, with_time: bool = True) -> Shape:
    """A futures order as GET order and allOrders show it; the reply to POST lacks ``time``."""
    executed, quote, status = _seen(order, seen_until_ms)
    average = (quote / executed).quantize(_AVERAGE_PLACES, rounding=ROUND_HALF_EVEN) if executed else ZERO
    shape: Shape = {
        "orderId": order.order_id,
        "symbol": order.symbol,
        "status": status.value,
        "clientOrderId": order.client_order_id,
        "price": text(order.price),
        "avgPrice": text(average) if executed else "0.00",
        "origQty": text(order.quantity),
        "executedQty": text(executed),
        "cumQty": text(executed),
        "cumQuote": text(quote),
        "timeInForce": order.time_in_force,
        "type": order.type,
        "reduceOnly": order.reduce_only,
        "closePosition": False,
        "side": order.side,
        "positionSide": "BOTH",
        "stopPrice": "0",
        "workingType": "CONTRACT_PRICE",
        "priceProtect": False,
        "origType": order.orig_type,
        "priceMatch": "NONE",
        "selfTradePreventionMode": "EXPIRE_MAKER",
        "goodTillDate": 0,
        "updateTime": min(order.update_ms, max(seen_until_ms, order.time_ms)),
    }
    if with_time:
        del shape["cumQty"]
        shape["time"] = order.time_ms
    return shape


def futures_ack(order: Order) -> Shape:
    """The ACK reply to a futures order: as accepted, before any execution."""
    shape = futures_order(order, order.time_ms - 1, with_time=False)
    shape["updateTime"] = order.time_ms
    return shape


def futures_trade(trade: Trade, quote_asset: str = "USDT") -> Shape:
    """One row of userTrades; it names no client order id, as at Binance."""
    return {
        "symbol": trade.symbol,
        "id": trade.trade_id,
        "orderId": trade.order_id,
        "side": trade.side,
        "price": text(trade.price),
        "qty": text(trade.quantity),
        "realizedPnl": text(trade.realized_pnl),
        "quoteQty": text(trade.price * trade.quantity),
        "commission": text(trade.fee),
        "commissionAsset": trade.fee_asset,
        "marginAsset": quote_asset,
        "time": trade.time_ms,
        "positionSide": "BOTH",
        "buyer": trade.side == "BUY",
        "maker": trade.is_maker,
    }


def spot_order(order: Order, seen_until_ms: int) -> Shape:
    """A Spot order as GET order and allOrders show it."""
    executed, quote, status = _seen(order, seen_until_ms)
    return {
        "symbol": order.symbol,
        "orderId": order.order_id,
        "orderListId": -1,
        "clientOrderId": order.client_order_id,
        "price": text(order.price),
        "origQty": text(order.quantity),
        "executedQty": text(executed),
        "cummulativeQuoteQty": text(quote),
        "status": status.value,
        "timeInForce": order.time_in_force,
        "type": order.type,
        "side": order.side,
        "stopPrice": "0.00000000",
        "icebergQty": "0.00000000",
        "time": order.time_ms,
        "updateTime": min(order.update_ms, max(seen_until_ms, order.time_ms)),
        "isWorking": True,
        "workingTime": order.time_ms,
        "origQuoteOrderQty": text(order.quote_quantity),
        "selfTradePreventionMode": "EXPIRE_MAKER",
    }


def spot_reply(order: Order, response_type: str) -> Shape:
    """The reply to a Spot order: ACK, RESULT or FULL."""
    shape: Shape = {
        "symbol": order.symbol,
        "orderId": order.order_id,
        "orderListId": -1,
        "clientOrderId": order.client_order_id,
        "transactTime": order.time_ms,
    }
    if response_type == "ACK":
        return shape
    shape |= {
        "price": text(order.price),
        "origQty": text(order.quantity),
        "executedQty": text(order.executed),
        "origQuoteOrderQty": text(order.quote_quantity),
        "cummulativeQuoteQty": text(order.executed_quote),
        "status": order.status.value,
        "timeInForce": order.time_in_force,
        "type": order.type,
        "side": order.side,
        "workingTime": order.time_ms,
        "selfTradePreventionMode": "EXPIRE_MAKER",
    }
    if response_type == "FULL":
        shape["fills"] = [
            {
                "price": text(trade.price),
                "qty": text(trade.quantity),
                "commission": text(trade.fee),
                "commissionAsset": trade.fee_asset,
                "tradeId": trade.trade_id,
            }
            for trade in order.trades
        ]
    return shape


def spot_trade(trade: Trade) -> Shape:
    """One row of myTrades."""
    return {
        "symbol": trade.symbol,
        "id": trade.trade_id,
        "orderId": trade.order_id,
        "orderListId": -1,
        "price": text(trade.price),
        "qty": text(trade.quantity),
        "quoteQty": text(trade.price * trade.quantity),
        "commission": text(trade.fee),
        "commissionAsset": trade.fee_asset,
        "time": trade.time_ms,
        "isBuyer": trade.side == "BUY",
        "isMaker": trade.is_maker,
        "isBestMatch": True,
    }


def truth_order(order: Order, venue: Venue) -> Shape:
    """An order for the ground truth."""
    return {
        "venue": venue.value,
        "symbol": order.symbol,
        "order_id": order.order_id,
        "client_order_id": order.placed_client_order_id,
        "client_order_id_now": order.client_order_id,
        "side": order.side,
        "type": order.type,
        "time_in_force": order.time_in_force,
        "price": text(order.price),
        "quantity": text(order.quantity),
        "executed": text(order.executed),
        "status": order.status.value,
        "reduce_only": order.reduce_only,
        "algo_id": order.algo_id or None,
        "accepted_ms": order.time_ms,
    }


def truth_trade(trade: Trade, venue: Venue) -> Shape:
    """A trade for the ground truth."""
    return {
        "venue": venue.value,
        "symbol": trade.symbol,
        "trade_id": trade.trade_id,
        "order_id": trade.order_id,
        "client_order_id": trade.client_order_id,
        "side": trade.side,
        "price": text(trade.price),
        "quantity": text(trade.quantity),
        "fee": text(trade.fee),
        "fee_asset": trade.fee_asset,
        "is_maker": trade.is_maker,
        "realized_pnl": text(trade.realized_pnl),
        "time_ms": trade.time_ms,
    }
