"""Whether the books agree with themselves: every transaction, every running sum, every trade in all three books.

Reads everything there is, row by row; the running tables that it proves are what all other readers use.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import Connection, Select, Text, and_, cast, literal, or_, select

from app.books.income import FUNDING
from app.books.pnl import utc_day
from app.journal import schema
from app.money import EXACT, ZERO, plain

ALL_VENUES: Final = "-"
_STREAM: Final = {"stream_results": True, "yield_per": 1000}


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One thing that is not as it should be. `venue` is `-` where it belongs to none; `ours` and `theirs` are texts."""

    venue: str
    what: str
    ours: str
    theirs: str


def unlike(venue: str, what: str, ours: Mapping[str, Decimal], theirs: Mapping[str, Decimal]) -> Iterator[Difference]:
    """Yield where two maps of amounts differ; what one of them lacks is zero."""
    for name in sorted(ours.keys() | theirs.keys()):
        mine, yours = ours.get(name, ZERO), theirs.get(name, ZERO)
        if mine != yours:
            yield Difference(venue=venue, what=f"{what} {name}", ours=plain(mine), theirs=plain(yours))


def check_ledger(connection: Connection) -> Iterator[Difference]:
    """Yield transactions that do not sum to zero, those without lines, and running balances that are off."""
    accounts: defaultdict[str, Decimal] = defaultdict(lambda: ZERO)
    rest: defaultdict[str, Decimal] = defaultdict(lambda: ZERO)
    current = ""
    p = schema.postings.c
    query = select(p.transaction_id, p.account, p.asset, p.amount).order_by(p.transaction_id, p.line)
    for name, account, asset, amount in _stream(connection, query):
        if name != current:
            yield from _unbalanced(current, rest)
            current = name
            rest.clear()
        rest[asset] = EXACT.add(rest[asset], amount)
        at = f"{account} {asset}"
        accounts[at] = EXACT.add(accounts[at], amount)
    yield from _unbalanced(current, rest)
    bare = select(schema.transactions.c.id).where(
        ~select(p.line).where(p.transaction_id == schema.transactions.c.id).exists()
    )
    for (name,) in connection.execute(bare.order_by(schema.transactions.c.id)):
        yield Difference(venue=ALL_VENUES, what=f"lines of transaction {name}", ours="none", theirs="at least 2")
    b = schema.ledger_balances.c
    running = {f"{row[0]} {row[1]}": row[2] for row in connection.execute(select(b.account, b.asset, b.amount))}
    yield from unlike(ALL_VENUES, "running balance (theirs: sum of postings)", running, accounts)


def check_daily(connection: Connection) -> Iterator[Difference]:
    """Yield days of profit and loss that are not the sum of their entries and funding."""
    sums: defaultdict[str, Decimal] = defaultdict(lambda: ZERO)
    e = schema.pnl_entries.c
    query = select(e.venue, e.day, e.asset, e.realized, e.commission, e.commission_asset)
    for venue, day, asset, realized, commission, commission_asset in _stream(connection, query):
        for name, amount in (
            (f"realized {venue} {day} {asset}", realized),
            (f"trades {venue} {day} {asset}", Decimal(1)),
            (f"commission {venue} {day} {commission_asset}", commission),
        ):
            sums[name] = EXACT.add(sums[name], amount)
    i = schema.income.c
    for venue, time_ms, asset, amount in _stream(
        connection, select(i.venue, i.time_ms, i.asset, i.amount).where(i.income_type == FUNDING)
    ):
        name = f"funding {venue} {utc_day(time_ms)} {asset}"
        sums[name] = EXACT.add(sums[name], amount)
    running: dict[str, Decimal] = {}
    for row in connection.execute(select(schema.pnl_daily)).mappings():
        at = f"{row['venue']} {row['day']} {row['asset']}"
        for column in ("realized", "commission", "funding"):
            running[f"{column} {at}"] = row[column]
        running[f"trades {at}"] = Decimal(row["trades"])
    yield from unlike(ALL_VENUES, "daily PnL (theirs: sum of entries)", running, sums)


def check_every_book(connection: Connection) -> Iterator[Difference]:
    """Yield fills that are missing in positions, ledger or PnL; those up to the watermark are in the opening."""
    f, w = schema.fills.c, schema.watermarks.c
    entry, entered, t = schema.position_entries.c, schema.pnl_entries.c, schema.transactions.c
    name = literal("trade:") + f.venue + ":" + f.symbol + ":" + cast(f.trade_id, Text)
    joined = (
        schema.fills.outerjoin(schema.watermarks, and_(w.venue == f.venue, w.symbol == f.symbol))
        .outerjoin(schema.position_entries, _same_trade(entry))
        .outerjoin(schema.pnl_entries, _same_trade(entered))
        .outerjoin(schema.transactions, t.id == name)
    )
    query = (
        select(f.venue, name, entry.trade_id, t.id, entered.trade_id)
        .select_from(joined)
        .where(or_(w.trade_id.is_(None), f.trade_id > w.trade_id))
        .where(or_(entry.trade_id.is_(None), t.id.is_(None), entered.trade_id.is_(None)))
        .order_by(f.venue, f.symbol, f.trade_id)
    )
    for venue, trade, *found in _stream(connection, query):
        books = [book for book, row in zip(("positions", "ledger", "pnl"), found, strict=True) if row is None]
        yield Difference(venue=venue, what=trade, ours=f"missing in {', '.join(books)}", theirs="in every book")


def _same_trade(c: Any) -> Any:
    f = schema.fills.c
    return and_(c.account == f.account, c.venue == f.venue, c.symbol == f.symbol, c.trade_id == f.trade_id)


def _unbalanced(name: str, rest: Mapping[str, Decimal]) -> Iterator[Difference]:
    for asset, amount in sorted(rest.items()):
        if amount:
            yield Difference(venue=ALL_VENUES, what=f"transaction {name} {asset}", ours=plain(amount), theirs="0")


def _stream(connection: Connection, query: Select[Any]) -> Iterator[Any]:
    yield from connection.execute(query, execution_options=_STREAM)
