"""Up to which trade of each symbol everything is booked or belongs to the opening."""

from sqlalchemy import Connection, select, update

from app.journal import schema
from app.journal.sql import insert_ignore

_W = schema.watermarks


def swept(connection: Connection, *, venue: str, symbol: str) -> int | None:
    """Return the last trade id that the sweep has seen; None if the symbol has no watermark yet."""
    query = select(_W.c.swept_trade_id).where(_W.c.venue == venue, _W.c.symbol == symbol)
    return connection.execute(query).scalar()


def begin(connection: Connection, *, venue: str, symbol: str, trade_id: int) -> None:
    """Give a symbol its watermark unless it has one."""
    row = {"venue": venue, "symbol": symbol, "trade_id": trade_id, "swept_trade_id": trade_id}
    insert_ignore(connection, _W, [row])


def advance(connection: Connection, *, venue: str, symbol: str, trade_id: int) -> None:
    """Note that everything up to `trade_id` has been swept; never goes back."""
    connection.execute(
        update(_W)
        .where(_W.c.venue == venue, _W.c.symbol == symbol, _W.c.swept_trade_id < trade_id)
        .values(swept_trade_id=trade_id)
    )


def opened_at_ms(connection: Connection, *, venue: str) -> int | None:
    """Return when the venue's opening entries were booked; None if they are not."""
    query = select(schema.venues.c.opened_at_ms).where(schema.venues.c.venue == venue)
    return connection.execute(query).scalar()


def symbols_of(connection: Connection, *, venue: str) -> list[str]:
    """Return the symbols that have a watermark or an intent."""
    marked = select(_W.c.symbol).where(_W.c.venue == venue)
    return sorted(set(connection.execute(marked).scalars()))


def opening_trade_id(connection: Connection, *, venue: str, symbol: str) -> int:
    """Return the last trade id that belongs to the opening; -1 if none does."""
    query = select(_W.c.trade_id).where(_W.c.venue == venue, _W.c.symbol == symbol)
    found = connection.execute(query).scalar()
    return -1 if found is None else found


def income_since_ms(connection: Connection, *, venue: str) -> int:
    """Return from when on income is booked."""
    query = select(schema.venues.c.income_since_ms).where(schema.venues.c.venue == venue)
    return connection.execute(query).scalar() or 0
