"""What the demo trades: intents from a seed, or the signals of a strategy on a candle file."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Final

from app.exchange.paper.market import read_candles
from app.intents import Intent, OrderIntent
from app.strategies.sma import Close, signals

VALID_FOR_S: Final = 90
SYMBOLS: Final = (("BTCUSDT", "0.001"), ("ETHUSDT", "0.010"))
KLINES_SYMBOL: Final = "BTCUSDT"
KLINES_QUANTITY: Final = Decimal("0.0107")
"""Not a multiple of the step: the signal's quantity is rounded down on its way to an order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One intent, and how many candles the market moves before it."""

    candles: int
    intent: Intent


def from_seed(seed: int, count: int) -> Iterator[Step]:
    """Yield `count` orders on both venues: most at the market, some with a limit."""
    chance = random.Random(seed)  # noqa: S311 - repeatable, and of no other importance
    for number in range(count):
        symbol, unit = chance.choice(SYMBOLS)
        is_spot = chance.random() < 0.15
        side = "BUY" if is_spot or chance.random() < 0.5 else "SELL"
        quantity = Decimal(unit) * chance.randint(5, 20)
        yield Step(
            candles=1 if number % 5 == 0 else 0,
            intent=OrderIntent(
                key=f"demo-{seed}-{number:05d}",
                venue="spot" if is_spot else "usdm",
                symbol=symbol,
                side="BUY" if side == "BUY" else "SELL",
                order_type="MARKET",
                quantity=quantity,
                valid_for_s=VALID_FOR_S,
                strategy="demo",
            ),
        )


def from_klines(path: Path, count: int) -> Iterator[Step]:
    """Yield up to `count` signals of the strategy, each at its candle."""
    closes = (
        Close(number=number, open_ms=candle.open_ms, price=candle.close)
        for number, candle in enumerate(read_candles(path))
    )
    done = 0
    for number, timed in enumerate(
        signals(closes, symbol=KLINES_SYMBOL, quantity=KLINES_QUANTITY, valid_for_s=VALID_FOR_S)
    ):
        if number >= count:
            return
        yield Step(candles=timed.candle + 1 - done, intent=timed.signal)
        done = timed.candle + 1
