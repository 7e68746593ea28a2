"""Queries that both venues share: finding one order, paging through orders and trades, horizons."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from app.exchange.paper import params as p
from app.exchange.paper.errors import PaperError, invalid_symbol, missing
from app.exchange.paper.gateway import FOREVER_MS, Call
from app.exchange.paper.model import UNFILLED_END, Order, Trade
from app.exchange.paper.orders import OrderStore

DAY_MS = 86_400_000
UNFILLED_HORIZON_MS = 3 * DAY_MS
HORIZON_MS = 90 * DAY_MS
Row = TypeVar("Row")
TooLong = Callable[[], PaperError]


def store_of(stores: dict[str, OrderStore], params: p.Params) -> OrderStore:
    """The store of the request's symbol.

    Raises:
        PaperError: -1102 or -1121.
    """
    found = stores.get(p.required(params, "symbol"))
    if found is None:
        raise invalid_symbol()
    return found


def find_order(store: OrderStore, params: p.Params) -> Order | None:
    """The order that ``orderId`` or ``origClientOrderId`` names; both given, both must fit.

    Raises:
        PaperError: -1102 if neither was sent.
    """
    order_id = p.integer(params, "orderId")
    client_id = params.get("origClientOrderId")
    if order_id is None:
        if not client_id:
            raise missing("origClientOrderId")
        return store.with_client_id(client_id)
    order = store.by_id.get(order_id)
    return None if order is not None and client_id and order.client_order_id != client_id else order


def is_forgotten(order: Order, now_ms: int) -> bool:
    """Futures purge: unfilled ends after 3 days, everything closed after 90."""
    age_ms = now_ms - order.time_ms
    if order.is_open:
        return False
    return age_ms > HORIZON_MS or (age_ms > UNFILLED_HORIZON_MS and order.status in UNFILLED_END and not order.executed)


def window(call: Call, longest_ms: int, too_long: TooLong) -> tuple[int | None, int]:
    """Start and end of a query; without an end, the longest window from the start; without both, no bounds.

    Raises:
        PaperError: What ``too_long`` makes if the window is too long, -1128 if it is backwards.
    """
    start = p.integer(call.params, "startTime")
    end = p.integer(call.params, "endTime")
    if start is not None and end is not None:
        if end < start:
            raise PaperError(-1128, "Combination of optional parameters invalid.")
        if end - start > longest_ms:
            raise too_long()
    if start is None and end is not None:
        return end - longest_ms, end
    if start is not None and end is None:
        return start, start + longest_ms
    return start, end if end is not None else FOREVER_MS


def page(rows: Sequence[Row], limit: int, *, oldest_first: bool) -> list[Row]:
    """The first ``limit`` rows from a given start, or the newest ``limit``; ascending either way."""
    return list(rows[:limit]) if oldest_first else list(rows[-limit:])


def orders_page(call: Call, store: OrderStore, longest_ms: int, too_long: TooLong, default_span_ms: int) -> list[Order]:
    """What allOrders shows of one symbol.

    Raises:
        PaperError: As `window` and `params.limit`.
    """
    limit = p.limit(call.params, 500, 1000)
    from_id = p.integer(call.params, "orderId")
    start, end = window(call, longest_ms, too_long)
    if from_id is not None:
        rows = store.orders_from(from_id)
        return page(_seen(rows, call), limit, oldest_first=True)
    has_window = start is not None
    rows = store.orders.between(start if start is not None else call.now_ms - default_span_ms, end)
    return page(_seen(rows, call), limit, oldest_first=has_window)


def _seen(rows: list[Order], call: Call) -> list[Order]:
    if not call.strike.read_lag_ms:
        return rows
    return [order for order in rows if order.time_ms <= call.seen_until_ms]


def trades_page(call: Call, store: OrderStore, longest_ms: int, too_long: TooLong, default_span_ms: int) -> list[Trade]:
    """What userTrades and myTrades show of one symbol.

    Raises:
        PaperError: -1128 if fromId comes with times; as `window` and `params.limit`.
    """
    limit = p.limit(call.params, 500, 1000)
    from_id = p.integer(call.params, "fromId")
    order_id = p.integer(call.params, "orderId")
    start, end = window(call, longest_ms, too_long)
    has_times = "startTime" in call.params or "endTime" in call.params
    if from_id is not None and has_times:
        raise PaperError(-1128, "Combination of optional parameters invalid.")
    if order_id is not None:
        order = store.by_id.get(order_id)
        rows = list(order.trades) if order is not None else []
        if has_times:
            rows = [trade for trade in rows if (start or 0) <= trade.time_ms <= end]
    elif from_id is not None:
        rows = store.trades_from(from_id)
    else:
        rows = store.trades.between(start if start is not None else call.now_ms - default_span_ms, end)
    if from_id is not None and order_id is not None:
        rows = [trade for trade in rows if trade.trade_id >= from_id]
    if call.strike.read_lag_ms:
        rows = [trade for trade in rows if trade.time_ms <= call.seen_until_ms]
    return page(rows, limit, oldest_first=from_id is not None or has_times)
