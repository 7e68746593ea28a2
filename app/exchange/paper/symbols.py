"""The symbols this exchange trades, with filters like the live ones (values of 2025/2026, rounded)."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class SymbolSpec:
    """Trading rules of one symbol on one venue. Quantities are in base units, notionals in quote units."""

    symbol: str
    base: str
    quote: str
    tick: Decimal
    min_price: Decimal
    max_price: Decimal
    price_precision: int
    step: Decimal
    min_quantity: Decimal
    max_quantity: Decimal
    market_max_quantity: Decimal
    quantity_precision: int
    min_notional: Decimal
    multiplier_up: Decimal
    multiplier_down: Decimal


# symbol, tick, price precision, step, quantity precision, largest quantity, largest market quantity, least notional
_FUTURES = (
    ("BTCUSDT", "0.10", 2, "0.001", 3, "1000", "120", "100"),
    ("ETHUSDT", "0.01", 2, "0.001", 3, "10000", "2000", "20"),
    ("BNBUSDT", "0.010", 3, "0.01", 2, "100000", "2000", "5"),
    ("SOLUSDT", "0.0100", 4, "0.01", 2, "1000000", "15000", "5"),
    ("XRPUSDT", "0.0001", 4, "0.1", 1, "10000000", "2000000", "5"),
)
_SPOT = (
    ("BTCUSDT", "0.01", 8, "0.00001", 8, "9000", "120", "5"),
    ("ETHUSDT", "0.01", 8, "0.0001", 8, "9000", "2500", "5"),
    ("BNBUSDT", "0.01", 8, "0.001", 8, "900000", "4500", "5"),
    ("SOLUSDT", "0.01", 8, "0.001", 8, "9000000", "80000", "5"),
    ("XRPUSDT", "0.0001", 8, "0.1", 8, "92141578", "2000000", "5"),
)
START_PRICES = {
    "BTCUSDT": Decimal("23140.40"),
    "ETHUSDT": Decimal("1605.25"),
    "BNBUSDT": Decimal("300.10"),
    "SOLUSDT": Decimal("22.05"),
    "XRPUSDT": Decimal("0.3777"),
}
QUOTE = "USDT"


def _table(
    rows: tuple[tuple[str, str, int, str, int, str, str, str], ...], up: str, down: str
) -> dict[str, SymbolSpec]:
    return {
        symbol: SymbolSpec(
            symbol=symbol,
            base=symbol.removesuffix(QUOTE),
            quote=QUOTE,
            tick=Decimal(tick),
            min_price=Decimal(tick),
            max_price=Decimal(1_000_000),
            price_precision=price_precision,
            step=Decimal(step),
            min_quantity=Decimal(step),
            max_quantity=Decimal(largest),
            market_max_quantity=Decimal(market_largest),
            quantity_precision=quantity_precision,
            min_notional=Decimal(notional),
            multiplier_up=Decimal(up),
            multiplier_down=Decimal(down),
        )
        for symbol, tick, price_precision, step, quantity_precision, largest, market_largest, notional in rows
    }


def futures_symbols() -> dict[str, SymbolSpec]:
    """USD-M perpetuals by symbol."""
    return _table(_FUTURES, "1.05", "0.95")


def spot_symbols() -> dict[str, SymbolSpec]:
    """Spot pairs by symbol."""
    return _table(_SPOT, "5", "0.2")
