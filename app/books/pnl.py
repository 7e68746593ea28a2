"""Profit and loss: one entry per trade, summed per venue, UTC day and asset while it is written.

Futures realize what the exchange says (`realizedPnl`); Spot realizes against the average cost of the position. A late
Spot trade changes the average, and so what later trades have realized: `correct_realized` moves entries and sums along.
Profit is gross; commissions and funding stand beside it, each in its own asset.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, and_, bindparam, or_, select, update

from app.books.assets import AssetsOf, assets_of
from app.books.fills import Fill, SymbolKey, here, symbol_key
from app.books.sql import add_to_sums, insert_new, lock_positions
from app.clock import from_ms
from app.job_safety.outcome import Venue
from app.journal import schema
from app.money import EXACT, ZERO


def utc_day(time_ms: int) -> str:
    """Return the UTC day of an instant, such as `2026-11-21`."""
    return from_ms(time_ms).date().isoformat()


def post_trades(
    connection: Connection, fills: Sequence[Fill], *, assets: AssetsOf = assets_of
) -> set[tuple[str, str, int]]:
    """Enter each of `fills` into profit and loss once; return (venue, symbol, trade id) of those that are new.

    A Spot trade without a position entry (a pnl intent for a trade made elsewhere) realizes what it says itself.
    """
    realized = _spot_realized(connection, fills)
    rows: dict[tuple[SymbolKey, int], dict[str, Any]] = {}
    for fill in fills:
        at, trade = symbol_key(fill), fill.trade
        rows[(at, trade.trade_id)] = {
            "account": at.account,
            "venue": at.venue,
            "symbol": at.symbol,
            "trade_id": trade.trade_id,
            "day": utc_day(trade.time_ms),
            "asset": assets(trade.venue, trade.symbol).quote,
            "realized": realized.get((at, trade.trade_id), trade.realized_pnl),
            "commission": trade.commission,
            "commission_asset": trade.commission_asset,
        }
    c = schema.pnl_entries.c
    ordered = [rows[at] for at in sorted(rows)]
    new = insert_new(connection, schema.pnl_entries, ordered, c.account, c.venue, c.symbol, c.trade_id)
    sums = _empty_sums()
    for row in ordered:
        if (row["account"], row["venue"], row["symbol"], row["trade_id"]) in new:
            day = sums[(row["venue"], row["day"], row["asset"])]
            day["realized"] = EXACT.add(day["realized"], row["realized"])
            day["trades"] += 1
            fees = sums[(row["venue"], row["day"], row["commission_asset"])]
            fees["commission"] = EXACT.add(fees["commission"], row["commission"])
    add_to_sums(connection, schema.pnl_daily, sums)
    return {(venue, symbol, trade_id) for _, venue, symbol, trade_id in new}


def correct_realized(connection: Connection, at: SymbolKey, changes: Mapping[int, Decimal]) -> None:
    """Add `changes` (trade id -> by how much) to what has been entered; what is not entered yet is passed over.

    The caller holds the position, so that no entry of the symbol is being made from the old average meanwhile.
    """
    if not changes:
        return
    table, c = schema.pnl_entries, schema.pnl_entries.c
    query = select(c.trade_id, c.day, c.asset, c.realized).where(here(c, at), c.trade_id.in_(sorted(changes)))
    sums, corrected = _empty_sums(), []
    for trade_id, day, asset, realized in connection.execute(query):
        change = changes[trade_id]
        corrected.append({"at": trade_id, "corrected": EXACT.add(realized, change)})
        daily = sums[(at.venue, day, asset)]
        daily["realized"] = EXACT.add(daily["realized"], change)
    if corrected:
        statement = (
            update(table).where(here(c, at), c.trade_id == bindparam("at")).values(realized=bindparam("corrected"))
        )
        connection.execute(statement, corrected)
    add_to_sums(connection, schema.pnl_daily, sums)


def add_funding(connection: Connection, amounts: Sequence[tuple[str, int, str, Decimal]]) -> None:
    """Add funding (venue, time in ms, asset, amount; negative when paid) to its days."""
    sums = _empty_sums()
    for venue, time_ms, asset, amount in amounts:
        day = sums[(venue, utc_day(time_ms), asset)]
        day["funding"] = EXACT.add(day["funding"], amount)
    add_to_sums(connection, schema.pnl_daily, sums)


def _spot_realized(connection: Connection, fills: Sequence[Fill]) -> dict[tuple[SymbolKey, int], Decimal]:
    wanted: defaultdict[SymbolKey, set[int]] = defaultdict(set)
    for fill in fills:
        if fill.trade.venue is Venue.SPOT:
            wanted[symbol_key(fill)].add(fill.trade.trade_id)
    if not wanted:
        return {}
    # Whoever re-runs the entries of these positions is waited for, or waits, finds our entries and corrects them.
    lock_positions(connection, [(at.account, at.venue, at.symbol) for at in wanted])
    c = schema.position_entries.c
    places = [and_(here(c, at), c.trade_id.in_(sorted(trade_ids))) for at, trade_ids in sorted(wanted.items())]
    query = select(c.account, c.venue, c.symbol, c.trade_id, c.realized_pnl).where(or_(*places))
    return {
        (SymbolKey(account=row[0], venue=row[1], symbol=row[2]), row[3]): row[4] for row in connection.execute(query)
    }


def _empty_sums() -> defaultdict[tuple[str, ...], dict[str, Any]]:
    return defaultdict(lambda: {"realized": ZERO, "commission": ZERO, "funding": ZERO, "trades": 0})
