"""The types of intents, each consistent in itself or refused."""

from decimal import Decimal
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.intents.errors import REMEDIES, InconsistentError
from app.intents.fields import (
    CONDITIONAL_TYPES,
    MAX_ENTRIES,
    MAX_VALID_FOR_S,
    Amount,
    Asset,
    ExchangeNumber,
    Key,
    Label,
    Line,
    OrderType,
    PositiveAmount,
    Side,
    Symbol,
    VenueName,
)
from app.money import plain, total


class _Base(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    key: Key


def _check_price(order_type: str, price: Decimal | None) -> None:
    if order_type == "LIMIT" and price is None:
        raise InconsistentError("price", "is missing", "a LIMIT order needs a price")
    if order_type != "LIMIT" and price is not None:
        remedy = "leave it out" if order_type in CONDITIONAL_TYPES else "leave it out, or use order_type LIMIT"
        raise InconsistentError("price", f"does not go with {order_type}", remedy)


def _check_reduce_only(venue: str, *, reduce_only: bool) -> None:
    if reduce_only and venue == "spot":
        raise InconsistentError("reduce_only", "does not exist on spot", "leave it out, or use venue usdm")


class OrderIntent(_Base):
    """One order. `stop_price` is the trigger of the conditional types, which have no limit price."""

    type: Literal["order"] = "order"
    venue: VenueName = "usdm"
    symbol: Symbol
    side: Side
    order_type: OrderType = "MARKET"
    quantity: PositiveAmount
    price: PositiveAmount | None = None
    stop_price: PositiveAmount | None = None
    time_in_force: Literal["GTC", "IOC", "FOK", "GTX"] | None = None
    reduce_only: bool = False
    valid_for_s: Annotated[int, Field(ge=1, le=MAX_VALID_FOR_S)] | None = None
    strategy: Label = ""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.order_type in CONDITIONAL_TYPES and self.price is not None and self.stop_price is None:
            # These types have no limit price, so a lone `price` can only mean the trigger.
            object.__setattr__(self, "stop_price", self.price)
            object.__setattr__(self, "price", None)
        self._check()
        if self.order_type == "LIMIT" and self.time_in_force is None:
            object.__setattr__(self, "time_in_force", "GTC")
        return self

    def _check(self) -> None:
        kind = self.order_type
        _check_price(kind, self.price)
        if self.is_conditional and self.stop_price is None:
            raise InconsistentError("stop_price", "is missing", f"{kind} needs the price that triggers it")
        if not self.is_conditional and self.stop_price is not None:
            raise InconsistentError("stop_price", f"does not go with {kind}", "leave it out")
        if kind != "LIMIT" and self.time_in_force is not None:
            raise InconsistentError("time_in_force", f"does not go with {kind}", REMEDIES["time_in_force"])
        if self.time_in_force == "GTX" and self.venue == "spot":
            raise InconsistentError("time_in_force", "GTX does not exist on spot", "use GTC, IOC or FOK, or venue usdm")
        _check_reduce_only(self.venue, reduce_only=self.reduce_only)

    @property
    def opens_risk(self) -> bool:
        """Whether executing this twice could enlarge a position."""
        return not self.reduce_only

    @property
    def is_conditional(self) -> bool:
        """Whether this waits for a trigger price at the exchange."""
        return self.order_type in CONDITIONAL_TYPES

    @property
    def is_urgent(self) -> bool:
        """Whether this must never wait behind opening orders: reduce-only, or a protective stop that sells on spot."""
        return _is_urgent(self.venue, self.order_type, self.side, reduce_only=self.reduce_only)


def _is_urgent(venue: str, order_type: str, side: str, *, reduce_only: bool) -> bool:
    return reduce_only or (venue == "spot" and order_type in CONDITIONAL_TYPES and side == "SELL")


class CancelIntent(_Base):
    """Cancel the order of another intent."""

    type: Literal["cancel"] = "cancel"
    order_key: Key


class Trade(BaseModel):
    """A trade with the exchange's own field names (userTrades, myTrades)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    id: ExchangeNumber
    orderId: ExchangeNumber  # noqa: N815 - the exchange's name
    side: Side
    price: PositiveAmount
    qty: PositiveAmount
    commission: Amount
    commissionAsset: Asset  # noqa: N815 - the exchange's name
    realizedPnl: Amount = Decimal(0)  # noqa: N815 - the exchange's name
    time: ExchangeNumber


class PositionIntent(_Base):
    """Book one trade into the position of its symbol, for example one made elsewhere."""

    type: Literal["position"] = "position"
    account: Label = "main"
    venue: VenueName
    symbol: Symbol
    trade: Trade


class Entry(BaseModel):
    """One line of a ledger transaction."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    account: Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{1,100}$")]
    asset: Asset
    amount: Amount


class LedgerIntent(_Base):
    """Post one transaction; its entries sum to zero per asset."""

    type: Literal["ledger"] = "ledger"
    description: Annotated[Line, Field(min_length=1)]
    entries: Annotated[tuple[Entry, ...], Field(min_length=2, max_length=MAX_ENTRIES, strict=False)]

    @model_validator(mode="after")
    def _balanced(self) -> Self:
        for asset in sorted({entry.asset for entry in self.entries}):
            rest = total(entry.amount for entry in self.entries if entry.asset == asset)
            if rest != 0:
                raise InconsistentError("entries", f"sum to {plain(rest)} {asset}, not to zero", "balance each asset")
        return self


class PnlIntent(_Base):
    """Book one trade into profit and loss."""

    type: Literal["pnl"] = "pnl"
    venue: VenueName
    symbol: Symbol
    trade: Trade


class SignalIntent(_Base):
    """A strategy's wish. Becomes an order intent, its quantity rounded down to the exchange's steps.

    `price` is the limit price, or the trigger of the conditional types.
    """

    type: Literal["signal"] = "signal"
    strategy: Label
    venue: VenueName = "usdm"
    symbol: Symbol
    side: Side
    quantity: PositiveAmount
    order_type: OrderType = "MARKET"
    price: PositiveAmount | None = None
    reduce_only: bool = False
    valid_for_s: Annotated[int, Field(ge=1, le=MAX_VALID_FOR_S)] | None = None
    reason: Line = ""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.order_type not in CONDITIONAL_TYPES:
            _check_price(self.order_type, self.price)
        elif self.price is None:
            raise InconsistentError("price", "is missing", f"{self.order_type} needs the price that triggers it")
        _check_reduce_only(self.venue, reduce_only=self.reduce_only)
        return self

    @property
    def opens_risk(self) -> bool:
        """Whether executing this twice could enlarge a position."""
        return not self.reduce_only

    @property
    def is_urgent(self) -> bool:
        """Whether its order will be urgent: see `OrderIntent.is_urgent`."""
        return _is_urgent(self.venue, self.order_type, self.side, reduce_only=self.reduce_only)
