"""What an account shows, and whether anything has moved in it.

Every answer of the exchange may be old, by up to the longest read lag and each by another amount: balances from before
a deposit that the income history shows already, or a position with a trade in it that the trade list does not show yet.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from app.exchange.gateway import ExchangeGateway
from app.exchange.models import Balance, ExchangePosition
from app.job_safety.outcome import Venue


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
    """What the histories show: whether something moved since a moment, and the newest trade id of each symbol."""

    are_there: bool
    newest_trade_ids: Mapping[str, int]


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


def read_movements(gateway: ExchangeGateway, venue: Venue, symbols: Sequence[str], since_ms: int) -> Movements:
    """Ask for the trades of every symbol and, on futures, for the income history.

    Futures income has a line for every commission and realized profit too, so that trades on symbols that are not ours
    are seen. Spot tells of deposits and of other symbols nowhere but in its balances.

    Raises:
        ExchangeQueryError: a question was not answered.
    """
    newest: dict[str, int] = {}
    has_traded = False
    for symbol in symbols:
        # Without an id futures show the last seven days only. Before that there is little, or it is not the last.
        trades = gateway.newest_trades(venue, symbol) or gateway.trades_since(venue, symbol, from_id=0)
        newest[symbol] = max((trade.trade_id for trade in trades), default=-1)
        has_traded = has_traded or any(trade.time_ms >= since_ms for trade in trades)
    has_income = venue is Venue.USDM and bool(gateway.income(since_ms))
    return Movements(are_there=has_traded or has_income, newest_trade_ids=newest)
