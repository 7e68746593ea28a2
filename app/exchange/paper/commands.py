"""Everything that can change the exchange, as data: one log line each.

A command holds all the engine needs, its time and its random ids included, so that replaying the log in order gives
the same orders, trades and balances. Decimals are written as strings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Any

from app.exchange.paper.model import text


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceOrder:
    """Place an order. ``liquidity`` caps what it may trade at once (a fault: partial fill)."""

    at: int
    venue: str
    symbol: str
    side: str
    type: str
    client_order_id: str
    time_in_force: str = "GTC"
    price: Decimal | None = None
    quantity: Decimal | None = None
    quote_quantity: Decimal | None = None
    reduce_only: bool = False
    liquidity: Decimal | None = None
    orig_type: str = ""
    algo_id: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelOrder:
    """Cancel one open order. Spot gives it ``new_client_order_id``."""

    at: int
    venue: str
    symbol: str
    order_id: int
    new_client_order_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceAlgo:
    """Place a conditional futures order."""

    at: int
    symbol: str
    side: str
    type: str
    client_algo_id: str
    trigger_price: Decimal
    actual_client_order_id: str
    time_in_force: str = "GTC"
    price: Decimal | None = None
    quantity: Decimal | None = None
    reduce_only: bool = False
    close_position: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelAlgo:
    """Cancel one conditional order that waits for its trigger."""

    at: int
    algo_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SetLeverage:
    """Change the leverage of one futures symbol."""

    at: int
    symbol: str
    leverage: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SetPrice:
    """Trade the market at one price."""

    at: int
    symbol: str
    price: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Candles:
    """One step of the market: rows of symbol -> [open_ms, open, high, low, close, volume], as strings."""

    at: int
    rows: dict[str, list[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Deposit:
    """Move ``amount`` (negative: a withdrawal) of an asset into a venue's wallet."""

    at: int
    venue: str
    asset: str
    amount: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Funding:
    """Settle funding on one symbol: longs pay ``rate`` of their notional, shorts receive it."""

    at: int
    symbol: str
    rate: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class SetClock:
    """Shift the exchange clock against the machine's."""

    at: int
    offset_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Configure:
    """Set what the engine's results depend on: depth of the book and fees (rates, not percent)."""

    at: int
    level_notional: Decimal
    levels: int
    gap_ticks: int
    futures_maker_rate: Decimal
    futures_taker_rate: Decimal
    spot_maker_rate: Decimal
    spot_taker_rate: Decimal
    spot_fee_in_bnb: bool
    max_open_orders: int


Command = (
    PlaceOrder
    | CancelOrder
    | PlaceAlgo
    | CancelAlgo
    | SetLeverage
    | SetPrice
    | Candles
    | Deposit
    | Funding
    | SetClock
    | Configure
)

_TYPES: tuple[type[Command], ...] = (
    PlaceOrder,
    CancelOrder,
    PlaceAlgo,
    CancelAlgo,
    SetLeverage,
    SetPrice,
    Candles,
    Deposit,
    Funding,
    SetClock,
    Configure,
)
_BY_NAME = {kind.__name__: kind for kind in _TYPES}
_FIELDS = {kind: tuple((field.name, field.default) for field in fields(kind)) for kind in _TYPES}
_DECIMALS = frozenset(
    {
        "price",
        "quantity",
        "quote_quantity",
        "liquidity",
        "trigger_price",
        "amount",
        "rate",
        "level_notional",
        "futures_maker_rate",
        "futures_taker_rate",
        "spot_maker_rate",
        "spot_taker_rate",
    }
)


def encode(command: Command) -> dict[str, Any]:
    """The command as JSON types, without fields that hold their default."""
    kind = type(command)
    record: dict[str, Any] = {"c": kind.__name__}
    for name, default in _FIELDS[kind]:
        value = getattr(command, name)
        if value is default or value == default:
            continue
        record[name] = text(value) if isinstance(value, Decimal) else value
    return record


def decode(record: dict[str, Any]) -> Command:
    """The command a log line holds.

    Raises:
        KeyError: Unknown command name.
        TypeError: Unknown or absent fields.
    """
    arguments = {name: Decimal(value) if name in _DECIMALS else value for name, value in record.items() if name != "c"}
    kind: Callable[..., Command] = _BY_NAME[record["c"]]
    return kind(**arguments)
