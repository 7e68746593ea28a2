"""Seals attempts that have settled: one row of the audit trail holds a hash over a batch of them.

Beside the work, never in the transaction that dispatches: a chain there would make every worker wait for every other.
A record per attempt keeps its digest and which row of the trail covers it. Records, trail and mark commit together:
whoever is killed, or runs twice, seals all of a batch once or none of it.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, cast

from sqlalchemy import Connection, Select, bindparam, insert, select, update

from app.journal import audit, schema
from app.journal.engine import Journal
from app.money import wire

BATCH: Final = 500
"""Attempts per row of the trail. On SQLite nobody else writes while a batch is sealed, so that it is small."""

LATE_MS: Final = 600_000
"""What settled longer ago should be sealed: otherwise no keeper has run, or somebody keeps it from sealing."""

SEALED: Final = "attempts_sealed"
SUBJECT: Final = "attempts"
FORM: Final = 1
"""The form of what is hashed. Another list of columns is another form: old seals go on to be verified by theirs."""

ATTEMPT_COLUMNS: Final = (
    "key", "attempt", "owner", "fence", "client_order_id", "timestamp_ms", "recv_window_ms", "payload_hash",
    "config_hash", "dispatched_at_ms", "outcome", "settled_at_ms", "settled_by", "unknown_at_ms", "failure_class",
    "rule", "http_status", "code", "answer", "retry_delay_ms", "evidence",
)  # fmt: skip
INTENT_COLUMNS: Final = ("type", "venue", "symbol", "content", "content_hash")
"""What was asked for: quantity and price are in `content`. It never changes once it is journaled."""

_A, _I, _R = schema.attempts, schema.intents, schema.attempt_seals
CONTENT: Final = (*(_A.c[name] for name in ATTEMPT_COLUMNS), *(_I.c[name] for name in INTENT_COLUMNS))


def seal(connection: Connection, *, now_ms: int, by: str, limit: int = BATCH) -> int:
    """Seal up to `limit` attempts in the caller's transaction; return how many. Nothing may come after it there.

    Args:
        connection: A write transaction. Attempts that somebody else holds are passed over, not waited for.
        now_ms: The time of the seal.
        by: The process that seals.
        limit: Attempts at most.
    """
    rows = [cast("Mapping[str, Any]", row) for row in connection.execute(unsealed_query(limit)).mappings()]
    if not rows:
        return 0
    records = [
        {"position": position, "key": row["key"], "attempt": row["attempt"], "digest": digest(row)}
        for position, row in enumerate(rows, start=1)
    ]
    settled = [row["settled_at_ms"] for row in rows]
    entry = audit.append(
        connection,
        now_ms=now_ms,
        actor=by,
        action=SEALED,
        subject=SUBJECT,
        detail={
            "form": FORM,
            "attempts": len(records),
            "first": [rows[0]["key"], rows[0]["attempt"], settled[0]],
            "last": [rows[-1]["key"], rows[-1]["attempt"], settled[-1]],
            "sealed_again": _sealed_before(connection, [row["key"] for row in rows], records),
            "sha256": batch_digest(records),
            "why": f"{len(records)} attempts have settled",
        },
    )
    connection.execute(insert(_R), [{**record, "seal": entry.seq} for record in records])
    mark = update(_A).where(_A.c.key == bindparam("of_key"), _A.c.attempt == bindparam("of_attempt"))
    connection.execute(
        mark.values(seal=entry.seq), [{"of_key": one["key"], "of_attempt": one["attempt"]} for one in records]
    )
    return len(records)


def is_due(journal: Journal) -> bool:
    """Return whether an attempt has settled that no seal covers.

    Raises:
        StoreUnavailableError: the journal does not answer.
    """
    query = select(_A.c.key).where(_A.c.seal.is_(None), _A.c.outcome.is_not(None)).limit(1)
    with journal.read() as connection:
        return connection.execute(query).first() is not None


def unsealed_query(limit: int) -> Select[Any]:
    """The oldest settled attempts that no seal covers, locked."""
    return (
        select(*CONTENT)
        .join_from(_A, _I, _A.c.key == _I.c.key)
        .where(_A.c.seal.is_(None), _A.c.outcome.is_not(None))
        .order_by(_A.c.settled_at_ms)
        .limit(limit)
        .with_for_update(of=_A, skip_locked=True)
    )


def digest(row: Mapping[str, Any]) -> str:
    """Return the hash of all that is sealed of an attempt, the same on every database."""
    return _sha256([FORM, *(row[name] for name in (*ATTEMPT_COLUMNS, *INTENT_COLUMNS))])


def batch_digest(records: Sequence[Mapping[str, Any]]) -> str:
    """Return the hash of a batch: place, key, number and digest of each of its attempts."""
    return _sha256([[one["position"], one["key"], one["attempt"], one["digest"]] for one in records])


def _sealed_before(connection: Connection, keys: list[str], records: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    """Return those of a batch that an earlier seal covers too: they were opened again since."""
    known = {
        (row.key, row.attempt) for row in connection.execute(select(_R.c.key, _R.c.attempt).where(_R.c.key.in_(keys)))
    }
    return [[one["key"], one["attempt"]] for one in records if (one["key"], one["attempt"]) in known]


def _sha256(content: list[Any]) -> str:
    text = json.dumps(content, ensure_ascii=True, separators=(",", ":"), default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: object) -> str:
    """Return a value that JSON lacks as text; what nobody of ours has written must not stop the sealer either."""
    return wire(value) if isinstance(value, Decimal) else f"{type(value).__name__}:{value!r}"
