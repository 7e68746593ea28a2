"""Which trades the journal has booked."""

from collections.abc import Collection

from sqlalchemy import Connection, select

from app.journal import schema
from app.journal.sql import MAX_ROWS_PER_STATEMENT

_F = schema.fills


def booked(connection: Connection, *, venue: str, symbol: str, trade_ids: Collection[int]) -> set[int]:
    """Return those of `trade_ids` that are in the fills, ours or external."""
    wanted = sorted(trade_ids)
    found: set[int] = set()
    for start in range(0, len(wanted), MAX_ROWS_PER_STATEMENT):
        chunk = wanted[start : start + MAX_ROWS_PER_STATEMENT]
        query = select(_F.c.trade_id).where(_F.c.venue == venue, _F.c.symbol == symbol, _F.c.trade_id.in_(chunk))
        found.update(connection.execute(query).scalars())
    return found
