"""The records of the exchange: orders, trades and ledger entries, shared by both venues."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import ROUND_DOWN, Decimal
from enum import StrEnum

ZERO = Decimal(0)


class Venue(StrEnum):
    """Which of the two exchanges a request, order or balance belongs to."""

    FUTURES = "futures"
    SPOT = "spot"


class Status(StrEnum):
    """Order status; the values are Binance's."""

    NEW = "NEW"
    PARTIALLY_FILLED = "PARTIALLY_FILLED"
    FILLED = "FILLED"
    CANCELED = "CANCELED"
    EXPIRED = "EXPIRED"


OPEN_STATUSES = frozenset({Status.NEW, Status.PARTIALLY_FILLED})
UNFILLED_END = frozenset({Status.CANCELED, Status.EXPIRED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Trade:
    """One execution, as it stands in the exchange's history for ever.

    ``position_after`` and ``entry_after`` let a lagging read rebuild what it should still see (futures only).
    """

    trade_id: int
    order_id: int
    client_order_id: str
    symbol: str
    side: str
    price: Decimal
    quantity: Decimal
    fee: Decimal
    fee_asset: str
    is_maker: bool
    time_ms: int
    realized_pnl: Decimal = ZERO
    position_after: Decimal = ZERO
    entry_after: Decimal = ZERO


@dataclass(slots=True, kw_only=True)
class Order:
    """An order the matching engine accepted. Only the engine of its venue changes it.

    ``placed_client_order_id`` is the id it was placed with; on Spot a cancel renames ``client_order_id``.
    """

    order_id: int
    client_order_id: str
    placed_client_order_id: str
    symbol: str
    side: str
    type: str
    time_in_force: str
    price: Decimal
    quantity: Decimal
    time_ms: int
    update_ms: int
    reduce_only: bool = False
    quote_quantity: Decimal = ZERO
    executed: Decimal = ZERO
    executed_quote: Decimal = ZERO
    status: Status = Status.NEW
    orig_type: str = ""
    algo_id: int = 0
    locked: Decimal = ZERO
    trades: list[Trade] = field(default_factory=list)

    @property
    def remaining(self) -> Decimal:
        """What is still to be executed, in base units."""
        return self.quantity - self.executed

    @property
    def is_open(self) -> bool:
        """Whether it may still trade."""
        return self.status in OPEN_STATUSES


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEntry:
    """One movement of a balance. ``balance_after`` is the wallet balance of that asset afterwards."""

    tran_id: int
    kind: str
    asset: str
    amount: Decimal
    balance_after: Decimal
    time_ms: int
    symbol: str = ""
    trade_id: int = 0
    info: str = ""


def text(value: Decimal) -> str:
    """Decimal as the wire wants it: never an exponent."""
    return format(value, "f")


def floor_to(value: Decimal, step: Decimal) -> Decimal:
    """Largest multiple of ``step`` that is not above ``value`` (toward zero)."""
    return ((value / step).to_integral_value(rounding=ROUND_DOWN) * step).quantize(step)
