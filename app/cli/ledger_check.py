"""`fillonce ledger check`: do the books agree with themselves and with the exchange, to the last digit?"""

from collections.abc import Sequence
from dataclasses import dataclass

from app.books.check import ExchangeSnapshot, check_books
from app.books.consistency import Difference
from app.books.opening import is_open
from app.exchange.models import Balance, ExchangePosition, ExchangeTrade
from app.execution.context import ExecutionContext
from app.execution.follow import Spent, sweep_income, sweep_trades
from app.job_safety.outcome import Venue
from app.journal import watermarks

STEADY_TRIES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """The result of a check. `trades` were compared one by one."""

    differences: Sequence[Difference]
    venues: Sequence[Venue]
    trades: int


def check_against_exchange(context: ExecutionContext) -> Checked:
    """Book what has not been booked yet (income, trades nobody claimed), then compare everything.

    Raises:
        ExchangeQueryError: the exchange did not answer.
        StoreUnavailableError: the journal did not answer.
    """
    with context.journal.read() as connection:
        venues = [venue for venue in Venue if is_open(connection, venue)]
        symbols = {venue: watermarks.symbols_of(connection, venue=venue.value) for venue in venues}
    for venue in venues:
        for symbol in symbols[venue]:
            sweep_trades(context, venue, symbol, Spent(weight={}))
    sweep_income(context)
    snapshot = _snapshot(context, venues, symbols)
    with context.journal.read() as connection:
        differences = check_books(connection, snapshot)
    return Checked(differences=differences, venues=venues, trades=len(snapshot.trades))


def _snapshot(context: ExecutionContext, venues: Sequence[Venue], symbols: dict[Venue, list[str]]) -> ExchangeSnapshot:
    balances: list[Balance] = []
    positions: list[ExchangePosition] = []
    trades: list[ExchangeTrade] = []
    trades_from: dict[tuple[Venue, str], int] = {}
    for venue in venues:
        balances += context.gateway.balances(venue)
        if venue is Venue.USDM:
            positions += context.gateway.positions()
        for symbol in symbols[venue]:
            with context.journal.read() as connection:
                first = watermarks.opening_trade_id(connection, venue=venue.value, symbol=symbol) + 1
            trades_from[venue, symbol] = first
            trades += context.gateway.trades_since(venue, symbol, from_id=max(first, 0))
    return ExchangeSnapshot(
        balances=balances, positions=positions, trades=trades, trades_from=trades_from, venues=frozenset(venues)
    )
