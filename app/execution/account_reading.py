"""What an account shows, and whether anything has moved in it.

Every answer of the exchange may be old, by up to the longest read lag and each by another amount: balances from before
a deposit that the income history shows already, or a position with a trade in it that the trade list does not show yet.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from app.exchange.gateway import ExchangeGateway
from app.exchange.models import Balance, ExchangePosition
from app.job_safety.outcome import Venue

TRADES_SHOWN: Final = 500
"""A list of trades at least so long may have been cut off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountReading:
    """Balances and positions as they were answered between two moments of the exchange's clock."""

    venue: Venue
    from_ms: int
    until_ms: int
    balances: Sequence[Balance]
    positions: Sequence[ExchangePosition]

    def holds_the_same_as(self, other: "AccountReading") -> bool:
        """Return whether both show the same amounts and positions; prices and what hangs on them may differ."""
        return self.amounts() == other.amounts() and self.held() == other.held()

    def amounts(self) -> dict[str, Decimal]:
        """Return what there is of each asset, profit that is not realized left out."""
        return {one.asset: one.wallet for one in self.balances if one.venue is self.venue and one.wallet}

    def held(self) -> dict[tuple[str, str], tuple[Decimal, Decimal]]:
        """Return quantity and entry price of every position, by symbol and side."""
        held = (one for one in self.positions if one.quantity)
        return {(one.symbol, one.position_side): (one.quantity, one.entry_price) for one in held}


@dataclass(frozen=True, slots=True, kw_only=True)
class Movements:
    """What the histories show of a span of time.

    Attributes:
        are_inside: Whether something moved within it, or may have.
        are_later: Whether something moved after it.
        last_trade_ids: The newest trade of each symbol that is not later.
    """

    are_inside: bool
    are_later: bool
    last_trade_ids: Mapping[str, int]


def read_account(gateway: ExchangeGateway, venue: Venue) -> AccountReading:
    """Ask what the account holds, with the exchange's time before and after.

    Raises:
        ExchangeQueryError: a question was not answered.
    """
    from_ms = gateway.server_time(venue).server_time_ms
    balances = gateway.balances(venue)
    positions = gateway.positions() if venue is Venue.USDM else []
    until_ms = gateway.server_time(venue).server_time_ms
    return AccountReading(venue=venue, from_ms=from_ms, until_ms=until_ms, balances=balances, positions=positions)


def read_movements(
    gateway: ExchangeGateway, venue: Venue, symbols: Sequence[str], *, since_ms: int, until_ms: int
) -> Movements:
    """Ask for the trades of every symbol and, on futures, for the income history.

    Futures income has a line for every commission and realized profit too, so that trades on symbols that are not ours
    are seen. Spot tells of deposits and of other symbols nowhere but in its balances.

    Raises:
        ExchangeQueryError: a question was not answered.
    """
    times: list[int] = []
    last: dict[str, int] = {}
    is_cut_off = False
    for symbol in symbols:
        # Without an id futures show the last seven days only. Before that there is little, or it is not the last.
        trades = gateway.newest_trades(venue, symbol) or gateway.trades_since(venue, symbol, from_id=0)
        times += [trade.time_ms for trade in trades]
        before = [trade.trade_id for trade in trades if trade.time_ms <= until_ms]
        later = [trade.trade_id for trade in trades if trade.time_ms > until_ms]
        # Ids grow: whatever lies before the first later one is not later, whether it is shown or not.
        last[symbol] = max(before) if before else min(later, default=0) - 1
        is_cut_off = is_cut_off or (not before and len(later) >= TRADES_SHOWN)
    if venue is Venue.USDM:
        times += [entry.time_ms for entry in gateway.income(since_ms)]
    return Movements(
        are_inside=is_cut_off or any(since_ms <= time_ms <= until_ms for time_ms in times),
        are_later=any(time_ms > until_ms for time_ms in times),
        last_trade_ids=last,
    )
