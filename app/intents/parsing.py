"""From a decoded JSON object to an intent, and from an intent to the text that stands for its content."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any, Final, TypeAlias

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from app.intents.errors import REMEDIES, IntentError, explain, leaf_of
from app.intents.fields import MAX_SHOWN
from app.intents.models import (
    CancelIntent,
    Entry,
    LedgerIntent,
    OrderIntent,
    PnlIntent,
    PositionIntent,
    SignalIntent,
    Trade,
)

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
MAX_REMEMBERED: Final = 64
"""Intents that are kept once read: whoever works on one asks for it again and again."""

_ADAPTERS: Final = {name: TypeAdapter[Any](model) for name, model in _MODELS.items()}
_ANY: Final = TypeAdapter[Any](Annotated[Intent, Field(discriminator="type")])

_CANONICAL: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True)


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
        problem = f"{kind[:MAX_SHOWN]!r} is not a type of intent" if isinstance(kind, str) else "must be text in quotes"
        problem = problem if "type" in data else "is missing"
        raise IntentError("type", problem, REMEDIES["type"])
    try:
        intent: Intent = adapter.validate_python(data)
    except ValidationError as error:
        raise explain(error, kind or "", lambda place: _fields_at(kind or "", place)) from error
    return intent


def canonical(intent: Intent) -> str:
    """Return the text that stands for the content of `intent`: sorted JSON, decimals without trailing zeros."""
    return canonical_of(fields_of(intent))


def fields_of(intent: Intent) -> dict[str, Any]:
    """Return the fields of `intent` as JSON has them."""
    return intent.model_dump(mode="json")


def canonical_of(fields: dict[str, Any]) -> str:
    """Return the canonical text of an intent with these fields."""
    return _CANONICAL.encode(fields)


def content_hash(text: str) -> str:
    """Return the SHA-256, in hex, of a canonical text."""
    return hashlib.sha256(text.encode()).hexdigest()


@lru_cache(maxsize=MAX_REMEMBERED)
def from_canonical(text: str) -> Intent:
    """Return the intent that `canonical` wrote. Intents do not change, so that the last ones are kept.

    Raises:
        IntentError: as `parse_intent`: somebody else has written it.
    """
    try:
        intent: Intent = _ANY.validate_json(text)
    except ValidationError:
        return parse_intent(json.loads(text))  # which says what is wrong
    return intent


def _fields_at(kind: str, place: Sequence[str]) -> Iterable[str]:
    models: Mapping[str, type[BaseModel]] = {"trade": Trade, "entries": Entry}
    return models.get(leaf_of(place), _MODELS[kind]).model_fields
