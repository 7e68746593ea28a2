"""Counts that must be right: added to in the transaction of what they count, so that nothing that dies loses one.

Only rare things are counted here, never what happens with every order. A count is spread over a few rows, so that
writers of different processes do not wait for each other's row.
"""

import os
from enum import StrEnum
from typing import Final

from sqlalchemy import Connection, func, select
from sqlalchemy.dialects import postgresql, sqlite

from app.journal import schema

SHARDS: Final = 8
_T = schema.tallies


class Tally(StrEnum):
    """What is counted. Values are stored: never rename."""

    RETRIES = "retries"
    RETRY_SUCCESSES = "retry_successes"
    RETRY_FAILURES = "retry_failures"
    DUPLICATES_AT_ENQUEUE = "duplicates_at_enqueue"
    DUPLICATES_EXECUTED = "duplicates_executed"
    QUARANTINED = "quarantined"
    REJECTED = "rejected"


def add(connection: Connection, tally: Tally, label: str, count: int = 1) -> None:
    """Add `count` to `tally` for `label` (a job type, a venue), in the caller's transaction."""
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    row = {"name": tally.value, "label": label, "shard": os.getpid() % SHARDS, "count": count}
    statement = dialect.insert(_T).values(row)
    more = statement.on_conflict_do_update(
        index_elements=["name", "label", "shard"], set_={"count": _T.c.count + statement.excluded["count"]}
    )
    connection.execute(more)


def read(connection: Connection) -> dict[Tally, dict[str, int]]:
    """Return every count, by tally and label. The table has a few dozen rows, however many intents there are."""
    found: dict[Tally, dict[str, int]] = {tally: {} for tally in Tally}
    query = select(_T.c.name, _T.c.label, func.sum(_T.c.count)).group_by(_T.c.name, _T.c.label)
    for name, label, count in connection.execute(query):
        found[Tally(name)][label] = int(count)
    return found
