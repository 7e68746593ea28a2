"""The audit trail: who did what and why, each row chained to the one before by hash."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select, text

from app.journal import schema

_A = schema.audit
_LOCK = 0x66696C6C  # one advisory lock of PostgreSQL serializes the chain; SQLite writers are alone anyway
GENESIS = "0" * 64


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRow:
    """One act. `detail` is a JSON object."""

    seq: int
    at_ms: int
    actor: str
    action: str
    subject: str
    detail: str
    previous_hash: str
    hash: str


def append(
    connection: Connection, *, now_ms: int, actor: str, action: str, subject: str, detail: Mapping[str, object]
) -> AuditRow:
    """Append an act in the caller's transaction."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:id)"), {"id": _LOCK})
    last = connection.execute(select(_A.c.seq, _A.c.hash).order_by(_A.c.seq.desc()).limit(1)).first()
    seq, previous = (last.seq + 1, last.hash) if last else (1, GENESIS)
    body = json.dumps(dict(detail), sort_keys=True, default=str)
    content = [seq, now_ms, actor, action, subject, body]
    row = AuditRow(
        seq=seq, at_ms=now_ms, actor=actor, action=action, subject=subject, detail=body, previous_hash=previous,
        hash=_hash(previous, content),
    )  # fmt: skip
    connection.execute(_A.insert().values(**{name: getattr(row, name) for name in AuditRow.__dataclass_fields__}))
    return row


def rows(connection: Connection, *, subject: str | None = None, limit: int = 1000) -> list[AuditRow]:
    """Return the trail, oldest first, of everything or of one subject."""
    query = select(_A).order_by(_A.c.seq).limit(limit)
    if subject is not None:
        query = query.where(_A.c.subject == subject)
    return [AuditRow(**dict(row)) for row in connection.execute(query).mappings()]


def verify(connection: Connection) -> list[str]:
    """Return what is wrong with the chain: changed, missing or reordered rows. Empty: nothing."""
    problems, previous, expected = [], GENESIS, 1
    for raw in connection.execute(select(_A).order_by(_A.c.seq)).mappings():
        row = AuditRow(**dict(raw))
        if row.seq != expected:
            problems.append(f"row {expected} is missing: the trail goes on with row {row.seq}")
        if row.previous_hash != previous:
            problems.append(f"row {row.seq} does not follow the row before it")
        content: list[Any] = [row.seq, row.at_ms, row.actor, row.action, row.subject, row.detail]
        if row.hash != _hash(row.previous_hash, content):
            problems.append(f"row {row.seq} was changed")
        previous, expected = row.hash, row.seq + 1
    return problems


def _hash(previous: str, content: list[Any]) -> str:
    return hashlib.sha256(json.dumps([previous, *content], ensure_ascii=True).encode()).hexdigest()
