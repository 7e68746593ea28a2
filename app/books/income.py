"""Movements of a futures wallet that no trade carries: funding, transfers, rebates, and whatever else there may be.

`GET /fapi/v1/income` names each by a transaction id that is unique within its type. REALIZED_PNL and COMMISSION are
passed over: trades carry them. Everything else is booked, known type or not, since it has moved the wallet.
"""

from collections.abc import Iterable
from typing import Final

from sqlalchemy import Connection, select

from app.books import ledger, pnl
from app.books.ledger import Transaction, pair, wallet
from app.books.sql import insert_new
from app.exchange.models import Income
from app.job_safety.outcome import Venue
from app.journal import schema

CARRIED_BY_TRADES: Final = frozenset({"REALIZED_PNL", "COMMISSION"})
FUNDING: Final = "FUNDING_FEE"
TRANSFERS: Final = frozenset({"TRANSFER", "INTERNAL_TRANSFER", "CROSS_COLLATERAL_TRANSFER"})


def book_income(
    connection: Connection, entries: Iterable[Income], *, now_ms: int, venue: Venue = Venue.USDM
) -> list[Income]:
    """Book those of `entries` that are new and not from before the opening; return them.

    Funding also enters `pnl_daily.funding` of its UTC day.
    """
    since = connection.execute(
        select(schema.venues.c.income_since_ms).where(schema.venues.c.venue == str(venue))
    ).scalar()
    wanted = {
        (entry.income_type, str(entry.transaction_id)): entry
        for entry in entries
        if entry.income_type not in CARRIED_BY_TRADES and (since is None or entry.time_ms >= since)
    }
    rows = [
        {
            "venue": str(venue),
            "income_type": kind,
            "tran_id": tran_id,
            "symbol": entry.symbol,
            "asset": entry.asset,
            "amount": entry.amount,
            "time_ms": entry.time_ms,
        }
        for (kind, tran_id), entry in sorted(wanted.items())
    ]
    c = schema.income.c
    names = insert_new(connection, schema.income, rows, c.income_type, c.tran_id)
    new = {name: wanted[(name[0], name[1])] for name in sorted(names)}
    moved = [_transaction(str(venue), tran_id, entry) for (_, tran_id), entry in new.items() if entry.amount]
    ledger.post(connection, moved, now_ms=now_ms)
    funding = [entry for entry in new.values() if entry.income_type == FUNDING]
    pnl.add_funding(connection, [(str(venue), entry.time_ms, entry.asset, entry.amount) for entry in funding])
    return list(new.values())


def counter_account(venue: str, income_type: str) -> str:
    """Return the other side of an income: `funding:…`, `transfer:…`, or `income:…` for any other type."""
    if income_type == FUNDING:
        return f"funding:{venue}"
    return f"transfer:{venue}" if income_type in TRANSFERS else f"income:{venue}"


def _transaction(venue: str, tran_id: str, entry: Income) -> Transaction:
    source = counter_account(venue, entry.income_type)
    return Transaction(
        id=f"income:{venue}:{entry.income_type}:{tran_id}",
        kind="income",
        description=" ".join(filter(None, (entry.income_type, entry.symbol, entry.info))),
        key=None,
        time_ms=entry.time_ms,
        lines=pair(source, wallet(venue), entry.asset, entry.amount),
    )
