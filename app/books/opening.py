"""What was there before we came: balances and positions of a venue become opening entries, once.

From then on every trade above the watermark of its symbol, and every income from `income_since_ms` on, is ours to
account for. Balances, positions and watermarks must belong together: the caller reads the watermarks before and after
the balances, and reads again if one has moved.
"""

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, select

from app.books.assets import contract
from app.books.fills import SymbolKey
from app.books.ledger import OPENING, Transaction, held_contracts, pair, post, wallet
from app.books.positions import Position
from app.books.replay import OPENING_TRADE_ID, position_row
from app.books.sql import insert_all, insert_new
from app.exchange.models import Balance, ExchangePosition
from app.job_safety.errors import InvariantViolatedError
from app.job_safety.outcome import Venue
from app.journal import schema
from app.money import ZERO


def is_open(connection: Connection, venue: Venue) -> bool:
    """Return whether the books of `venue` have been opened."""
    return (
        connection.execute(select(schema.venues.c.venue).where(schema.venues.c.venue == str(venue))).first() is not None
    )


def book_opening(
    connection: Connection,
    *,
    account: str,
    venue: Venue,
    balances: Sequence[Balance],
    positions: Sequence[ExchangePosition],
    watermarks: Mapping[str, int],
    now_ms: int,
    income_since_ms: int | None = None,
) -> bool:
    """Open the books of `venue`; return False, and change nothing, if they are open.

    Args:
        connection: a write transaction.
        account: label of the exchange account of this journal.
        venue: the venue; balances of others are passed over.
        balances: what its wallets hold.
        positions: its open positions (futures only); one-way.
        watermarks: symbol -> the highest trade id that balances and positions contain. Every symbol that has ever been
            traded on the account must be named.
        now_ms: exchange time of the snapshot.
        income_since_ms: exchange time from which on income is not contained in the balances; default `now_ms`.

    Raises:
        InvariantViolatedError: trades of the venue are booked already, so that opening would count them twice.
        ValueError: a position is not one-way, or belongs to Spot.
    """
    row = {
        "venue": str(venue),
        "opened_at_ms": now_ms,
        "income_since_ms": now_ms if income_since_ms is None else income_since_ms,
    }
    if not insert_new(connection, schema.venues, [row], schema.venues.c.venue):
        return False
    c = schema.positions.c
    if connection.execute(select(c.symbol).where(c.venue == str(venue)).limit(1)).first() is not None:
        raise InvariantViolatedError(f"{venue} has positions in the books and cannot be opened")
    _open_watermarks(connection, venue, watermarks)
    held = [position for position in positions if position.quantity]
    _open_positions(connection, account, venue, held, now_ms)
    lines = [
        line
        for balance in balances
        if balance.venue is venue
        for line in pair(OPENING, wallet(str(venue)), balance.asset, balance.wallet)
    ]
    for position in held:
        lines += pair(OPENING, held_contracts(str(venue)), contract(position.symbol), position.quantity)
    if lines:
        transaction = Transaction(
            id=f"opening:{venue}",
            kind="opening",
            description=f"what {venue} held when its books were opened",
            key=None,
            time_ms=now_ms,
            lines=tuple(lines),
        )
        post(connection, [transaction], now_ms=now_ms)
    return True


def _open_watermarks(connection: Connection, venue: Venue, watermarks: Mapping[str, int]) -> None:
    insert_all(
        connection,
        schema.watermarks,
        [
            {"venue": str(venue), "symbol": symbol, "trade_id": trade_id, "swept_trade_id": trade_id}
            for symbol, trade_id in sorted(watermarks.items())
        ],
    )


def _open_positions(
    connection: Connection, account: str, venue: Venue, held: Sequence[ExchangePosition], now_ms: int
) -> None:
    rows, entries = [], []
    for position in held:
        if position.position_side != "BOTH" or venue is Venue.SPOT:
            raise ValueError(f"{venue} {position.symbol}: only one-way futures positions can be opened")
        at = SymbolKey(account=account, venue=str(venue), symbol=position.symbol)
        state = Position(quantity=position.quantity, entry_price=position.entry_price)
        rows.append(position_row(at, state, ZERO, last_trade_id=OPENING_TRADE_ID, now_ms=now_ms))
        entries.append(
            {
                "account": at.account,
                "venue": at.venue,
                "symbol": at.symbol,
                "trade_id": OPENING_TRADE_ID,
                "side": "BUY" if position.quantity > ZERO else "SELL",
                "price": position.entry_price,
                "quantity": position.quantity.copy_abs(),
                "realized_pnl": ZERO,
                "quantity_after": position.quantity,
                "entry_price_after": position.entry_price,
            }
        )
    insert_all(connection, schema.positions, rows)
    insert_all(connection, schema.position_entries, entries)
