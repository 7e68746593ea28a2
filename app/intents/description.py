"""An intent in one line, for people at a dashboard. Nothing reads it back."""

import json
from typing import Any

MAX_LENGTH = 200
UNREADABLE = "its content cannot be read"


def describe(content: str) -> str:
    """Return what a canonical text says in one line: `order BTCUSDT BUY 0.01 MARKET usdm · key`.

    Never raises: one row that cannot be read must not stop the sweeper, which describes all that it delivers.
    """
    try:
        return line_of(json.loads(content))
    except (KeyError, TypeError, ValueError):
        return UNREADABLE


def line_of(fields: dict[str, Any]) -> str:
    """Return the same of an intent's own fields, as `fields_of` tells them."""
    words = [fields["type"], *_WORDS.get(fields["type"], _traded)(fields)]
    line = " ".join([str(word) for word in words if word])
    return f"{line[:MAX_LENGTH]} · {fields['key']}"


def _ordered(fields: dict[str, Any]) -> list[Any]:
    price = fields.get("price") or fields.get("stop_price")
    return [
        *(fields["symbol"], fields["side"], fields["quantity"], fields["order_type"]),
        *(f"at {price}" if price else "", "reduce-only" if fields["reduce_only"] else "", fields["venue"]),
    ]


def _canceled(fields: dict[str, Any]) -> list[Any]:
    return ["of", fields["order_key"]]


def _posted(fields: dict[str, Any]) -> list[Any]:
    return [fields["description"]]


def _traded(fields: dict[str, Any]) -> list[Any]:
    trade = fields["trade"]
    return [fields["symbol"], trade["side"], trade["qty"], f"at {trade['price']}", fields["venue"]]


_WORDS = {"order": _ordered, "signal": _ordered, "cancel": _canceled, "ledger": _posted}
