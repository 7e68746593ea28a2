"""What a producer can ask for, checked at the door: every error names the field and the remedy.

The canonical text of an intent is what two submissions under one key are compared by.
"""

from app.intents.description import describe, line_of
from app.intents.errors import IntentError
from app.intents.fields import CONDITIONAL_TYPES, MAX_VALID_FOR_S
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
from app.intents.parsing import (
    INTENT_TYPES,
    Intent,
    canonical,
    canonical_of,
    content_hash,
    fields_of,
    from_canonical,
    parse_intent,
)

__all__ = [
    "CONDITIONAL_TYPES",
    "INTENT_TYPES",
    "MAX_VALID_FOR_S",
    "CancelIntent",
    "Entry",
    "Intent",
    "IntentError",
    "LedgerIntent",
    "OrderIntent",
    "PnlIntent",
    "PositionIntent",
    "SignalIntent",
    "Trade",
    "canonical",
    "canonical_of",
    "content_hash",
    "describe",
    "fields_of",
    "from_canonical",
    "line_of",
    "parse_intent",
]
