"""Public data of both venues: time, rules, prices, book, candles."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from app.exchange.paper import params as p
from app.exchange.paper.book import best_price, level_quantity
from app.exchange.paper.errors import PaperError, invalid_symbol
from app.exchange.paper.exchange import Exchange
from app.exchange.paper.exchange_info import exchange_info
from app.exchange.paper.futures import FuturesEngine
from app.exchange.paper.gateway import Call, Route, Routes
from app.exchange.paper.limits import LimitProfile
from app.exchange.paper.market import MINUTE_MS, Candle
from app.exchange.paper.model import Venue, text
from app.exchange.paper.spot import SpotEngine

_FUNDING_MS = 8 * 60 * MINUTE_MS
_MINUTES = {
    "1m": 1, "3m": 3, "5m": 5, "15m": 15, "30m": 30, "1h": 60, "2h": 120, "4h": 240, "6h": 360, "8h": 480, "12h": 720,
    "1d": 1440,
}  # fmt: skip
_BOTTOMLESS = Decimal(1_000_000)


class MarketData:
    """Handlers of one venue's public endpoints."""

    def __init__(self, exchange: Exchange, venue: Venue, limits: LimitProfile) -> None:
        self._market = exchange.market
        self._engine: FuturesEngine | SpotEngine = exchange.futures if venue is Venue.FUTURES else exchange.spot
        self._venue = venue
        self._limits = limits

    def routes(self) -> Routes:
        """Method and path to handler."""
        rows = {
            "ping": (lambda _: {}, 1),
            "time": (lambda call: {"serverTime": call.now_ms}, 1),
            "exchangeInfo": (self.exchange_info, 1 if self._venue is Venue.FUTURES else 20),
            "ticker/price": (self.ticker_price, 1 if self._venue is Venue.FUTURES else 2),
            "ticker/bookTicker": (self.book_ticker, 2),
            "depth": (self.depth, 5),
            "klines": (self.klines, 2),
        }
        prefixes = ["/api/v3/"]
        if self._venue is Venue.FUTURES:
            rows["premiumIndex"] = (self.premium_index, 1)
            prefixes = ["/fapi/v1/"]
        routes = {
            ("GET", prefix + name): Route(venue=self._venue, handle=handle, weight=weight, is_signed=False)
            for prefix in prefixes
            for name, (handle, weight) in rows.items()
        }
        if self._venue is Venue.FUTURES:
            for name in ("ticker/price",):
                routes["GET", "/fapi/v2/" + name] = routes["GET", "/fapi/v1/" + name]
        return routes

    def _symbols(self, call: Call) -> tuple[list[str], bool]:
        """The symbols asked for, and whether it was one by name (the reply is then no list)."""
        symbol = call.params.get("symbol")
        if not symbol:
            return list(self._engine.specs), False
        if symbol not in self._engine.specs:
            raise invalid_symbol()
        return [symbol], True

    def exchange_info(self, call: Call) -> dict[str, Any]:
        """Symbols, filters and rate limits."""
        symbols, _ = self._symbols(call)
        specs = [self._engine.specs[symbol] for symbol in symbols]
        return exchange_info(self._venue, specs, self._limits, call.now_ms)

    def ticker_price(self, call: Call) -> Any:
        """Last price."""
        symbols, is_single = self._symbols(call)
        rows = [{"symbol": one, "price": text(self._engine.last(one)), "time": call.now_ms} for one in symbols]
        if self._venue is Venue.SPOT:
            for row in rows:
                del row["time"]
        return rows[0] if is_single else rows

    def book_ticker(self, call: Call) -> Any:
        """Best bid and ask."""
        symbols, is_single = self._symbols(call)
        rows = [self._best(symbol, call.now_ms) for symbol in symbols]
        return rows[0] if is_single else rows

    def _best(self, symbol: str, now_ms: int) -> dict[str, Any]:
        bids, asks = self._levels(symbol, "SELL", 1), self._levels(symbol, "BUY", 1)
        row: dict[str, Any] = {
            "symbol": symbol,
            "bidPrice": bids[0][0],
            "bidQty": bids[0][1],
            "askPrice": asks[0][0],
            "askQty": asks[0][1],
        }
        if self._venue is Venue.FUTURES:
            row |= {"time": now_ms, "lastUpdateId": now_ms}
        return row

    def _levels(self, symbol: str, taker_side: str, count: int) -> list[list[str]]:
        spec, shape = self._engine.specs[symbol], self._engine.shape
        price = best_price(spec, self._engine.last(symbol), taker_side)
        gap = spec.tick * shape.gap_ticks * (1 if taker_side == "BUY" else -1)
        rows: list[list[str]] = []
        for _ in range(min(count, shape.levels)):
            if price <= 0:
                break
            quantity = level_quantity(spec, price, shape)
            rows.append([text(price), text(quantity if quantity is not None else _BOTTOMLESS)])
            price += gap
        return rows

    def depth(self, call: Call) -> dict[str, Any]:
        """The synthetic book, best prices first."""
        symbol = p.required(call.params, "symbol")
        if symbol not in self._engine.specs:
            raise invalid_symbol()
        count = p.limit(call.params, 100, 1000)
        body: dict[str, Any] = {"lastUpdateId": call.now_ms}
        if self._venue is Venue.FUTURES:
            body |= {"E": call.now_ms, "T": call.now_ms}
        return body | {"bids": self._levels(symbol, "SELL", count), "asks": self._levels(symbol, "BUY", count)}

    def premium_index(self, call: Call) -> Any:
        """Mark price and funding. The mark price is the last price."""
        symbols, is_single = self._symbols(call)
        rows = []
        for symbol in symbols:
            mark = text(self._engine.last(symbol))
            rows.append(
                {
                    "symbol": symbol,
                    "markPrice": mark,
                    "indexPrice": mark,
                    "estimatedSettlePrice": mark,
                    "lastFundingRate": "0.00010000",
                    "interestRate": "0.00010000",
                    "nextFundingTime": (call.now_ms // _FUNDING_MS + 1) * _FUNDING_MS,
                    "time": call.now_ms,
                }
            )
        return rows[0] if is_single else rows

    def klines(self, call: Call) -> list[list[Any]]:
        """Candles in the market's own time, which a speed other than real time moves away from the clock's."""
        symbol = p.required(call.params, "symbol")
        if symbol not in self._engine.specs:
            raise invalid_symbol()
        minutes = _MINUTES.get(p.required(call.params, "interval"))
        if minutes is None:
            raise PaperError(-1120, "Invalid interval.")
        limit = p.limit(call.params, 500, 1000)
        start, end = p.integer(call.params, "startTime"), p.integer(call.params, "endTime")
        rows = [
            row
            for row in _merged(list(self._market.candles[symbol]), minutes * MINUTE_MS)
            if (start is None or row.open_ms >= start) and (end is None or row.open_ms <= end)
        ]
        rows = rows[:limit] if start is not None else rows[-limit:]
        return [_kline(row, minutes * MINUTE_MS) for row in rows]


def _merged(candles: list[Candle], span_ms: int) -> list[Candle]:
    """One-minute candles put together into longer ones."""
    if span_ms == MINUTE_MS:
        return candles
    merged: list[Candle] = []
    for one in candles:
        opened = one.open_ms // span_ms * span_ms
        if merged and merged[-1].open_ms == opened:
            now = merged[-1]
            merged[-1] = Candle(
                open_ms=opened,
                open=now.open,
                high=max(now.high, one.high),
                low=min(now.low, one.low),
                close=one.close,
                volume=now.volume + one.volume,
            )
        else:
            merged.append(
                Candle(open_ms=opened, open=one.open, high=one.high, low=one.low, close=one.close, volume=one.volume)
            )
    return merged


def _kline(candle: Candle, span_ms: int) -> list[Any]:
    quote = text(candle.volume * candle.close)
    return [
        candle.open_ms,
        text(candle.open),
        text(candle.high),
        text(candle.low),
        text(candle.close),
        text(candle.volume),
        candle.open_ms + span_ms - 1,
        quote,
        100,
        text(candle.volume / 2),
        text(candle.volume * candle.close / 2),
        "0",
    ]
