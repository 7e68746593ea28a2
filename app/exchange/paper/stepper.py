"""Moves the market candle by candle: from a seed, or for one symbol from a file."""

from __future__ import annotations

from collections.abc import Callable

from app.exchange.paper.commands import Candles
from app.exchange.paper.exchange import Exchange
from app.exchange.paper.market import MINUTE_MS, Candle, FileCandles, SeededCandles
from app.exchange.paper.model import text


class Stepper:
    """Feeds candles to the exchange. Where it stands is the exchange's step count, so a restart goes on from there."""

    def __init__(self, exchange: Exchange, now_ms: Callable[[], int], seed: int, files: dict[str, FileCandles]) -> None:
        self._exchange = exchange
        self._now_ms = now_ms
        self._seeded = SeededCandles(seed)
        self._files = files

    def step(self, first_open_ms: int | None = None) -> None:
        """Let every symbol trade through its next candle; the very first one opens at ``first_open_ms`` or now."""
        now_ms = self._now_ms()
        opened_ms = (first_open_ms if first_open_ms is not None else now_ms) // MINUTE_MS * MINUTE_MS
        rows: dict[str, list[str]] = {}
        for symbol in self._exchange.market.prices:
            candle = self._next(symbol, opened_ms)
            if candle is not None:
                figures = (candle.open, candle.high, candle.low, candle.close, candle.volume)
                rows[symbol] = [str(candle.open_ms), *map(text, figures)]
        self._exchange.execute(Candles(at=now_ms, rows=rows))

    def prepare(self, history: int) -> None:
        """On a new exchange: trade through ``history`` candles, so that there is a past to look at."""
        first_open_ms = self._now_ms() - history * MINUTE_MS
        for _ in range(history):
            self.step(first_open_ms)

    def _next(self, symbol: str, first_open_ms: int) -> Candle | None:
        source = self._files.get(symbol)
        if source is not None:
            return source.next()
        market = self._exchange.market
        kept = market.candles[symbol]
        open_ms = kept[-1].open_ms + MINUTE_MS if kept else first_open_ms
        return self._seeded.candle(symbol, market.steps, open_ms, market.prices[symbol])
