"""Prices: candles from a seed or a file, and the last price of each symbol, which both venues share."""

from __future__ import annotations

import csv
import gzip
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path
from random import Random

MINUTE_MS = 60_000
CANDLES_KEPT = 1500
_PRICE_PLACES = Decimal("0.0001")
# A step of the random walk, in millionths of the price: about 0.05 % a minute.
_STEP_PPM = 900
_MICROSECONDS_FROM = 10**14


@dataclass(frozen=True, slots=True, kw_only=True)
class Candle:
    """One minute of trading. Times in milliseconds, prices in quote units, volume in base units."""

    open_ms: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal

    @property
    def path(self) -> tuple[Decimal, ...]:
        """The prices the market visits, in order: against the candle's direction first."""
        if self.close >= self.open:
            return (self.open, self.low, self.high, self.close)
        return (self.open, self.high, self.low, self.close)


class Market:
    """Last prices and recent candles. Changed by commands only, so that a replay ends at the same prices."""

    def __init__(self, prices: dict[str, Decimal]) -> None:
        self.prices = dict(prices)
        self.candles: dict[str, deque[Candle]] = {symbol: deque(maxlen=CANDLES_KEPT) for symbol in prices}
        self.steps = 0

    def add_candle(self, symbol: str, candle: Candle) -> None:
        """Append a whole candle; the last price is left to the caller, who walks the candle's path."""
        self.candles[symbol].append(candle)

    def set_price(self, symbol: str, price: Decimal) -> None:
        """Trade at ``price``: it becomes the last price and stretches the current candle."""
        self.prices[symbol] = price
        kept = self.candles[symbol]
        if kept:
            now = kept[-1]
            if now.low <= price <= now.high and now.close == price:
                return
            kept[-1] = Candle(
                open_ms=now.open_ms,
                open=now.open,
                high=max(now.high, price),
                low=min(now.low, price),
                close=price,
                volume=now.volume,
            )


class SeededCandles:
    """A random walk that depends on nothing but the seed, the symbol, the index and the last price."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def candle(self, symbol: str, index: int, open_ms: int, last: Decimal) -> Candle:
        """The candle with this index."""
        random = Random(f"{self._seed}:{symbol}:{index}")  # noqa: S311  deterministic prices, not a secret
        visited = [last]
        for _ in range(4):
            step = Decimal(1_000_000 + random.randint(-_STEP_PPM, _STEP_PPM)) / 1_000_000
            visited.append((visited[-1] * step).quantize(_PRICE_PLACES, rounding=ROUND_HALF_EVEN))
        return Candle(
            open_ms=open_ms,
            open=last,
            high=max(visited),
            low=min(visited),
            close=visited[-1],
            volume=Decimal(random.randint(1, 50_000)) / 1000,
        )


class FileCandles:
    """Candles of one symbol from a CSV file, read row by row; a file that ends leaves the price where it is."""

    def __init__(self, path: Path, *, skip: int = 0) -> None:
        self._rows = read_candles(path)
        for _ in range(skip):
            next(self._rows, None)

    def next(self) -> Candle | None:
        """The next row, or None after the last."""
        return next(self._rows, None)


def read_candles(path: Path) -> Iterator[Candle]:
    """Rows of a kline file: Binance's own CSV (with or without a header) or one with ISO times; gzip or plain.

    The first six columns are open time (epoch ms, epoch µs or ISO), open, high, low, close, volume, as in the files of
    https://data.binance.vision (which changed from ms to µs in 2025).

    Raises:
        OSError: The file cannot be read.
        ValueError: A row is not a candle.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8", newline="") as handle:
        for number, row in enumerate(csv.reader(handle)):
            if not row or (number == 0 and row[0].strip().lower() in {"open_time", "open time", "timestamp"}):
                continue
            yield Candle(
                open_ms=_time_ms(row[0]),
                open=Decimal(row[1]),
                high=Decimal(row[2]),
                low=Decimal(row[3]),
                close=Decimal(row[4]),
                volume=Decimal(row[5]),
            )


def _time_ms(value: str) -> int:
    if value.isdigit():
        number = int(value)
        return number // 1000 if number >= _MICROSECONDS_FROM else number
    moment = datetime.fromisoformat(value)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)
