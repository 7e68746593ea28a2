"""Which assets a symbol is made of. Trades name only their symbol; ledgers need base and quote."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from app.job_safety.errors import InvariantViolatedError
from app.job_safety.outcome import Venue

QUOTES: Final = (
    *("FDUSD", "USDT", "USDC", "TUSD", "BUSD", "USDP", "USD1", "AEUR", "EURI", "IDRT", "BIDR"),
    *("BTC", "ETH", "BNB", "SOL", "XRP", "TRX", "DOT", "DAI", "DOGE", "EUR", "TRY", "BRL", "ARS", "COP", "MXN"),
    *("CZK", "PLN", "RON", "UAH", "ZAR", "JPY", "IDR", "GBP", "AUD", "RUB", "NGN", "USD"),
)
"""Quote assets that Binance uses. A caller that has read exchangeInfo passes its own `AssetsOf` and needs no list."""

CONTRACT_SUFFIX: Final = ".PERP"


@dataclass(frozen=True, slots=True, kw_only=True)
class Assets:
    """Base and quote of a symbol. On USD-M futures the quote asset is the margin asset."""

    base: str
    quote: str


AssetsOf: TypeAlias = Callable[[Venue, str], Assets]


def assets_of(venue: Venue, symbol: str) -> Assets:
    """Return the assets of `symbol` by the longest known quote asset that it ends with.

    The delivery date of a futures contract (`BTCUSDT_261225`) is passed over.

    Raises:
        InvariantViolatedError: it ends with none of `QUOTES`: nothing may be booked by a guess.
    """
    pair = symbol.partition("_")[0] if venue is Venue.USDM else symbol
    for quote in sorted(QUOTES, key=len, reverse=True):
        if pair.endswith(quote) and pair != quote:
            return Assets(base=pair.removesuffix(quote), quote=quote)
    raise InvariantViolatedError(f"the quote asset of {venue} {symbol[:50]} is not known")


def contract(symbol: str) -> str:
    """Return the futures contract of `symbol` as an asset of the ledger: `BTCUSDT.PERP`."""
    return f"{symbol}{CONTRACT_SUFFIX}"
