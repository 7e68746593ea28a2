"""What the command line shows of the books. Reads the running tables, so that the cost does not grow with history."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from sqlalchemy import Connection, select, tuple_

from app.journal import schema
from app.money import EXACT, ZERO

MAX_PAGE: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionRow:
    """A position: signed quantity, average entry price, and the gross profit realized so far in the quote asset."""

    account: str
    venue: str
    symbol: str
    quantity: Decimal
    entry_price: Decimal
    realized_pnl: Decimal
    last_trade_id: int
    updated_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BalanceRow:
    """The balance of one ledger account in one asset."""

    account: str
    asset: str
    amount: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class PostedLine:
    """One line of a posted transaction, with what it belongs to."""

    transaction_id: str
    line: int
    kind: str
    description: str
    key: str | None
    account: str
    asset: str
    amount: Decimal
    time_ms: int
    posted_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Postings of whole transactions, newest first. `after` names the next page; None: this is the last."""

    lines: tuple[PostedLine, ...]
    after: tuple[int, str] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PnlRow:
    """Profit and loss in one asset; commission is what was paid. `day` is empty in a total over all days."""

    venue: str
    day: str
    asset: str
    realized: Decimal
    commission: Decimal
    funding: Decimal
    trades: int

    @property
    def net(self) -> Decimal:
        """Realized plus funding minus commission, exact."""
        return EXACT.subtract(EXACT.add(self.realized, self.funding), self.commission)


def positions(connection: Connection, *, include_flat: bool = False) -> list[PositionRow]:
    """Return the positions by account, venue and symbol; flat ones only if asked for."""
    c = schema.positions.c
    query = select(schema.positions).order_by(c.account, c.venue, c.symbol)
    rows = [PositionRow(**row) for row in connection.execute(query).mappings()]
    return [row for row in rows if include_flat or row.quantity]


def ledger_balances(connection: Connection, *, include_zero: bool = False) -> list[BalanceRow]:
    """Return the running balances by account and asset; zeros only if asked for."""
    c = schema.ledger_balances.c
    query = select(c.account, c.asset, c.amount).order_by(c.account, c.asset)
    rows = [BalanceRow(**row) for row in connection.execute(query).mappings()]
    return [row for row in rows if include_zero or row.amount]


def postings(
    connection: Connection, *, limit: int = 50, after: tuple[int, str] | None = None, key: str | None = None
) -> Page:
    """Return the postings of up to `limit` transactions, newest first; `after` continues where a page ended.

    `key` narrows it to the transactions of one intent.
    """
    t, p = schema.transactions.c, schema.postings.c
    newest = select(t.id, t.posted_at_ms).order_by(t.posted_at_ms.desc(), t.id.desc()).limit(min(limit, MAX_PAGE))
    if after is not None:
        newest = newest.where(tuple_(t.posted_at_ms, t.id) < after)
    if key is not None:
        newest = newest.where(t.key == key)
    found = connection.execute(newest).all()
    if not found:
        return Page(lines=(), after=None)
    query = (
        select(
            p.transaction_id,
            p.line,
            t.kind,
            t.description,
            t.key,
            p.account,
            p.asset,
            p.amount,
            t.time_ms,
            t.posted_at_ms,
        )
        .join_from(schema.postings, schema.transactions, t.id == p.transaction_id)
        .where(t.id.in_([row[0] for row in found]))
        .order_by(t.posted_at_ms.desc(), t.id.desc(), p.line)
    )
    lines = tuple(PostedLine(**row) for row in connection.execute(query).mappings())
    is_full = len(found) == min(limit, MAX_PAGE)
    return Page(lines=lines, after=(found[-1][1], found[-1][0]) if is_full else None)


def pnl_daily(connection: Connection, *, since_day: str = "", venue: str | None = None) -> list[PnlRow]:
    """Return profit and loss per UTC day (`2026-11-21`), venue and asset, from `since_day` on."""
    c = schema.pnl_daily.c
    query = select(schema.pnl_daily).where(c.day >= since_day).order_by(c.day, c.venue, c.asset)
    if venue is not None:
        query = query.where(c.venue == venue)
    return [PnlRow(**row) for row in connection.execute(query).mappings()]


def pnl_total(connection: Connection, *, since_day: str = "", venue: str | None = None) -> list[PnlRow]:
    """Return profit and loss per venue and asset over all days from `since_day` on."""
    sums: defaultdict[tuple[str, str], list[PnlRow]] = defaultdict(list)
    for row in pnl_daily(connection, since_day=since_day, venue=venue):
        sums[(row.venue, row.asset)].append(row)
    return [_sum(rows) for _, rows in sorted(sums.items())]


def external_balances(connection: Connection) -> Mapping[str, Decimal]:
    """Return asset -> what trades that are not ours have moved, seen from the account `external`."""
    c = schema.ledger_balances.c
    rows = connection.execute(select(c.asset, c.amount).where(c.account == "external").order_by(c.asset))
    return {row[0]: row[1] for row in rows}


def _sum(rows: list[PnlRow]) -> PnlRow:
    realized = commission = funding = ZERO
    for row in rows:
        realized = EXACT.add(realized, row.realized)
        commission = EXACT.add(commission, row.commission)
        funding = EXACT.add(funding, row.funding)
    return PnlRow(
        venue=rows[0].venue,
        day="",
        asset=rows[0].asset,
        realized=realized,
        commission=commission,
        funding=funding,
        trades=sum(row.trades for row in rows),
    )
