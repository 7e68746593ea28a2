"""Reads intents page by page, so that neither memory nor a long transaction grows with the journal."""

from collections.abc import Iterator, Sequence
from typing import Final

from sqlalchemy import and_, or_, select

from app.cli.output import iso
from app.job_safety.state import IntentState
from app.journal import schema
from app.journal.engine import Journal
from app.journal.rows import IntentRow, intent_row

PAGE: Final = 500
_T = schema.intents


def pages(journal: Journal, *, states: Sequence[IntentState], limit: int | None) -> Iterator[list[IntentRow]]:
    """Yield intents, newest first, in pages. What is created meanwhile is not shown; what moves may be shown moved."""
    after: IntentRow | None = None
    left = limit
    while left is None or left > 0:
        page = _page(journal, states, after, PAGE if left is None else min(PAGE, left))
        if not page:
            return
        yield page
        after = page[-1]
        left = None if left is None else left - len(page)


def summary(row: IntentRow) -> dict[str, object]:
    """Return what `intents list --json` prints of an intent."""
    return {
        "key": row.key,
        "type": row.type,
        "state": row.state.value,
        "attempts": row.attempt,
        "client_order_id": row.client_order_id,
        "exchange_order_id": row.exchange_order_id,
        "executed_quantity": row.executed_quantity,
        "average_price": row.average_price,
        "reason": row.reason,
        "created_at": iso(row.created_at_ms),
        "updated_at": iso(row.updated_at_ms),
    }


def _page(journal: Journal, states: Sequence[IntentState], after: IntentRow | None, size: int) -> list[IntentRow]:
    query = select(_T)
    if states:
        query = query.where(_T.c.state.in_([state.value for state in states]))
    if after is not None:
        at, key = after.created_at_ms, after.key
        query = query.where(or_(_T.c.created_at_ms < at, and_(_T.c.created_at_ms == at, _T.c.key < key)))
        # Says the same again, in the form that the index on created_at_ms can use.
        query = query.where(_T.c.created_at_ms <= at)
    query = query.order_by(_T.c.created_at_ms.desc(), _T.c.key.desc()).limit(size)
    with journal.read() as connection:
        return [intent_row(row) for row in connection.execute(query)]
