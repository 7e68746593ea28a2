"""The ground truth: everything the exchange accepted, for checkers. Not part of Binance's interface."""

from __future__ import annotations

from typing import Any

from app.exchange.paper.exchange import Exchange
from app.exchange.paper.model import ZERO, LedgerEntry, Venue, text
from app.exchange.paper.shapes import truth_order, truth_trade


def summary(exchange: Exchange) -> dict[str, Any]:
    """Counts and balances only; cheap enough to poll."""
    futures, spot = exchange.futures, exchange.spot
    counts = {
        venue.value: {
            "orders": sum(len(store.orders.items) for store in stores.values()),
            "open_orders": sum(len(store.open) for store in stores.values()),
            "trades": sum(len(store.trades.items) for store in stores.values()),
            "client_order_ids": sum(len(store.accepted_count) for store in stores.values()),
            "duplicated_client_order_ids": sum(
                1 for store in stores.values() for count in store.accepted_count.values() if count > 1
            ),
        }
        for venue, stores in ((Venue.FUTURES, futures.stores), (Venue.SPOT, spot.stores))
    }
    return {
        **counts,
        "algo_orders": len(exchange.algos.algos.items),
        "open_algo_orders": len(exchange.algos.open),
        "commands": exchange.commands,
        "steps": exchange.market.steps,
        "offset_ms": exchange.offset_ms,
        "futures_wallet": text(futures.wallet),
        "positions": {symbol: text(one.amount) for symbol, one in futures.positions.items() if one.amount},
        "spot_balances": {asset: text(one.total) for asset, one in spot.balances.items()},
    }


def whole(exchange: Exchange) -> dict[str, Any]:
    """Every order, trade, ledger entry, balance and position."""
    futures, spot = exchange.futures, exchange.spot
    orders: list[dict[str, Any]] = []
    trades: list[dict[str, Any]] = []
    accepted: dict[str, dict[str, dict[str, int]]] = {}
    for venue, stores in ((Venue.FUTURES, futures.stores), (Venue.SPOT, spot.stores)):
        accepted[venue.value] = {symbol: store.accepted_count for symbol, store in stores.items()}
        for store in stores.values():
            orders.extend(truth_order(order, venue) for order in store.orders.items)
            trades.extend(truth_trade(trade, venue) for trade in store.trades.items)
    return {
        "summary": summary(exchange),
        "orders": orders,
        "trades": trades,
        "accepted_by_client_order_id": accepted,
        "accepted_by_client_algo_id": exchange.algos.accepted_count,
        "algo_orders": [
            {
                "algo_id": algo.algo_id,
                "client_algo_id": algo.command.client_algo_id,
                "symbol": algo.command.symbol,
                "side": algo.command.side,
                "type": algo.command.type,
                "status": algo.shown_status.value,
                "order_id": algo.order.order_id if algo.order is not None else None,
                "accepted_ms": algo.time_ms,
            }
            for algo in exchange.algos.algos.items
        ],
        "positions": {
            symbol: {"amount": text(one.amount), "entry_price": text(one.entry), "leverage": one.leverage}
            for symbol, one in futures.positions.items()
        },
        "futures_deposits": text(futures.deposits),
        "futures_ledger": [_entry(entry) for entry in futures.ledger.items],
        "spot_deposits": {asset: text(amount) for asset, amount in spot.deposits.items()},
        "spot_balances": {
            asset: {"free": text(one.free), "locked": text(one.locked)} for asset, one in spot.balances.items()
        },
        "spot_ledger": [_entry(entry) for ledger in spot.ledgers.values() for entry in ledger.items],
        "prices": {symbol: text(price) for symbol, price in exchange.market.prices.items()},
        "unrealized_profit": text(futures.unrealized_total() or ZERO),
    }


def _entry(entry: LedgerEntry) -> dict[str, Any]:
    return {
        "tran_id": entry.tran_id,
        "kind": entry.kind,
        "asset": entry.asset,
        "amount": text(entry.amount),
        "symbol": entry.symbol,
        "trade_id": entry.trade_id or None,
        "time_ms": entry.time_ms,
    }
