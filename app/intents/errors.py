"""Every error names the field and the remedy, in words of our own: the same with every version of the library."""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from pydantic import ValidationError

from app.intents.fields import MAX_ENTRIES, MAX_SHOWN, MAX_TEXT, MAX_VALID_FOR_S

REMEDIES: Final = {
    "key": "use 1 to 200 characters of A-Z a-z 0-9 . _ : -",
    "order_key": "give the key of the order intent that is to be canceled",
    "symbol": "write it as the exchange does, without separators: BTCUSDT",
    "venue": "use usdm or spot",
    "side": "use BUY or SELL",
    "order_type": "use MARKET, LIMIT, STOP_MARKET or TAKE_PROFIT_MARKET",
    "time_in_force": "use GTC, IOC, FOK or GTX, and only with LIMIT",
    "valid_for_s": f"use whole seconds from 1 to {MAX_VALID_FOR_S}, or leave it out",
    "reduce_only": "use true or false, without quotes",
    "type": "use order, cancel, position, ledger, pnl or signal",
    "strategy": "use at most 64 characters of A-Z a-z 0-9 . _ : -",
    "account": "use A-Z a-z 0-9 . _ : - only: at most 64 characters, in a ledger entry 1 to 100",
    "asset": "write it as the exchange does: USDT",
    "commissionAsset": "write it as the exchange does: USDT",
    "reason": f"use at most {MAX_TEXT} characters on one line",
    "description": f"use 1 to {MAX_TEXT} characters on one line",
    "entries": f'give 2 to {MAX_ENTRIES} entries such as {{"account": "cash", "asset": "USDT", "amount": "-5"}}',
    "trade": "give the exchange's own fields: id, orderId, side, price, qty, commission, commissionAsset, time",
    "id": "give the exchange's whole number, without quotes",
    "orderId": "give the exchange's whole number, without quotes",
    "time": "give the exchange's milliseconds as a whole number, without quotes",
}
DECIMAL_REMEDY: Final = 'write a positive plain decimal in a string, for example "0.010"'
SIGNED_REMEDY: Final = 'write a plain decimal in a string, for example "-0.010"'
_SIGNED_FIELDS: Final = frozenset({"amount", "commission", "realizedPnl"})
_DECIMAL_FIELDS: Final = frozenset({"quantity", "price", "stop_price", "qty"}) | _SIGNED_FIELDS
_PROBLEMS: Final = {
    # What pydantic calls it, and how we say it. Shorter, and the same with every version of the library.
    "string_type": "must be text in quotes",
    "int_type": "must be a whole number",
    "bool_type": "is neither true nor false",
    "greater_than_equal": "is too small",
    "less_than_equal": "is too large",
    "string_too_long": "is too long",
    "string_too_short": "is empty",
    "string_unicode": "holds half of a character",
    "too_long": "has too many entries",
    "too_short": "has too few entries",
    "tuple_type": "must be a list",
    "model_type": "must be a JSON object",
}


class IntentError(ValueError):
    """An intent that cannot be taken: which field, what is wrong, and what to do about it."""

    def __init__(self, field: str, problem: str, remedy: str) -> None:
        super().__init__(field, problem, remedy)
        self.field = field
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.field}: {self.problem}; {self.remedy}" if self.remedy else f"{self.field}: {self.problem}"


class InconsistentError(ValueError):
    """Fields that are well-formed and do not go together."""

    def __init__(self, field: str, problem: str, remedy: str) -> None:
        super().__init__(field, problem, remedy)
        self.field = field
        self.problem = problem
        self.remedy = remedy


def explain(error: ValidationError, kind: str, fields_at: Callable[[Sequence[str]], Iterable[str]]) -> IntentError:
    """Return what is wrong first, as an error that names the field and the remedy.

    Args:
        error: What pydantic found.
        kind: The type of the intent.
        fields_at: Returns the fields of the object at a place of this intent.
    """
    first = error.errors(include_url=False)[0]
    place = [str(part) for part in first["loc"]]
    field, leaf = ".".join(place) or kind, leaf_of(place)
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, InconsistentError):
        return IntentError(cause.field, cause.problem, cause.remedy)
    remedy = _remedy(leaf)
    match first["type"]:
        case "extra_forbidden":
            return IntentError(field[:MAX_TEXT], "is not a known field", f"use only {', '.join(fields_at(place[:-1]))}")
        case "missing":
            return IntentError(field, "is missing", remedy)
        case "string_pattern_mismatch" | "literal_error":
            shown = str(first["input"])
            text = repr(shown) if len(shown) <= MAX_SHOWN else f"{shown[:MAX_SHOWN]!r}…"
            return IntentError(field, f"{text} cannot be used", remedy)
        case "value_error":
            return IntentError(field, str(cause), remedy)
        case known:
            return IntentError(field, _PROBLEMS.get(known, "cannot be used"), remedy)


def leaf_of(place: Sequence[str]) -> str:
    """Return the name that says what the value is: that of the field, or of the list that the value stands in."""
    return next((part for part in reversed(place) if not part.isdigit()), "")


def _remedy(leaf: str) -> str:
    if leaf in _DECIMAL_FIELDS:
        return SIGNED_REMEDY if leaf in _SIGNED_FIELDS else DECIMAL_REMEDY
    return REMEDIES.get(leaf, "correct it")
