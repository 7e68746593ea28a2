"""Follow-ups by the set: what `app.journal.followups` does for one, for many in as many statements."""

import json
from collections.abc import Sequence

from sqlalchemy import Connection, update

from app.books.sql import insert_new
from app.journal import schema
from app.journal.followups import Followup


def add_all(connection: Connection, wanted: Sequence[Followup], *, now_ms: int) -> None:
    """Write those of `wanted` whose key is not known."""
    rows = [
        {
            "key": followup.key,
            "kind": followup.kind,
            "queue": followup.queue,
            "intent_key": followup.intent_key,
            "payload": json.dumps(dict(followup.payload), sort_keys=True),
            "run_at_ms": followup.run_at_ms,
            "tries": 0,
            "created_at_ms": now_ms,
        }
        for followup in sorted(wanted, key=lambda each: each.key)
    ]
    insert_new(connection, schema.followups, rows, schema.followups.c.key)


def finish_all(connection: Connection, keys: Sequence[str], *, now_ms: int) -> set[str]:
    """Mark follow-ups done, in the transaction of their effect; return those that were not done before."""
    c = schema.followups.c
    statement = (
        update(schema.followups)
        .where(c.key.in_(sorted(keys)), c.done_at_ms.is_(None))
        .values(done_at_ms=now_ms)
        .returning(c.key)
    )
    open_before = set(connection.execute(statement).scalars())
    received = [{"key": key, "received_at_ms": now_ms} for key in sorted(keys)]
    insert_new(connection, schema.inbox, received, schema.inbox.c.key)
    return open_before
