"""USD-M futures: account, balances, positions, income, order counts."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

from app.exchange.paper import params as p
from app.exchange.paper.errors import PaperError
from app.exchange.paper.exchange import Exchange
from app.exchange.paper.gateway import Call, Route, Routes
from app.exchange.paper.limits import RateLimiter
from app.exchange.paper.model import ZERO, Venue, text
from app.exchange.paper.queries import DAY_MS, window

_SHOWN = Decimal("0.00000001")
_MAINTENANCE_RATE = Decimal("0.004")
_INCOME_TYPES = frozenset({"REALIZED_PNL", "COMMISSION", "FUNDING_FEE", "TRANSFER"})
_INCOME_SPAN_MS = 7 * DAY_MS
_INCOME_HORIZON_MS = 90 * DAY_MS


def _too_long() -> PaperError:
    return PaperError(-1127, "Lookup interval is too big.")


def _shown(value: Decimal) -> str:
    """Derived figures (margins) are shown with 8 places; wallet and profit stay exact."""
    return text(value.quantize(_SHOWN, rounding=ROUND_HALF_EVEN))


class FuturesAccount:
    """Handlers of the account endpoints."""

    def __init__(self, exchange: Exchange, limiter: RateLimiter) -> None:
        self._engine = exchange.futures
        self._limiter = limiter

    def routes(self) -> Routes:
        """Method and path to handler, with the documented request weights."""
        rows = {
            "/fapi/v2/account": (lambda call: self.account(call, with_idle=True), 5),
            "/fapi/v3/account": (lambda call: self.account(call, with_idle=False), 5),
            "/fapi/v2/balance": (self.balance, 5),
            "/fapi/v3/balance": (self.balance, 5),
            "/fapi/v2/positionRisk": (lambda call: self.positions(call, with_idle=True), 5),
            "/fapi/v3/positionRisk": (lambda call: self.positions(call, with_idle=False), 5),
            "/fapi/v1/income": (self.income, 30),
            "/fapi/v1/rateLimit/order": (self.order_counts, 1),
        }
        return {
            ("GET", path): Route(venue=Venue.FUTURES, handle=handle, weight=weight)
            for path, (handle, weight) in rows.items()
        }

    def _position(self, symbol: str, seen_until_ms: int) -> tuple[Decimal, Decimal]:
        """Amount and entry price as they were at ``seen_until_ms``."""
        position = self._engine.positions[symbol]
        if position.update_ms <= seen_until_ms:
            return position.amount, position.entry
        trade = self._engine.stores[symbol].trades.last_at(seen_until_ms)
        return (trade.position_after, trade.entry_after) if trade is not None else (ZERO, ZERO)

    def _wallet(self, seen_until_ms: int) -> Decimal:
        entry = self._engine.ledger.last_at(seen_until_ms)
        return entry.balance_after if entry is not None else ZERO

    def _row(self, symbol: str, call: Call) -> dict[str, Any]:
        engine = self._engine
        amount, entry = self._position(symbol, call.seen_until_ms)
        position = engine.positions[symbol]
        mark = engine.last(symbol)
        notional = amount * mark
        margin = abs(notional) / position.leverage
        total = position.margin(mark)
        return {
            "symbol": symbol,
            "positionSide": "BOTH",
            "positionAmt": text(amount),
            "entryPrice": text(entry),
            "breakEvenPrice": text(entry),
            "markPrice": text(mark),
            "unRealizedProfit": text((mark - entry) * amount if amount else ZERO),
            "unrealizedProfit": text((mark - entry) * amount if amount else ZERO),
            "liquidationPrice": "0",
            "isolatedMargin": "0",
            "notional": text(notional),
            "marginAsset": "USDT",
            "isolatedWallet": "0",
            "initialMargin": _shown(total),
            "maintMargin": _shown(abs(notional) * _MAINTENANCE_RATE),
            "positionInitialMargin": _shown(margin),
            "openOrderInitialMargin": _shown(max(total - margin, ZERO)),
            "leverage": str(position.leverage),
            "marginType": "cross",
            "isolated": False,
            "isAutoAddMargin": "false",
            "maxNotionalValue": "1000000000",
            "adl": 1,
            "bidNotional": text(position.open_buys),
            "askNotional": text(position.open_sells),
            "updateTime": min(position.update_ms, call.seen_until_ms),
        }

    def _rows(self, call: Call, *, with_idle: bool) -> list[dict[str, Any]]:
        symbols = self._engine.specs
        wanted = call.params.get("symbol")
        if wanted:
            if wanted not in symbols:
                raise PaperError(-1121, "Invalid symbol.")
            symbols = {wanted: symbols[wanted]}
        return [
            self._row(symbol, call)
            for symbol in symbols
            if with_idle or self._position(symbol, call.seen_until_ms)[0] or self._engine.stores[symbol].open
        ]

    def positions(self, call: Call, *, with_idle: bool) -> list[dict[str, Any]]:
        """Position risk: version 2 lists every symbol, version 3 those with a position or open orders."""
        return self._rows(call, with_idle=with_idle)

    def _totals(self, call: Call) -> tuple[Decimal, Decimal, Decimal, Decimal]:
        engine = self._engine
        wallet = self._wallet(call.seen_until_ms)
        profit = ZERO
        for symbol in engine.positions:
            amount, entry = self._position(symbol, call.seen_until_ms)
            if amount:
                profit += (engine.last(symbol) - entry) * amount
        margin = engine.margin_total()
        return wallet, profit, margin, max(wallet + profit - margin, ZERO)

    def account(self, call: Call, *, with_idle: bool) -> dict[str, Any]:
        """Account information with assets and positions."""
        wallet, profit, margin, available = self._totals(call)
        rows = self._rows(call, with_idle=with_idle)
        maintenance = sum((Decimal(row["maintMargin"]) for row in rows), ZERO)
        position_margin = sum((Decimal(row["positionInitialMargin"]) for row in rows), ZERO)
        totals = {
            "InitialMargin": _shown(margin),
            "MaintMargin": _shown(maintenance),
            "WalletBalance": text(wallet),
            "UnrealizedProfit": text(profit),
            "MarginBalance": text(wallet + profit),
            "PositionInitialMargin": _shown(position_margin),
            "OpenOrderInitialMargin": _shown(max(margin - position_margin, ZERO)),
            "CrossWalletBalance": text(wallet),
            "CrossUnPnl": text(profit),
        }
        asset: dict[str, Any] = {"asset": "USDT"}
        asset |= {name[0].lower() + name[1:]: value for name, value in totals.items()}
        asset |= {
            "availableBalance": _shown(available),
            "maxWithdrawAmount": _shown(min(available, wallet)),
            "marginAvailable": True,
            "updateTime": min(call.seen_until_ms, call.now_ms),
        }
        return {
            "feeTier": 0,
            "canTrade": True,
            "canDeposit": True,
            "canWithdraw": True,
            "updateTime": 0,
            "multiAssetsMargin": False,
            **{f"total{name}": value for name, value in totals.items()},
            "availableBalance": _shown(available),
            "maxWithdrawAmount": _shown(min(available, wallet)),
            "assets": [asset],
            "positions": rows,
        }

    def balance(self, call: Call) -> list[dict[str, Any]]:
        """Wallet balance."""
        wallet, profit, _, available = self._totals(call)
        return [
            {
                "accountAlias": "paper",
                "asset": "USDT",
                "balance": text(wallet),
                "crossWalletBalance": text(wallet),
                "crossUnPnl": text(profit),
                "availableBalance": _shown(available),
                "maxWithdrawAmount": _shown(min(available, wallet)),
                "marginAvailable": True,
                "updateTime": min(call.seen_until_ms, call.now_ms),
            }
        ]

    def income(self, call: Call) -> list[dict[str, Any]]:
        """Every movement of the wallet, oldest first. ``tranId`` is unique."""
        kind = call.params.get("incomeType")
        if kind and kind not in _INCOME_TYPES:
            return []
        limit = p.limit(call.params, 100, 1000)
        number = p.integer(call.params, "page") or 1
        symbol = call.params.get("symbol")
        start, end = window(call, _INCOME_HORIZON_MS, _too_long)
        if start is None:
            start = call.now_ms - _INCOME_SPAN_MS
        rows = [
            entry
            for entry in self._engine.ledger.between(max(start, call.now_ms - _INCOME_HORIZON_MS), end)
            if (not kind or entry.kind == kind)
            and (not symbol or entry.symbol == symbol)
            and entry.time_ms <= call.seen_until_ms
        ]
        return [
            {
                "symbol": entry.symbol,
                "incomeType": entry.kind,
                "income": text(entry.amount),
                "asset": entry.asset,
                "info": entry.info,
                "time": entry.time_ms,
                "tranId": entry.tran_id,
                "tradeId": str(entry.trade_id) if entry.trade_id else "",
            }
            for entry in rows[(number - 1) * limit : number * limit]
        ]

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
