"""The other side of the market: a synthetic book around the last price, refilled after every order.

The best bid is the last price, the best ask one tick above it. Each further level lies ``gap_ticks`` ticks deeper
and holds ``level_notional`` of quote asset. There is one account, and its orders never meet one another.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from app.exchange.paper.model import ZERO, floor_to
from app.exchange.paper.symbols import SymbolSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class BookShape:
    """How deep the market is. ``level_notional`` is in quote units, zero means bottomless."""

    level_notional: Decimal = Decimal(250_000)
    levels: int = 50
    gap_ticks: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Fill:
    """A piece of an order that trades at one price."""

    price: Decimal
    quantity: Decimal


def last_price(spec: SymbolSpec, price: Decimal) -> Decimal:
    """The market's price on this venue's tick grid."""
    return max(floor_to(price, spec.tick), spec.tick)


def best_price(spec: SymbolSpec, last: Decimal, side: str) -> Decimal:
    """The price a taker on ``side`` meets first."""
    return last + spec.tick if side == "BUY" else last


def level_quantity(spec: SymbolSpec, price: Decimal, shape: BookShape) -> Decimal | None:
    """Base quantity that one level holds, or None if it is bottomless."""
    if shape.level_notional == ZERO:
        return None
    return max(floor_to(shape.level_notional / price, spec.step), spec.step)


def plan_fills(
    spec: SymbolSpec,
    last: Decimal,
    side: str,
    shape: BookShape,
    *,
    quantity: Decimal | None = None,
    quote_quantity: Decimal | None = None,
    limit_price: Decimal | None = None,
) -> list[Fill]:
    """What a taker would trade now, best price first; less than asked if the book or the limit ends.

    Args:
        spec: The symbol's rules.
        last: Last price on the symbol's tick grid.
        side: The taker's side, BUY or SELL.
        shape: Depth of the book.
        quantity: Base quantity wanted; or
        quote_quantity: quote quantity to spend (BUY) or receive (SELL), rounded down to the step.
        limit_price: Worst price accepted.
    """
    fills: list[Fill] = []
    price = best_price(spec, last, side)
    gap = spec.tick * shape.gap_ticks * (1 if side == "BUY" else -1)
    for _ in range(shape.levels):
        if price <= ZERO:
            break
        if limit_price is not None and (price > limit_price if side == "BUY" else price < limit_price):
            break
        wanted = quantity if quote_quantity is None else floor_to(quote_quantity / price, spec.step)
        if wanted is None or wanted <= ZERO:
            break
        available = level_quantity(spec, price, shape)
        filled = wanted if available is None else min(wanted, available)
        fills.append(Fill(price=price, quantity=filled))
        if quantity is not None:
            quantity -= filled
        if quote_quantity is not None:
            quote_quantity -= filled * price
        price += gap
    return fills


def cap_fills(fills: list[Fill], quantity: Decimal) -> list[Fill]:
    """The best of ``fills``, together no more than ``quantity``."""
    capped: list[Fill] = []
    for fill in fills:
        if quantity <= ZERO:
            break
        capped.append(Fill(price=fill.price, quantity=min(fill.quantity, quantity)))
        quantity -= fill.quantity
    return capped
