"""What one trade does to a position. Pure; exact but for the average price, whose rounding is named here.

Python's own operators (`+`, `-x`, `abs`) round to 28 digits, so they are not used on amounts.

Futures are one-way (one signed quantity per symbol). Spot is kept by average cost with the same arithmetic: what is
sold without having been bought through this symbol counts as short, with the price of its sale as its cost.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal, InvalidOperation
from types import MappingProxyType
from typing import Final

from app.exchange.models import ExchangeTrade
from app.job_safety.outcome import Venue
from app.money import EXACT, ZERO

ENTRY_STEP: Final[Mapping[Venue, Decimal]] = MappingProxyType(
    {Venue.USDM: Decimal("0.00000001"), Venue.SPOT: Decimal("0.000000000000000001")}
)
"""The average price is rounded to a multiple of this, half to even, after every trade that enlarges the position.

Binance does not document how it rounds `entryPrice`. On futures it is information: realized profit in money is the
exchange's own `realizedPnl` of each trade. On Spot the realized profit is computed from it, so there are more digits.
"""

_AVERAGE: Final = Context(prec=100, rounding=ROUND_HALF_EVEN, traps=[InvalidOperation])


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """A signed quantity in base units (negative: short) and the average price that it was entered at; 0 when flat."""

    quantity: Decimal = ZERO
    entry_price: Decimal = ZERO


FLAT: Final = Position()


def apply(position: Position, trade: ExchangeTrade, *, base: str = "") -> tuple[Position, Decimal]:
    """Return the position after `trade`, and the profit in the quote asset that the part it closed has realized.

    An increase averages the entry price, a reduction leaves it, a flip starts anew at the price of the trade. A Spot
    fee taken in `base` leaves the position at its average price: it is counted as commission, not as a loss.

    Raises:
        ValueError: the side is neither BUY nor SELL, or price or quantity is not positive.
    """
    if trade.side not in {"BUY", "SELL"} or trade.price <= ZERO or trade.quantity <= ZERO:
        raise ValueError(f"trade {trade.trade_id} of {trade.symbol}: {trade.side} {trade.quantity} at {trade.price}")
    held, size = position.quantity, position.quantity.copy_abs()
    change = trade.quantity if trade.side == "BUY" else trade.quantity.copy_negate()
    after = EXACT.add(held, change)
    realized = ZERO
    if (held >= ZERO) == (change > ZERO) or not held:
        entry = _average(position, trade)
    else:
        closed = min(size, trade.quantity)
        gain = EXACT.subtract(trade.price, position.entry_price)
        realized = EXACT.multiply(gain, closed if held > ZERO else closed.copy_negate())
        flat_or_flipped = ZERO if trade.quantity == size else trade.price
        entry = position.entry_price if trade.quantity < size else flat_or_flipped
    moved = Position(quantity=after, entry_price=entry)
    if trade.venue is Venue.SPOT and base and trade.commission_asset == base and trade.commission:
        moved = _less_fee(moved, trade)
    return moved, realized


def money_realized(trade: ExchangeTrade, computed: Decimal) -> Decimal:
    """Return what the trade realized in money: the exchange's word on futures, average cost on Spot."""
    return computed if trade.venue is Venue.SPOT else trade.realized_pnl


def _average(position: Position, trade: ExchangeTrade) -> Decimal:
    size = position.quantity.copy_abs()
    if not size:
        return trade.price
    cost = EXACT.add(EXACT.multiply(size, position.entry_price), EXACT.multiply(trade.quantity, trade.price))
    average = _AVERAGE.divide(cost, EXACT.add(size, trade.quantity))
    return _AVERAGE.quantize(average, ENTRY_STEP[trade.venue])


def _less_fee(position: Position, trade: ExchangeTrade) -> Position:
    left = EXACT.subtract(position.quantity, trade.commission)
    if not left:
        return FLAT
    is_same_side = position.quantity != ZERO and (left > ZERO) == (position.quantity > ZERO)
    return Position(quantity=left, entry_price=position.entry_price if is_same_side else trade.price)
