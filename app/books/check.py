"""Whether the books agree with the exchange, to the last digit. Compares; asks nobody and changes nothing.

The caller takes the snapshot when nothing is under way; what is being booked meanwhile shows up as a difference that is
gone at the next look.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from sqlalchemy import Connection, and_, or_, select

from app.books import consistency, ledger
from app.books.assets import CONTRACT_SUFFIX
from app.books.consistency import Difference, unlike
from app.books.fills import Fill, fill_of
from app.books.positions import ENTRY_STEP
from app.exchange.models import Balance, ExchangePosition, ExchangeTrade
from app.job_safety.outcome import Venue
from app.journal import schema
from app.money import EXACT, ZERO, plain, wire

_COMPARED: Final = (
    *("order_id", "side", "price", "quantity", "commission", "commission_asset", "realized_pnl"),
    "time_ms",
)
NOTHING: Final = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeSnapshot:
    """What the exchange says, of `venues` only.

    `trades` are compared per symbol from `trades_from[(venue, symbol)]` on, where the list is complete; where it names
    nothing, from the lowest listed trade on. Symbols in neither are not compared trade by trade.
    """

    balances: Sequence[Balance] = ()
    positions: Sequence[ExchangePosition] = ()
    trades: Sequence[ExchangeTrade] = ()
    trades_from: Mapping[tuple[Venue, str], int] = field(default_factory=dict)
    venues: frozenset[Venue] = frozenset(Venue)


def check_books(connection: Connection, snapshot: ExchangeSnapshot) -> list[Difference]:
    """Return all that does not sum to zero, is not in every book, or differs from `snapshot`; empty: all is well.

    Amounts are compared exactly. The entry price is compared to the digits that the exchange shows, give or take one of
    the last, because its rounding is not documented.
    """
    return [*check_alone(connection), *check_exchange(connection, snapshot)]


def check_alone(connection: Connection) -> list[Difference]:
    """Return what is wrong within the books, without asking anybody."""
    return [
        *consistency.check_ledger(connection),
        *consistency.check_daily(connection),
        *consistency.check_every_book(connection),
        *_contracts(connection),
    ]


def check_exchange(connection: Connection, snapshot: ExchangeSnapshot) -> list[Difference]:
    """Return where the books and `snapshot` differ."""
    found: list[Difference] = []
    for venue in sorted(snapshot.venues):
        found += _wallets(connection, venue, snapshot.balances)
    if Venue.USDM in snapshot.venues:
        found += _positions(connection, snapshot.positions)
    found += _trades(connection, snapshot)
    return found


def _wallets(connection: Connection, venue: Venue, balances: Sequence[Balance]) -> Iterator[Difference]:
    account = ledger.wallet(str(venue))
    ours = {asset: amount for (_, asset), amount in ledger.balances(connection, [account]).items()}
    theirs = {balance.asset: balance.wallet for balance in balances if balance.venue is venue}
    yield from unlike(str(venue), "wallet", ours, theirs)


def _held(connection: Connection) -> dict[str, list[tuple[Decimal, Decimal]]]:
    c = schema.positions.c
    held: defaultdict[str, list[tuple[Decimal, Decimal]]] = defaultdict(list)
    for symbol, quantity, entry in connection.execute(
        select(c.symbol, c.quantity, c.entry_price).where(c.venue == str(Venue.USDM)).order_by(c.symbol)
    ):
        held[symbol].append((quantity, entry))
    return held


def _quantities(held: Mapping[str, Sequence[tuple[Decimal, Decimal]]]) -> dict[str, Decimal]:
    sums = {}
    for symbol, rows in held.items():
        sums[symbol] = ZERO
        for quantity, _ in rows:
            sums[symbol] = EXACT.add(sums[symbol], quantity)
    return sums


def _contracts(connection: Connection) -> Iterator[Difference]:
    account = ledger.held_contracts(str(Venue.USDM))
    posted = {
        asset.removesuffix(CONTRACT_SUFFIX): amount
        for (_, asset), amount in ledger.balances(connection, [account]).items()
    }
    what = "position (theirs: contracts in the ledger)"
    yield from unlike(str(Venue.USDM), what, _quantities(_held(connection)), posted)


def _positions(connection: Connection, positions: Sequence[ExchangePosition]) -> Iterator[Difference]:
    held = _held(connection)
    theirs = {position.symbol: position for position in positions}
    venue = str(Venue.USDM)
    yield from unlike(venue, "position", _quantities(held), {name: each.quantity for name, each in theirs.items()})
    for symbol, position in sorted(theirs.items()):
        rows = held.get(symbol, [])
        if len(rows) == 1 and position.quantity and not _is_near(rows[0][1], position.entry_price):
            yield Difference(
                venue=venue,
                what=f"entry price {symbol}",
                ours=plain(rows[0][1]),
                theirs=plain(position.entry_price),
            )


def _is_near(ours: Decimal, theirs: Decimal) -> bool:
    exponent = theirs.as_tuple().exponent
    digit = Decimal((0, (1,), exponent)) if isinstance(exponent, int) else ENTRY_STEP[Venue.USDM]
    return EXACT.subtract(ours, theirs).copy_abs() <= digit


def _trades(connection: Connection, snapshot: ExchangeSnapshot) -> Iterator[Difference]:
    listed: defaultdict[tuple[str, str], dict[int, ExchangeTrade]] = defaultdict(dict)
    for trade in snapshot.trades:
        if trade.venue in snapshot.venues:
            listed[(str(trade.venue), trade.symbol)][trade.trade_id] = trade
    start = {place: min(trades) for place, trades in listed.items()}
    start.update({(str(venue), symbol): first for (venue, symbol), first in snapshot.trades_from.items()})
    if not start:
        return
    w = schema.watermarks.c
    marks = {(row[0], row[1]): row[2] for row in connection.execute(select(w.venue, w.symbol, w.trade_id))}
    kept = _kept(connection, start)
    for place, first in sorted(start.items()):
        lowest = max(first, marks.get(place, -1) + 1)
        for trade_id in sorted(kept[place].keys() | listed[place].keys()):
            if trade_id >= lowest:
                yield from _compare(place, trade_id, kept[place].get(trade_id), listed[place].get(trade_id))


def _kept(
    connection: Connection, start: Mapping[tuple[str, str], int]
) -> defaultdict[tuple[str, str], dict[int, Fill]]:
    c = schema.fills.c
    places = [
        and_(c.venue == venue, c.symbol == symbol, c.trade_id >= first) for (venue, symbol), first in start.items()
    ]
    kept: defaultdict[tuple[str, str], dict[int, Fill]] = defaultdict(dict)
    for row in connection.execute(select(schema.fills).where(or_(*places))).mappings():
        fill = fill_of(row)
        kept[(row["venue"], row["symbol"])][fill.trade.trade_id] = fill
    return kept


def _compare(
    place: tuple[str, str], trade_id: int, ours: Fill | None, theirs: ExchangeTrade | None
) -> Iterator[Difference]:
    venue, symbol = place
    what = f"trade {symbol}:{trade_id}"
    if ours is None or theirs is None:
        yield Difference(
            venue=venue,
            what=what,
            ours=NOTHING if ours is None else _words(ours.trade),
            theirs=NOTHING if theirs is None else _words(theirs),
        )
        return
    for name in _COMPARED:
        mine, yours = getattr(ours.trade, name), getattr(theirs, name)
        if mine != yours:
            yield Difference(venue=venue, what=f"{what} {name}", ours=_text(mine), theirs=_text(yours))


def _words(trade: ExchangeTrade) -> str:
    return f"{trade.side} {wire(trade.quantity)} at {wire(trade.price)}, order {trade.order_id}"


def _text(value: object) -> str:
    return plain(value) if isinstance(value, Decimal) else str(value)
