"""The audit trail: who did what and why, each row chained to the one before by hash.

The chain shows a row that was changed, taken out or moved. That rows are missing at its end shows in the anchor: the
number and hash of the last row, kept in a table of its own and moved in the transaction that appends. Whoever can write
to the database can forge both; a head (`SEQ:HASH`) that was noted elsewhere, such as in an alert, shows that too.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, select, text

from app.journal import schema
from app.journal.sql import upsert

_A = schema.audit
_ANCHOR = schema.audit_anchor
_LOCK = 0x66696C6C  # one advisory lock of PostgreSQL serializes the chain; SQLite writers are alone anyway
GENESIS = "0" * 64
PAGE: Final = 1000


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

    @property
    def head(self) -> str:
        """`SEQ:HASH`: noted elsewhere, it proves later that the trail up to this row is still the same."""
        return f"{self.seq}:{self.hash}"


def append(
    connection: Connection, *, now_ms: int, actor: str, action: str, subject: str, detail: Mapping[str, object]
) -> AuditRow:
    """Append an act in the caller's transaction.

    On PostgreSQL the chain is locked from here to the end of the transaction, so that this comes last in it.
    """
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
    upsert(connection, _ANCHOR, {"id": 1, "seq": row.seq, "hash": row.hash})
    return row


def rows(connection: Connection, *, subject: str | None = None, limit: int = 1000) -> list[AuditRow]:
    """Return the trail, oldest first, of everything or of one subject."""
    query = select(_A).order_by(_A.c.seq).limit(limit)
    if subject is not None:
        query = query.where(_A.c.subject == subject)
    return [AuditRow(**dict(row)) for row in connection.execute(query).mappings()]


def newest(
    connection: Connection, *, subject: str | None = None, limit: int | None = None, without_action: str | None = None
) -> list[AuditRow]:
    """Return the newest `limit` rows (all if None) of everything or of one subject, oldest first.

    Rows of `without_action` are passed over.
    """
    query = select(_A).order_by(_A.c.seq.desc()).limit(limit)
    if subject is not None:
        query = query.where(_A.c.subject == subject)
    if without_action is not None:
        query = query.where(_A.c.action != without_action)
    return [AuditRow(**dict(row)) for row in connection.execute(query).mappings()][::-1]


def last(connection: Connection) -> AuditRow | None:
    """Return the last row; None if nothing was done yet."""
    found = newest(connection, limit=1)
    return found[0] if found else None


def verify(connection: Connection, *, head: tuple[int, str] | None = None) -> list[str]:
    """Return what is wrong with the trail: changed, missing, added or reordered rows. Empty: nothing.

    Args:
        connection: One that sees the journal at one moment (`Journal.moment`): else a row that is appended meanwhile
            would look like one that is missing.
        head: Number and hash of a row as they were noted earlier; the trail must still hold it.
    """
    problems, previous, expected, noted = [], GENESIS, 1, ""
    for row in _all(connection):
        if row.seq != expected:
            problems.append(f"{_rows(expected, row.seq - 1)} missing: the trail goes on with row {row.seq}")
        if row.previous_hash != previous:
            problems.append(f"row {row.seq} does not follow the row before it")
        content: list[Any] = [row.seq, row.at_ms, row.actor, row.action, row.subject, row.detail]
        if row.hash != _hash(row.previous_hash, content):
            problems.append(f"row {row.seq} was changed")
        if head is not None and row.seq == head[0]:
            noted = row.hash
        previous, expected = row.hash, row.seq + 1
    problems += _against_anchor(connection, expected - 1, previous)
    if head is not None and noted != head[1]:
        problems.append(f"row {head[0]} is not the one that was noted: {'another hash' if noted else 'it is missing'}")
    return problems


def _against_anchor(connection: Connection, seq: int, hash_: str) -> list[str]:
    anchor = connection.execute(select(_ANCHOR.c.seq, _ANCHOR.c.hash)).first()
    if anchor is None:
        return ["the anchor is missing: rows may be missing at the end"] if seq else []
    if anchor.seq > seq:
        return [f"{_rows(seq + 1, anchor.seq)} missing at the end"]
    if anchor.seq < seq:
        return [f"{_rows(anchor.seq + 1, seq)} not ours: added past the anchor"]
    return [] if anchor.hash == hash_ else [f"row {seq} is not the one that the anchor names"]


def _all(connection: Connection) -> Iterator[AuditRow]:
    """Yield the trail page by page, so that memory does not grow with it."""
    after = 0
    while (
        page := connection.execute(select(_A).where(_A.c.seq > after).order_by(_A.c.seq).limit(PAGE)).mappings().all()
    ):
        for raw in page:
            yield AuditRow(**dict(raw))
        after = page[-1]["seq"]


def _rows(first: int, last_: int) -> str:
    return f"row {first} is" if first == last_ else f"rows {first} to {last_} are"


def _hash(previous: str, content: list[Any]) -> str:
    return hashlib.sha256(json.dumps([previous, *content], ensure_ascii=True).encode()).hexdigest()
