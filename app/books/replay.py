"""The position of a symbol, kept as what its trades make of it in the order of their ids."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import Connection, bindparam, select

from app.books import fills, pnl
from app.books.fills import SymbolKey, here
from app.books.positions import FLAT, Position, apply, money_realized
from app.books.sql import insert_new, replace_all
from app.exchange.models import ExchangeTrade
from app.journal import schema
from app.money import EXACT, ZERO, total

OPENING_TRADE_ID: Final = -1
NO_TRADE: Final = -1

_P: Final = schema.positions.c
_HOLD: Final = (
    select(_P.quantity, _P.entry_price, _P.realized_pnl, _P.last_trade_id)
    .where(_P.account == bindparam("account"), _P.venue == bindparam("venue"), _P.symbol == bindparam("symbol"))
    .with_for_update(key_share=True)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldPosition:
    """The row of a position while this transaction holds it."""

    position: Position
    realized: Decimal
    last_trade_id: int


def hold(connection: Connection, at: SymbolKey, *, now_ms: int) -> HeldPosition:
    """Return the position, held until the transaction ends; a new symbol starts flat."""
    place = {"account": at.account, "venue": at.venue, "symbol": at.symbol}
    row = connection.execute(_HOLD, place).first()
    if row is None:
        flat = position_row(at, FLAT, ZERO, last_trade_id=NO_TRADE, now_ms=now_ms)
        insert_new(connection, schema.positions, [flat], schema.positions.c.symbol)
        row = connection.execute(_HOLD, place).one()
    quantity, entry_price, realized, last = row
    return HeldPosition(
        position=Position(quantity=quantity, entry_price=entry_price), realized=realized, last_trade_id=last
    )


def move(
    connection: Connection,
    at: SymbolKey,
    held: HeldPosition,
    new: Sequence[ExchangeTrade],
    *,
    base: str,
    now_ms: int,
) -> None:
    """Apply `new` (sorted by id, already in `fills`); if one is late, run everything from it on again.

    What later trades have realized may change by that on Spot: their PnL entries are moved along.
    """
    start, run, old = held.position, new, dict[int, Decimal]()
    first = new[0].trade_id
    if first <= held.last_trade_id:
        start, old = _before(connection, at, first), _realized_from(connection, at, first)
        # Nothing below the watermark can be in here: `first` is above it.
        run = [fill.trade for fill in fills.load_from(connection, at, first)]
    entries, position = [], start
    for trade in run:
        position, computed = apply(position, trade, base=base)
        entries.append(_entry_row(at, trade, money_realized(trade, computed), position))
    replace_all(connection, schema.position_entries, entries)
    now = {row["trade_id"]: row["realized_pnl"] for row in entries}
    changes = {trade_id: EXACT.subtract(now[trade_id], was) for trade_id, was in old.items() if now[trade_id] != was}
    pnl.correct_realized(connection, at, changes)
    realized = EXACT.add(EXACT.subtract(held.realized, total(old.values())), total(now.values()))
    last = max(held.last_trade_id, run[-1].trade_id)
    row = position_row(at, position, realized, last_trade_id=last, now_ms=now_ms)
    replace_all(connection, schema.positions, [row])


def position_row(
    at: SymbolKey, position: Position, realized: Decimal, *, last_trade_id: int, now_ms: int
) -> dict[str, Any]:
    """Return the row of `positions`."""
    return {
        "account": at.account,
        "venue": at.venue,
        "symbol": at.symbol,
        "quantity": position.quantity,
        "entry_price": position.entry_price,
        "realized_pnl": realized,
        "last_trade_id": last_trade_id,
        "updated_at_ms": now_ms,
    }


def _before(connection: Connection, at: SymbolKey, trade_id: int) -> Position:
    c = schema.position_entries.c
    query = (
        select(c.quantity_after, c.entry_price_after)
        .where(here(c, at), c.trade_id < trade_id)
        .order_by(c.trade_id.desc())
        .limit(1)
    )
    row = connection.execute(query).first()
    return FLAT if row is None else Position(quantity=row.quantity_after, entry_price=row.entry_price_after)


def _realized_from(connection: Connection, at: SymbolKey, trade_id: int) -> dict[int, Decimal]:
    c = schema.position_entries.c
    query = select(c.trade_id, c.realized_pnl).where(here(c, at), c.trade_id >= trade_id)
    return {row.trade_id: row.realized_pnl for row in connection.execute(query)}


def _entry_row(at: SymbolKey, trade: ExchangeTrade, realized: Decimal, after: Position) -> dict[str, Any]:
    return {
        "account": at.account,
        "venue": at.venue,
        "symbol": at.symbol,
        "trade_id": trade.trade_id,
        "side": trade.side,
        "price": trade.price,
        "quantity": trade.quantity,
        "realized_pnl": realized,
        "quantity_after": after.quantity,
        "entry_price_after": after.entry_price,
    }
