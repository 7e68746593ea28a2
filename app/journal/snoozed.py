"""Intents that snooze because of one gate. What waits for anything else bears another reason, and is never touched."""

from typing import Final

from sqlalchemy import Connection, select, update

from app.job_safety.state import SENDABLE
from app.journal import schema

REASON_MAX: Final = 500


def reason_of(why: str) -> str:
    """Return what the row of an intent says that was snoozed because of `why`."""
    return f"snoozed: {why}"[:REASON_MAX]


def bring_forward(connection: Connection, *, why: str, now_ms: int, limit: int) -> int:
    """Let intents that snooze because of just `why` run now, the oldest first; return how many.

    A row that somebody works on is passed over. Nothing is sent by this: each meets every gate again.

    Args:
        connection: A write transaction.
        why: The gate, as it answered: another gate's snooze, a pause that the exchange asked for and the time between
            two attempts stay as they are.
        now_ms: What snoozes until a later moment is brought to this one.
        limit: The most rows.
    """
    table = schema.intents
    wanted = (
        select(table.c.key)
        .where(
            table.c.state.in_([state.value for state in SENDABLE]),
            table.c.reason == reason_of(why),
            table.c.not_before_ms > now_ms,
        )
        .order_by(table.c.created_at_ms, table.c.key)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    keys = list(connection.execute(wanted).scalars())
    if keys:
        connection.execute(update(table).where(table.c.key.in_(keys)).values(run_at_ms=now_ms, not_before_ms=now_ms))
    return len(keys)
