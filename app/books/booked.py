"""When an intent is booked: finished, its trades add up to what it executed, and all of them are in every book."""

from collections import defaultdict
from collections.abc import Iterable
from decimal import Decimal
from typing import Final

from sqlalchemy import Connection, Text, and_, cast, literal, or_, select, update

from app.books.sql import lock_intents
from app.job_safety.state import TERMINAL_STATES
from app.journal import schema
from app.money import ZERO, total

_TERMINAL: Final = sorted(str(state) for state in TERMINAL_STATES)


def mark_booked(connection: Connection, key: str, now_ms: int) -> bool:
    """Mark one intent booked if it is and was not marked before; return whether this call did it."""
    return bool(mark_all_booked(connection, [key], now_ms=now_ms))


def mark_all_booked(connection: Connection, keys: Iterable[str], *, now_ms: int) -> set[str]:
    """Mark those of `keys` that are booked and were not marked before, and return them.

    Whichever of order, ledger and PnL comes last does it: the rows of the intents are held first, so that of two
    transactions that finish at the same time the second one sees what the first has written.
    An intent that is finished without having executed anything is booked at once.
    """
    wanted = sorted(set(keys))
    if not wanted:
        return set()
    lock_intents(connection, wanted)
    c = schema.intents.c
    query = select(c.key, c.type, c.executed_quantity).where(
        c.key.in_(wanted), c.state.in_(_TERMINAL), c.booked_at_ms.is_(None)
    )
    finished = {row[0]: (row[1], row[2]) for row in connection.execute(query)}
    if not finished:
        return set()
    quantities, unposted = _fills(connection, sorted(finished))
    booked = {
        key
        for key, (kind, executed) in finished.items()
        if key not in unposted and _is_complete(kind, executed, quantities[key])
    }
    if booked:
        connection.execute(update(schema.intents).where(c.key.in_(sorted(booked))).values(booked_at_ms=now_ms))
    return booked


def _is_complete(kind: str, executed: Decimal | None, quantities: list[Decimal]) -> bool:
    if executed is None and kind != "order":
        return True  # a book job does not execute anything itself; its trades, if any, are what they are
    return total(quantities) == (ZERO if executed is None else executed)


def _fills(connection: Connection, keys: list[str]) -> tuple[defaultdict[str, list[Decimal]], set[str]]:
    """Return the quantities of the fills per intent, and the intents with a fill that is missing in a book."""
    f, t, p, w = schema.fills.c, schema.transactions.c, schema.pnl_entries.c, schema.watermarks.c
    name = literal("trade:") + f.venue + ":" + f.symbol + ":" + cast(f.trade_id, Text)
    same_trade = and_(p.account == f.account, p.venue == f.venue, p.symbol == f.symbol, p.trade_id == f.trade_id)
    books = (
        schema.fills.outerjoin(schema.transactions, t.id == name)
        .outerjoin(schema.pnl_entries, same_trade)
        .outerjoin(schema.watermarks, and_(w.venue == f.venue, w.symbol == f.symbol))
    )
    # Trades up to the watermark are in the opening entries: in every book, under another name.
    is_posted = or_(and_(t.id.is_not(None), p.trade_id.is_not(None)), f.trade_id <= w.trade_id)
    quantities: defaultdict[str, list[Decimal]] = defaultdict(list)
    unposted = set()
    query = select(f.key, f.quantity, is_posted).select_from(books).where(f.key.in_(keys))
    for key, quantity, posted in connection.execute(query):
        quantities[key].append(quantity)
        if not posted:
            unposted.add(key)
    return quantities, unposted
