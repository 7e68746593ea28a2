"""Checks of price and quantity against a symbol's filters, with each venue's own error codes."""

from __future__ import annotations

from decimal import Decimal

from app.exchange.paper.errors import PaperError, filter_failure
from app.exchange.paper.model import ZERO, text
from app.exchange.paper.symbols import SymbolSpec


def _decimals(value: Decimal) -> int:
    """Decimal places that matter, trailing zeros not counted."""
    exponent = value.as_tuple().exponent
    if not isinstance(exponent, int) or exponent >= 0:
        return 0
    exponent = value.normalize().as_tuple().exponent
    return -exponent if isinstance(exponent, int) and exponent < 0 else 0


def check_futures_price(spec: SymbolSpec, price: Decimal) -> None:
    """PRICE_FILTER of the futures venue.

    Raises:
        PaperError: -1111, -4001, -4002, -4013 or -4014.
    """
    if price <= ZERO:
        raise PaperError(-4001, "Price less than 0.")
    if _decimals(price) > spec.price_precision:
        raise PaperError(-1111, "Precision is over the maximum defined for this asset.")
    if price > spec.max_price:
        raise PaperError(-4002, "Price greater than max price.")
    if price < spec.min_price:
        raise PaperError(-4013, "Price less than min price.")
    if (price - spec.min_price) % spec.tick != 0:
        raise PaperError(-4014, "Price not increased by tick size.")


def check_futures_percent_price(spec: SymbolSpec, side: str, price: Decimal, mark: Decimal) -> None:
    """PERCENT_PRICE of a futures limit order.

    Raises:
        PaperError: -4016 (buy too high) or -4024 (sell too low).
    """
    if side == "BUY" and price > (cap := mark * spec.multiplier_up):
        raise PaperError(-4016, f"Limit price can't be higher than {text(cap)}.")
    if side == "SELL" and price < (floor := mark * spec.multiplier_down):
        raise PaperError(-4024, f"Limit price can't be lower than {text(floor)}.")


def check_futures_quantity(spec: SymbolSpec, quantity: Decimal, *, is_market: bool) -> None:
    """LOT_SIZE or MARKET_LOT_SIZE of the futures venue.

    Raises:
        PaperError: -1111, -4003, -4004, -4005 or -4023.
    """
    if quantity <= ZERO:
        raise PaperError(-4003, "Quantity less than or equal to zero.")
    if _decimals(quantity) > spec.quantity_precision:
        raise PaperError(-1111, "Precision is over the maximum defined for this asset.")
    if quantity < spec.min_quantity:
        raise PaperError(-4004, "Quantity less than min quantity.")
    if quantity > (spec.market_max_quantity if is_market else spec.max_quantity):
        raise PaperError(-4005, "Quantity greater than max quantity.")
    if (quantity - spec.min_quantity) % spec.step != 0:
        raise PaperError(-4023, "Qty not increased by step size.")


def check_futures_notional(spec: SymbolSpec, price: Decimal, quantity: Decimal) -> None:
    """MIN_NOTIONAL of the futures venue; the caller exempts reduce-only orders.

    Raises:
        PaperError: -4164.
    """
    if price * quantity < spec.min_notional:
        raise PaperError(
            -4164,
            f"Order's notional must be no smaller than {text(spec.min_notional)} (unless you choose reduce only).",
        )


def check_spot_price(spec: SymbolSpec, price: Decimal) -> None:
    """PRICE_FILTER of the Spot venue.

    Raises:
        PaperError: -1013 or -1111.
    """
    if _decimals(price) > spec.price_precision:
        raise PaperError(-1111, "Parameter 'price' has too much precision.")
    if not spec.min_price <= price <= spec.max_price or price % spec.tick != 0:
        raise filter_failure("PRICE_FILTER")


def check_spot_percent_price(spec: SymbolSpec, price: Decimal, average: Decimal) -> None:
    """PERCENT_PRICE_BY_SIDE of the Spot venue.

    Raises:
        PaperError: -1013.
    """
    if not average * spec.multiplier_down <= price <= average * spec.multiplier_up:
        raise filter_failure("PERCENT_PRICE_BY_SIDE")


def check_spot_quantity(spec: SymbolSpec, quantity: Decimal, *, is_market: bool) -> None:
    """LOT_SIZE, and MARKET_LOT_SIZE for market orders, of the Spot venue.

    Raises:
        PaperError: -1013 or -1111.
    """
    if _decimals(quantity) > spec.quantity_precision:
        raise PaperError(-1111, "Parameter 'quantity' has too much precision.")
    if not spec.min_quantity <= quantity <= spec.max_quantity or quantity % spec.step != 0:
        raise filter_failure("LOT_SIZE")
    if is_market and quantity > spec.market_max_quantity:
        raise filter_failure("MARKET_LOT_SIZE")


def check_spot_notional(spec: SymbolSpec, notional: Decimal) -> None:
    """NOTIONAL of the Spot venue.

    Raises:
        PaperError: -1013.
    """
    if notional < spec.min_notional:
        raise filter_failure("NOTIONAL")
