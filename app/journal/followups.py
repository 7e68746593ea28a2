"""The outbox: what must still be done because of something that is done, written in the transaction that did it.

The receiving side is unique by follow-up key: a handler calls `finish` in the transaction that has the effect, so that
a second delivery finds the work done. Delivery itself may happen twice, late, or never until the sweeper repeats it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from sqlalchemy import Connection, Integer, bindparam, select, update

from app.journal import schema
from app.journal.prepared import Bound, Prepared, counts_of
from app.journal.sql import insert_ignore, insertion, word

ALERT: Final = "alert"
"""The one kind that no queue delivers: the keeper does, beside the work."""

_JSON: Final = json.JSONEncoder(sort_keys=True)
_F = schema.followups
_NAMES = tuple(column.name for column in _F.c)
_DUE = select(_F).where(_F.c.done_at_ms.is_(None), _F.c.run_at_ms <= bindparam("now_ms"))
_MOST = bindparam("most", type_=Integer)
_DUE_OF_KIND = _DUE.where(_F.c.kind == bindparam("of_kind")).order_by(_F.c.run_at_ms, _F.c.key).limit(_MOST)
_OF_KIND = Prepared(_DUE_OF_KIND)
_LOCK_KIND = Prepared(_DUE_OF_KIND.with_for_update(skip_locked=True))
_OVERDUE = Prepared(_DUE.where(_F.c.kind != word(ALERT)).order_by(_F.c.run_at_ms).limit(_MOST))


@dataclass(frozen=True, slots=True, kw_only=True)
class Followup:
    """One entry of the outbox. `payload` is a JSON object; `run_at_ms` says from when it may run."""

    key: str
    kind: str
    queue: str
    intent_key: str | None
    payload: Mapping[str, Any]
    run_at_ms: int
    tries: int = 0


def add(connection: Connection, followup: Followup, *, now_ms: int) -> bool:
    """Write `followup` unless its key is known; return whether it is new."""
    return counts_of(connection, addition(followup, now_ms=now_ms)) == [1]


def addition(followup: Followup, *, now_ms: int) -> Bound:
    """Return the statement that writes `followup` unless its key is known, to be run with others."""
    return insertion(
        schema.followups,
        key=followup.key,
        kind=followup.kind,
        queue=followup.queue,
        intent_key=followup.intent_key,
        payload=_JSON.encode(followup.payload),
        run_at_ms=followup.run_at_ms,
        tries=0,
        created_at_ms=now_ms,
    )


def load_open(connection: Connection, key: str, *, lock: bool = False) -> Followup | None:
    """Return the follow-up if it is still to be done, else None. `lock` holds its row until the transaction ends."""
    query = select(schema.followups).where(schema.followups.c.key == key, schema.followups.c.done_at_ms.is_(None))
    row = connection.execute(query.with_for_update() if lock else query).mappings().first()
    return None if row is None else _from_row(cast("Mapping[str, Any]", row))


def open_of_kind(connection: Connection, kind: str, *, now_ms: int, limit: int, lock: bool = False) -> list[Followup]:
    """Return up to `limit` due follow-ups of `kind`, oldest first; rows locked by somebody else are passed over."""
    return _typed((_LOCK_KIND if lock else _OF_KIND).rows(connection, of_kind=kind, now_ms=now_ms, most=limit))


def open_of_intent(connection: Connection, intent_key: str, kinds: Sequence[str]) -> list[Followup]:
    """Return what is still to be done for an intent, of these kinds."""
    query = select(schema.followups).where(
        schema.followups.c.intent_key == intent_key,
        schema.followups.c.done_at_ms.is_(None),
        schema.followups.c.kind.in_(list(kinds)),
    )
    return [_from_row(cast("Mapping[str, Any]", row)) for row in connection.execute(query).mappings()]


def overdue(connection: Connection, *, now_ms: int, limit: int) -> list[Followup]:
    """Return what a queue should have done by now, of every kind, oldest first."""
    return _typed(_OVERDUE.rows(connection, now_ms=now_ms, most=limit))


def claim(connection: Connection, followup: Followup, *, now_ms: int, until_ms: int) -> bool:
    """Take a due follow-up for oneself until `until_ms`; return False if another was quicker."""
    table = schema.followups
    result = connection.execute(
        update(table)
        .where(
            table.c.key == followup.key,
            table.c.done_at_ms.is_(None),
            table.c.run_at_ms == followup.run_at_ms,
            table.c.run_at_ms <= now_ms,
        )
        .values(run_at_ms=until_ms)
    )
    return result.rowcount == 1


def finish(connection: Connection, key: str, *, now_ms: int) -> bool:
    """Mark a follow-up done, in the transaction of its effect; return False if it was done before."""
    table = schema.followups
    result = connection.execute(
        update(table).where(table.c.key == key, table.c.done_at_ms.is_(None)).values(done_at_ms=now_ms)
    )
    insert_ignore(connection, schema.inbox, [{"key": key, "received_at_ms": now_ms}])
    return result.rowcount == 1


def postpone(connection: Connection, key: str, *, run_at_ms: int, error: str | None = None) -> None:
    """Try again at `run_at_ms`; `error` says why it did not work."""
    table = schema.followups
    connection.execute(
        update(table)
        .where(table.c.key == key, table.c.done_at_ms.is_(None))
        .values(run_at_ms=run_at_ms, tries=table.c.tries + 1, last_error=error)
    )


def _typed(found: Sequence[tuple[Any, ...]]) -> list[Followup]:
    return [_from_row(dict(zip(_NAMES, values, strict=True))) for values in found]


def _from_row(row: Mapping[str, Any]) -> Followup:
    return Followup(
        key=row["key"],
        kind=row["kind"],
        queue=row["queue"],
        intent_key=row["intent_key"],
        payload=json.loads(row["payload"]),
        run_at_ms=row["run_at_ms"],
        tries=row["tries"],
    )
