"""A simple strategy for demos: cross of two moving averages, as a pure function from candles to signals."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from typing import Final

from app.clock import from_ms
from app.intents import SignalIntent
from app.money import ZERO

FAST: Final = 9
SLOW: Final = 30
"""Candles in each average."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Close:
    """The end of a candle: its number from 0, its open time in epoch milliseconds, and its closing price."""

    number: int
    open_ms: int
    price: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """A signal, and the number of the candle whose close gave it."""

    candle: int
    signal: SignalIntent


def crosses(closes: Iterable[Close], *, fast: int = FAST, slow: int = SLOW) -> Iterator[tuple[Close, str]]:
    """Yield each close at which the fast average crosses the slow one, and its side: BUY upwards, SELL down."""
    window: deque[Decimal] = deque(maxlen=slow)
    states: deque[int] = deque(maxlen=2)
    for close in closes:
        window.append(close.price)
        if len(window) < slow:
            continue
        recent = list(window)[-fast:]
        # Compared as products, so that no division rounds: sum(fast)/fast against sum(slow)/slow.
        difference = sum(recent, ZERO) * slow - sum(window, ZERO) * fast
        states.append(1 if difference > 0 else -1)
        for before, after in pairwise(states):
            if before != after:
                yield close, "BUY" if after > 0 else "SELL"
        if len(states) == states.maxlen:
            states.popleft()


def signals(closes: Iterable[Close], *, symbol: str, quantity: Decimal, valid_for_s: int) -> Iterator[Timed]:
    """Yield reversal signals: the first opens `quantity`, each further one turns the position with twice of it."""
    size = quantity
    for close, side in crosses(closes):
        stamp = from_ms(close.open_ms).strftime("%Y%m%dT%H%MZ")
        signal = SignalIntent(
            key=f"sma-{stamp}-{symbol}-{side.lower()}",
            strategy="sma",
            symbol=symbol,
            side="BUY" if side == "BUY" else "SELL",
            quantity=size,
            valid_for_s=valid_for_s,
            reason=f"SMA({FAST}) crossed SMA({SLOW}) at {close.price}",
        )
        size = quantity * 2
        yield Timed(candle=close.number, signal=signal)
