"""What goes to the exchange and what comes back, as plain values. Nothing here talks to anybody.

`PinnedOrder` and `PinnedCancel` hold every byte-relevant choice of one request, timestamp included. They are written to
the journal first and sent unchanged, so that what the journal says is what the exchange saw.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from types import MappingProxyType
from typing import Final, NamedTuple, TypeAlias

from app.job_safety.outcome import ExchangeOrder, NotSent, Refused, Unknown, Venue

SIDES: Final = frozenset({"BUY", "SELL"})
CONDITIONAL_TYPES: Final = frozenset({"STOP_MARKET", "TAKE_PROFIT_MARKET"})
ORDER_TYPES: Final = frozenset({"MARKET", "LIMIT"}) | CONDITIONAL_TYPES
TIME_IN_FORCE: Final = {
    Venue.USDM: frozenset({"GTC", "IOC", "FOK", "GTX"}),
    Venue.SPOT: frozenset({"GTC", "IOC", "FOK"}),
}
MAX_RECV_WINDOW_MS: Final = 5000
"""Longest `recvWindow` we ever send. It is how long a stray copy of a request stays alive, so it is short."""

_CLIENT_ORDER_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,36}", re.ASCII)
_SYMBOL: Final = re.compile(r"[A-Z0-9][A-Z0-9_.-]{0,39}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class PinnedOrder:
    """One order exactly as it will be sent, once.

    `order_type` is one of `ORDER_TYPES`. Conditional types go to the algo endpoint on USD-M futures and become
    STOP_LOSS / TAKE_PROFIT on Spot. Positions are one-way (`positionSide` is never sent).

    Raises:
        ValueError: a field is missing, superfluous or outside of what both the exchange and the signature allow.
    """

    venue: Venue
    symbol: str
    side: str
    order_type: str
    quantity: Decimal
    client_order_id: str
    timestamp_ms: int
    recv_window_ms: int
    price: Decimal | None = None
    stop_price: Decimal | None = None
    time_in_force: str | None = None
    reduce_only: bool = False

    def __post_init__(self) -> None:
        """Refuse what the exchange would refuse, or what would be signed differently from how it is sent."""
        _check_symbol(self.symbol)
        _check_client_order_id(self.client_order_id)
        _check_window(self.timestamp_ms, self.recv_window_ms)
        if self.side not in SIDES:
            raise ValueError(f"side: {self.side!r} is neither BUY nor SELL")
        if self.order_type not in ORDER_TYPES:
            raise ValueError(f"order_type: {self.order_type!r} is not one of {', '.join(sorted(ORDER_TYPES))}")
        _check_positive("quantity", self.quantity)
        self._check_prices()
        if self.reduce_only and self.venue is Venue.SPOT:
            raise ValueError("reduce_only: Spot has no positions to reduce")

    def _check_prices(self) -> None:
        if self.order_type == "LIMIT":
            if self.price is None:
                raise ValueError("price: a LIMIT order needs one")
            _check_positive("price", self.price)
            if self.time_in_force not in TIME_IN_FORCE[self.venue]:
                raise ValueError(
                    f"time_in_force: a LIMIT order on {self.venue} needs GTC, IOC or FOK (futures also GTX)"
                )
        elif self.price is not None or self.time_in_force is not None:
            raise ValueError(f"price, time_in_force: a {self.order_type} order takes neither")
        if self.is_conditional:
            if self.stop_price is None:
                raise ValueError(f"stop_price: a {self.order_type} order needs one")
            _check_positive("stop_price", self.stop_price)
        elif self.stop_price is not None:
            raise ValueError(f"stop_price: a {self.order_type} order takes none")

    @property
    def is_conditional(self) -> bool:
        """Whether the order waits for a trigger price."""
        return self.order_type in CONDITIONAL_TYPES

    @property
    def is_algo(self) -> bool:
        """Whether the order lives on the futures algo endpoint, with queries and ids of its own."""
        return self.order_type in CONDITIONAL_TYPES and self.venue is Venue.USDM


@dataclass(frozen=True, slots=True, kw_only=True)
class PinnedCancel:
    """One cancel exactly as it will be sent, once. It may be repeated as a new cancel: canceling is idempotent.

    On Spot a cancel renames the order's client id unless it is told the old one, so `client_order_id` (the id the
    order was placed with) is needed there beside `order_id`. For an algo order `order_id` is the algoId.
    """

    venue: Venue
    symbol: str
    timestamp_ms: int
    recv_window_ms: int
    order_id: int | None = None
    client_order_id: str | None = None
    is_algo: bool = False

    def __post_init__(self) -> None:
        """Refuse a cancel that names no order, or that would cost a Spot order its client id."""
        _check_symbol(self.symbol)
        _check_window(self.timestamp_ms, self.recv_window_ms)
        if self.order_id is None and self.client_order_id is None:
            raise ValueError("order_id, client_order_id: a cancel needs at least one")
        if self.order_id is not None and self.order_id <= 0:
            raise ValueError("order_id: must be positive")
        if self.client_order_id is not None:
            _check_client_order_id(self.client_order_id)
        if self.venue is Venue.SPOT and (self.client_order_id is None or self.is_algo):
            raise ValueError("client_order_id: a Spot cancel needs the order's own, and Spot has no algo orders")


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelAccepted:
    """The exchange took the cancel. `order` is what it told of the order (algo cancels tell nothing but the id)."""

    order_id: int
    client_order_id: str
    order: ExchangeOrder | None = None
    raw: str = field(default="", repr=False)


CancelOutcome: TypeAlias = NotSent | Refused | CancelAccepted | Unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeTrade:
    """One fill as the exchange tells of it; unique by (account, venue, symbol, `trade_id`).

    `realized_pnl` is reported by futures only (zero on Spot). `commission` is positive when it was paid.
    """

    venue: Venue
    symbol: str
    trade_id: int
    order_id: int
    side: str
    price: Decimal
    quantity: Decimal
    quote_quantity: Decimal
    commission: Decimal
    commission_asset: str
    time_ms: int
    realized_pnl: Decimal = Decimal(0)
    is_maker: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderAbsent:
    """The exchange answered exactly -2013 with HTTP 400. One such answer proves nothing by itself."""

    venue: Venue
    symbol: str
    client_order_id: str | None = None
    order_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderArchived:
    """Spot -2026: the order did exist, ended unfilled more than 90 days ago, and was archived."""

    venue: Venue
    symbol: str
    client_order_id: str | None = None
    order_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """What an account holds of one asset. `wallet` counts what is locked, never unrealized profit."""

    venue: Venue
    asset: str
    wallet: Decimal
    available: Decimal
    unrealized_pnl: Decimal = Decimal(0)
    update_time_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangePosition:
    """A futures position; `quantity` is negative when short. Symbols without position or open order are not listed."""

    symbol: str
    quantity: Decimal
    entry_price: Decimal
    mark_price: Decimal
    unrealized_pnl: Decimal
    liquidation_price: Decimal = Decimal(0)
    position_side: str = "BOTH"
    update_time_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Income:
    """One line of the futures income history: funding, commission, transfer, realized profit.

    `transaction_id` is unique within (`income_type`, user) only; `trade_id` is empty where no trade caused the line.
    """

    income_type: str
    asset: str
    amount: Decimal
    time_ms: int
    transaction_id: int
    symbol: str = ""
    trade_id: str = ""
    info: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """One limit of exchangeInfo: at most `limit` of `kind` in `interval_s` seconds."""

    kind: str
    interval_s: int
    limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerTime:
    """A fresh answer of the exchange's time request, with our monotonic times around it (seconds)."""

    venue: Venue
    server_time_ms: int
    sent_monotonic: float
    received_monotonic: float


class GatewayHeaders(NamedTuple):
    """The rate-limit headers of the last answer. Keys of the mappings are intervals, such as `1M` or `10S`."""

    used_weight: Mapping[str, int] = MappingProxyType({})
    order_count: Mapping[str, int] = MappingProxyType({})
    retry_after_s: int | None = None
    http_status: int = 0
    received_monotonic: float = 0.0


def _check_symbol(symbol: str) -> None:
    if not _SYMBOL.fullmatch(symbol):
        raise ValueError(f"symbol: {symbol[:50]!r} must be upper-case letters, digits, '_', '.' or '-'")


def _check_client_order_id(client_order_id: str) -> None:
    if not _CLIENT_ORDER_ID.fullmatch(client_order_id):
        raise ValueError(f"client_order_id: {client_order_id[:50]!r} must be 1 to 36 of letters, digits, '_' and '-'")


def _check_window(timestamp_ms: int, recv_window_ms: int) -> None:
    if timestamp_ms <= 0:
        raise ValueError("timestamp_ms: must be positive exchange milliseconds")
    if not 0 < recv_window_ms <= MAX_RECV_WINDOW_MS:
        raise ValueError(f"recv_window_ms: must be between 1 and {MAX_RECV_WINDOW_MS}")


def _check_positive(name: str, value: Decimal) -> None:
    if not isinstance(value, Decimal) or not value.is_finite() or value <= 0:
        raise ValueError(f"{name}: must be a positive Decimal")
