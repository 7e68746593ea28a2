"""What the books must hold, computed another way: in fractions, without any of the product's arithmetic."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fractions import Fraction

from app.exchange.models import ExchangeTrade
from app.job_safety.outcome import Venue

ASSETS = {"BTCUSDT": ("BTC", "USDT"), "ETHUSDC": ("ETH", "USDC"), "BNBUSDT": ("BNB", "USDT"), "ETHBTC": ("ETH", "BTC")}
PLACES = {Venue.USDM: 8, Venue.SPOT: 18}


@dataclass
class Lot:
    """A position as cost and quantity of one direction."""

    quantity: Fraction = Fraction(0)
    entry: Fraction = Fraction(0)
    realized: Fraction = Fraction(0)


@dataclass
class Books:
    """Everything that can be asked of the books."""

    balances: dict[tuple[str, str], Fraction] = field(default_factory=lambda: defaultdict(Fraction))
    positions: dict[tuple[str, str], Lot] = field(default_factory=lambda: defaultdict(Lot))
    realized: dict[tuple[str, str, str], Fraction] = field(default_factory=lambda: defaultdict(Fraction))
    commission: dict[tuple[str, str, str], Fraction] = field(default_factory=lambda: defaultdict(Fraction))


def compute(trades: Iterable[ExchangeTrade], owners: Mapping[tuple[str, str, int], str | None]) -> Books:
    """Return the books after all of `trades`."""
    books = Books()
    for trade in sorted(trades, key=lambda each: each.trade_id):
        venue, base, quote = str(trade.venue), *ASSETS[trade.symbol]
        owner = owners[(venue, trade.symbol, trade.trade_id)]
        sign = {"BUY": 1, "SELL": -1}[trade.side]
        price, quantity, fee = Fraction(trade.price), Fraction(trade.quantity), Fraction(trade.commission)
        lot = books.positions[(venue, trade.symbol)]
        gained = _trade_unit_flow(lot, sign, price, quantity, PLACES[trade.venue])
        if trade.venue is Venue.USDM:
            gained = Fraction(trade.realized_pnl)
            flows = [
                ("position", f"{trade.symbol}.PERP", sign * quantity, "market"),
                ("wallet", quote, gained, "realized_pnl"),
            ]
        else:
            if trade.commission_asset == base:
                _take_fee(lot, fee, price)
            flows = [("wallet", base, sign * quantity, "market"), ("wallet", quote, -sign * quantity * price, "market")]
        flows.append(("wallet", trade.commission_asset, -fee, "fees"))
        lot.realized += gained
        for account, asset, amount, other in flows:
            books.balances[(f"{account}:{venue}", asset)] += amount
            books.balances[("external" if owner is None else f"{other}:{venue}", asset)] -= amount
        day = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=trade.time_ms)).strftime("%Y-%m-%d")
        books.realized[(venue, day, quote)] += gained
        books.commission[(venue, day, trade.commission_asset)] += fee
    return books


def _trade_unit_flow(lot: Lot, sign: int, price: Fraction, quantity: Fraction, places: int) -> Fraction:
    """Close against what is held first, then open with the rest: two steps instead of a case distinction."""
    direction = (lot.quantity > 0) - (lot.quantity < 0)
    closing = min(abs(lot.quantity), quantity) if direction == -sign else Fraction(0)
    gained = (price - lot.entry) * closing * direction
    lot.quantity += sign * closing
    opening = quantity - closing
    if lot.quantity == 0:
        lot.entry = price if opening else Fraction(0)
    elif opening:
        average = (abs(lot.quantity) * lot.entry + opening * price) / (abs(lot.quantity) + opening)
        lot.entry = Fraction(round(average * 10**places), 10**places)
    lot.quantity += sign * opening
    return gained


def _take_fee(lot: Lot, fee: Fraction, price: Fraction) -> None:
    before = lot.quantity
    lot.quantity -= fee
    if lot.quantity == 0:
        lot.entry = Fraction(0)
    elif lot.quantity * before <= 0:
        lot.entry = price
