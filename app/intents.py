"""What a producer can ask for, checked at the door: every error names the field and the remedy.

Numbers are decimals in strings. A JSON number has been through a float somewhere, so it is refused, whole numbers
included. The canonical text of an intent is what two submissions under one key are compared by.
"""

import hashlib
import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, Final, Literal, Self, TypeAlias

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from app.money import parse, plain, total

MAX_VALID_FOR_S: Final = 30 * 24 * 3600
MAX_TEXT: Final = 200
MAX_ENTRIES: Final = 100

REMEDIES: Final = {
    "key": "use 1 to 200 characters of A-Z a-z 0-9 . _ : -",
    "symbol": "write it as the exchange does, without separators: BTCUSDT",
    "venue": "use usdm or spot",
    "side": "use BUY or SELL",
    "order_type": "use MARKET, LIMIT, STOP_MARKET or TAKE_PROFIT_MARKET",
    "time_in_force": "use GTC, IOC, FOK or GTX, and only with LIMIT",
    "valid_for_s": f"use whole seconds from 1 to {MAX_VALID_FOR_S}, or leave it out",
    "reduce_only": "use true or false",
    "type": "use order, cancel, position, ledger, pnl or signal",
}
DECIMAL_REMEDY: Final = 'write a positive plain decimal in a string, for example "0.010"'


class IntentError(ValueError):
    """An intent that cannot be taken: which field, what is wrong, and what to do about it."""

    def __init__(self, field: str, problem: str, remedy: str) -> None:
        super().__init__(field, problem, remedy)
        self.field = field
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.field}: {self.problem}; {self.remedy}" if self.remedy else f"{self.field}: {self.problem}"


def _decimal(value: object) -> Decimal:
    if isinstance(value, Decimal):
        return value
    if not isinstance(value, str):
        kind = {"int": "a JSON number", "float": "a JSON number", "bool": "true or false"}.get(type(value).__name__)
        raise ValueError(f"{kind or type(value).__name__} is not exact")  # noqa: TRY004 - pydantic wants ValueError
    return parse(value)


def _positive(value: object) -> Decimal:
    amount = _decimal(value)
    if amount <= 0:
        raise ValueError("must be greater than zero")
    return amount


_plain = PlainSerializer(plain, return_type=str)
Amount = Annotated[Decimal, BeforeValidator(_decimal), _plain]
PositiveAmount = Annotated[Decimal, BeforeValidator(_positive), _plain]
Key = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{1,200}$")]
Symbol = Annotated[str, Field(pattern=r"^[A-Z0-9]{2,20}$")]
Asset = Annotated[str, Field(pattern=r"^[A-Z0-9]{1,20}$")]
Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{0,64}$")]
VenueName = Literal["usdm", "spot"]
Side = Literal["BUY", "SELL"]
OrderType = Literal["MARKET", "LIMIT", "STOP_MARKET", "TAKE_PROFIT_MARKET"]
CONDITIONAL_TYPES: Final = frozenset({"STOP_MARKET", "TAKE_PROFIT_MARKET"})


class _Base(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    key: Key


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
        problem = self._problem()
        if problem:
            raise ValueError(problem)
        if self.order_type == "LIMIT" and self.time_in_force is None:
            object.__setattr__(self, "time_in_force", "GTC")
        return self

    def _problem(self) -> str | None:
        if self.order_type == "LIMIT" and self.price is None:
            return "price|is missing|a LIMIT order needs a price"
        if self.order_type != "LIMIT" and self.price is not None:
            return f"price|does not go with {self.order_type}|leave it out, or use order_type LIMIT"
        if self.order_type in CONDITIONAL_TYPES and self.stop_price is None:
            return f"stop_price|is missing|{self.order_type} needs the price that triggers it"
        if self.order_type not in CONDITIONAL_TYPES and self.stop_price is not None:
            return f"stop_price|does not go with {self.order_type}|leave it out"
        if self.order_type != "LIMIT" and self.time_in_force is not None:
            return f"time_in_force|does not go with {self.order_type}|{REMEDIES['time_in_force']}"
        if self.reduce_only and self.venue == "spot":
            return "reduce_only|does not exist on spot|leave it out, or use venue usdm"
        return None

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
        return self.reduce_only or (self.venue == "spot" and self.is_conditional and self.side == "SELL")


class CancelIntent(_Base):
    """Cancel the order of another intent."""

    type: Literal["cancel"] = "cancel"
    order_key: Key


class Trade(BaseModel):
    """A trade with the exchange's own field names (userTrades, myTrades)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    id: Annotated[int, Field(ge=0)]
    orderId: Annotated[int, Field(ge=0)]  # noqa: N815 - the exchange's name
    side: Side
    price: PositiveAmount
    qty: PositiveAmount
    commission: Amount
    commissionAsset: Asset  # noqa: N815 - the exchange's name
    realizedPnl: Amount = Decimal(0)  # noqa: N815 - the exchange's name
    time: Annotated[int, Field(ge=0)]


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
    description: Annotated[str, Field(min_length=1, max_length=MAX_TEXT)]
    entries: Annotated[tuple[Entry, ...], Field(min_length=2, max_length=MAX_ENTRIES, strict=False)]

    @model_validator(mode="after")
    def _balanced(self) -> Self:
        for asset in sorted({entry.asset for entry in self.entries}):
            rest = total(entry.amount for entry in self.entries if entry.asset == asset)
            if rest != 0:
                raise ValueError(f"entries|sum to {plain(rest)} {asset}, not to zero|balance each asset")
        return self


class PnlIntent(_Base):
    """Book one trade into profit and loss."""

    type: Literal["pnl"] = "pnl"
    venue: VenueName
    symbol: Symbol
    trade: Trade


class SignalIntent(_Base):
    """A strategy's wish. Becomes an order intent, its quantity rounded down to the exchange's steps."""

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
    reason: Annotated[str, Field(max_length=MAX_TEXT)] = ""


Intent: TypeAlias = OrderIntent | CancelIntent | PositionIntent | LedgerIntent | PnlIntent | SignalIntent
_MODELS: Final[Mapping[str, type[Intent]]] = {
    "order": OrderIntent,
    "cancel": CancelIntent,
    "position": PositionIntent,
    "ledger": LedgerIntent,
    "pnl": PnlIntent,
    "signal": SignalIntent,
}
INTENT_TYPES: Final = tuple(_MODELS)
_ADAPTERS: Final = {name: TypeAdapter[Any](model) for name, model in _MODELS.items()}


def parse_intent(data: object) -> Intent:
    """Return the intent that `data`, a decoded JSON object, describes.

    Raises:
        IntentError: names the first field that is wrong, and the remedy.
    """
    if not isinstance(data, dict):
        raise IntentError("line", "is not a JSON object", 'write {"type": "order", "key": …}')
    kind = data.get("type")
    adapter = _ADAPTERS.get(kind) if isinstance(kind, str) else None
    if adapter is None:
        problem = "is missing" if "type" not in data else f"{str(kind)[:40]!r} is not a type of intent"
        raise IntentError("type", problem, REMEDIES["type"])
    try:
        intent: Intent = adapter.validate_python(data)
    except ValidationError as error:
        raise _explain(error, kind or "") from error
    return intent


def canonical(intent: Intent) -> str:
    """Return the text that stands for the content of `intent`: sorted JSON, decimals without trailing zeros."""
    return json.dumps(intent.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def content_hash(text: str) -> str:
    """Return the SHA-256, in hex, of a canonical text."""
    return hashlib.sha256(text.encode()).hexdigest()


def from_canonical(text: str) -> Intent:
    """Return the intent that `canonical` wrote."""
    return parse_intent(json.loads(text))


def _explain(error: ValidationError, kind: str) -> IntentError:
    first = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"]) or kind
    leaf = str(first["loc"][-1]) if first["loc"] else ""
    text = first["msg"].removeprefix("Value error, ")
    match first["type"]:
        case "extra_forbidden":
            fields = ", ".join(_MODELS[kind].model_fields)
            return IntentError(field, "is not a field of this intent", f"fields of {kind}: {fields}")
        case "missing":
            return IntentError(
                field, "is missing", REMEDIES.get(leaf, DECIMAL_REMEDY if leaf == "quantity" else "add it")
            )
        case "string_pattern_mismatch":
            return IntentError(
                field, f"{str(first['input'])[:40]!r} has the wrong form", REMEDIES.get(leaf, "see --help")
            )
        case "value_error" if text.count("|") == 2:
            name, problem, remedy = text.split("|")
            return IntentError(name, problem, remedy)
        case "value_error":
            return IntentError(field, text, DECIMAL_REMEDY)
        case _:
            return IntentError(field, text[:1].lower() + text[1:], REMEDIES.get(leaf, "correct it"))
