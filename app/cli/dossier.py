"""All that the journal knows of one intent, in one view."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any, Final

from sqlalchemy import Connection, or_, select

from app.cli.intent_pages import summary
from app.cli.output import as_table, cell, iso
from app.journal import archive, attempts, audit, schema
from app.journal.intents import load

_TIME_SUFFIX: Final = "_ms"
_DURATIONS: Final = frozenset({"recv_window_ms", "retry_delay_ms", "answered_doubt_ms"})
_TABLES: Final[Mapping[str, tuple[str, ...]]] = {
    "attempts": ("attempt", "outcome", "settled_by", "rule", "http_status", "code", "dispatched_at", "answer"),
    "proofs": ("order_id", "status", "executed_quantity", "source", "state_before", "recorded_at"),
    "fills": ("trade_id", "side", "price", "quantity", "commission", "commission_asset", "time"),
    "postings": ("transaction_id", "account", "asset", "amount", "description"),
    "followups": ("key", "kind", "tries", "run_at", "done_at", "last_error"),
    "cancels": ("key", "state", "attempts", "reason"),
    "audit": ("at", "actor", "action", "detail"),
}


def collect(connection: Connection, key: str) -> dict[str, Any]:
    """Return the dossier of an intent as JSON-ready values; decimals stay decimals.

    Raises:
        IntentNotFoundError: the journal does not know the key.
    """
    row = load(connection, key)
    rest = {name: value for name, value in row._asdict().items() if name not in {"content", "attempt"}}
    fills = _select(connection, schema.fills, schema.fills.c.key == key)
    archived = archive.find(connection, key)
    old = archived.rows if archived else {name: [] for name in archive.TABLES}
    tried = archived.attempts() if archived else attempts.of_intent(connection, key)
    return {
        **summary(row),
        "archived_at": iso(archived.archived_at_ms) if archived else None,
        "archived_in": archived.place if archived else None,
        **{name: value for name, value in _timed(rest).items() if name not in summary(row)},
        "intent": json.loads(row.content),
        "attempts": row.attempt,
        "dispatches": [_attempt(attempt._asdict()) for attempt in tried],
        "proofs": [_timed(proof) for proof in [*old["proofs"], *attempts.proofs_of(connection, key)]],
        "fills": [_timed(fill) for fill in fills],
        "postings": _postings(connection, key, fills),
        "followups": [
            _timed(item)
            for item in [
                *old["followups"],
                *_select(connection, schema.followups, schema.followups.c.intent_key == key),
            ]
        ],
        "cancels": [
            {"key": item["key"], "state": item["state"], "attempts": item["attempt"], "reason": item["reason"]}
            for item in _select(connection, schema.intents, schema.intents.c.parent_key == key)
        ],
        "audit": [
            {**_timed(asdict(entry)), "detail": json.loads(entry.detail)}
            for entry in audit.rows(connection, subject=key)
        ],
    }


def as_text(dossier: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines that a person reads."""
    width = max(len(name) for name in dossier)
    for name, value in dossier.items():
        if value is None or isinstance(value, list | dict):
            continue
        yield f"{name.replace('_', ' '):<{width}}  {cell(value)}"
    yield ""
    yield "intent"
    for name, value in dossier["intent"].items():
        yield f"  {name}: {cell(json.dumps(value) if isinstance(value, list | dict) else value)}"
    for name, columns in _TABLES.items():
        rows = dossier["dispatches" if name == "attempts" else name]
        yield ""
        yield name if rows else f"{name}: none"
        headers = [column.replace("_", " ") for column in columns]
        if rows:
            yield from (f"  {line}" for line in as_table(headers, [[row.get(c) for c in columns] for row in rows]))


def _attempt(row: Mapping[str, Any]) -> dict[str, Any]:
    fields = _timed({name: value for name, value in row.items() if name != "key"})
    evidence = row["evidence"]
    return {**fields, "evidence": None if evidence is None else json.loads(evidence)}


def _postings(connection: Connection, key: str, fills: list[dict[str, Any]]) -> list[dict[str, Any]]:
    transactions, postings = schema.transactions, schema.postings
    of_fills = [f"trade:{fill['venue']}:{fill['symbol']}:{fill['trade_id']}" for fill in fills]
    query = (
        select(postings, transactions.c.description, transactions.c.time_ms)
        .join(transactions, transactions.c.id == postings.c.transaction_id)
        .where(or_(transactions.c.key == key, transactions.c.id.in_(of_fills)))
        .order_by(transactions.c.time_ms, postings.c.transaction_id, postings.c.line)
    )
    return [_timed(dict(row)) for row in connection.execute(query).mappings()]


def _select(connection: Connection, table: Any, condition: Any) -> list[dict[str, Any]]:
    query = select(table).where(condition).order_by(*table.primary_key.columns)
    return [dict(row) for row in connection.execute(query).mappings()]


def _timed(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with its times as ISO 8601; durations and the pinned timestamp stay numbers."""
    result: dict[str, Any] = {}
    for name, value in row.items():
        is_time = name.endswith(_TIME_SUFFIX) and name not in _DURATIONS and name != "timestamp_ms"
        result[name.removesuffix(_TIME_SUFFIX) if is_time else name] = iso(value or None) if is_time else value
    return result
