"""What a field of an intent may hold. A number is a decimal in a string: a JSON number has been through a float."""

from decimal import Decimal
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field, PlainSerializer

from app.money import MAX_DIGITS, parse, plain

MAX_VALID_FOR_S: Final = 30 * 24 * 3600
MAX_TEXT: Final = 200
MAX_ENTRIES: Final = 100
MAX_SHOWN: Final = 40
"""How much of a wrong value an error repeats."""
MAX_INT64: Final = 2**63 - 1


def _decimal(value: object) -> Decimal:
    if isinstance(value, Decimal):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise ValueError("is a JSON number, which is not exact")  # noqa: TRY004 - pydantic wants ValueError
    if not isinstance(value, str):
        raise ValueError("is not a decimal in a string")  # noqa: TRY004 - pydantic wants ValueError
    try:
        return parse(value)
    except ValueError:
        shown = repr(value) if len(value) <= MAX_SHOWN else f"{value[:MAX_SHOWN]!r}…"
        reason = (
            f"has more than {MAX_DIGITS} digits"
            if sum(char in "0123456789" for char in value) > MAX_DIGITS
            else "is not a plain decimal"
        )
        raise ValueError(f"{shown} {reason}") from None


def _positive(value: object) -> Decimal:
    amount = _decimal(value)
    if amount <= 0:
        raise ValueError(f"{plain(amount)} is not greater than zero")
    return amount


_plain = PlainSerializer(plain, return_type=str)
Amount = Annotated[Decimal, BeforeValidator(_decimal), _plain]
PositiveAmount = Annotated[Decimal, BeforeValidator(_positive), _plain]
Key = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{1,200}$")]
Symbol = Annotated[str, Field(pattern=r"^[A-Z0-9]{2,20}$")]
Asset = Annotated[str, Field(pattern=r"^[A-Z0-9]{1,20}$")]
Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{0,64}$")]
# No control characters: PostgreSQL stores no NUL, and a newline would forge lines of a log or a table.
Line = Annotated[str, Field(max_length=MAX_TEXT, pattern=r"^[^\x00-\x1f\x7f]*$")]
ExchangeNumber = Annotated[int, Field(ge=0, le=MAX_INT64)]
VenueName = Literal["usdm", "spot"]
Side = Literal["BUY", "SELL"]
OrderType = Literal["MARKET", "LIMIT", "STOP_MARKET", "TAKE_PROFIT_MARKET"]
CONDITIONAL_TYPES: Final = frozenset({"STOP_MARKET", "TAKE_PROFIT_MARKET"})
