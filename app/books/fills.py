"""Trades as the journal keeps them: the rows of `fills`, and the reading of them for the other books."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, and_, or_, select
from sqlalchemy.sql.base import ReadOnlyColumnCollection

from app.exchange.models import ExchangeTrade
from app.intents import Trade
from app.job_safety.errors import InvariantViolatedError
from app.job_safety.outcome import Venue
from app.journal import schema
from app.money import EXACT, total


@dataclass(frozen=True, slots=True, kw_only=True)
class Fill:
    """A trade of this account. `key` names the intent that caused it; None means that it is not ours: external."""

    account: str
    key: str | None
    trade: ExchangeTrade

    @property
    def is_external(self) -> bool:
        """Whether no intent of ours caused it."""
        return self.key is None


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class SymbolKey:
    """What a position, and a sequence of trade ids, belongs to."""

    account: str
    venue: str
    symbol: str


def here(columns: ReadOnlyColumnCollection[str, Any], at: SymbolKey) -> ColumnElement[bool]:
    """Return the condition that a row with `columns` belongs to `at`."""
    return and_(columns.account == at.account, columns.venue == at.venue, columns.symbol == at.symbol)


def trade_of_intent(venue: str, symbol: str, trade: Trade) -> ExchangeTrade:
    """Return the trade that a position or pnl intent carries."""
    return ExchangeTrade(
        venue=Venue(venue),
        symbol=symbol,
        trade_id=trade.id,
        order_id=trade.orderId,
        side=trade.side,
        price=trade.price,
        quantity=trade.qty,
        quote_quantity=EXACT.multiply(trade.price, trade.qty),
        commission=trade.commission,
        commission_asset=trade.commissionAsset,
        time_ms=trade.time,
        realized_pnl=trade.realizedPnl,
    )


def row_of(trade: ExchangeTrade, *, account: str, key: str | None, now_ms: int) -> dict[str, Any]:
    """Return the row of `fills` for `trade`."""
    return {
        "account": account,
        "venue": str(trade.venue),
        "symbol": trade.symbol,
        "trade_id": trade.trade_id,
        "order_id": trade.order_id,
        "key": key,
        "side": trade.side,
        "price": trade.price,
        "quantity": trade.quantity,
        "commission": trade.commission,
        "commission_asset": trade.commission_asset,
        "realized_pnl": trade.realized_pnl,
        "time_ms": trade.time_ms,
        "recorded_at_ms": now_ms,
    }


def fill_of(row: RowMapping) -> Fill:
    """Return the fill in a row of `fills`. Whether it was maker or taker is not kept."""
    trade = ExchangeTrade(
        venue=Venue(row["venue"]),
        symbol=row["symbol"],
        trade_id=row["trade_id"],
        order_id=row["order_id"],
        side=row["side"],
        price=row["price"],
        quantity=row["quantity"],
        quote_quantity=EXACT.multiply(row["price"], row["quantity"]),
        commission=row["commission"],
        commission_asset=row["commission_asset"],
        time_ms=row["time_ms"],
        realized_pnl=row["realized_pnl"],
    )
    return Fill(account=row["account"], key=row["key"], trade=trade)


def load(connection: Connection, wanted: Mapping[SymbolKey, Iterable[int]]) -> list[Fill]:
    """Return the fills with these trade ids, in one statement, ordered by symbol and trade id.

    Raises:
        InvariantViolatedError: one of them is not there, though whoever asks was told so by this journal.
    """
    if not wanted:
        return []
    c = schema.fills.c
    ids = {at: sorted(set(trade_ids)) for at, trade_ids in sorted(wanted.items())}
    places = [and_(here(c, at), c.trade_id.in_(trade_ids)) for at, trade_ids in ids.items()]
    query = select(schema.fills).where(or_(*places)).order_by(c.account, c.venue, c.symbol, c.trade_id)
    found = [fill_of(row) for row in connection.execute(query).mappings()]
    if len(found) != sum(map(len, ids.values())):
        raise InvariantViolatedError(f"a follow-up names trades that were never recorded: {sorted(ids)[:5]}")
    return found


def load_from(connection: Connection, at: SymbolKey, trade_id: int) -> list[Fill]:
    """Return the fills of `at` from `trade_id` on, in the order of their ids."""
    c = schema.fills.c
    query = select(schema.fills).where(here(c, at), c.trade_id >= trade_id).order_by(c.trade_id)
    return [fill_of(row) for row in connection.execute(query).mappings()]


def check_same(kept: Fill, told: ExchangeTrade) -> None:
    """Compare a trade that is told again with what is kept of it.

    Realized profit is compared nowhere: the answer to an order does not carry it, the trade list does.

    Raises:
        InvariantViolatedError: the same trade id with another content.
    """
    names: Sequence[str] = ("order_id", "side", "price", "quantity", "commission", "commission_asset")
    different = [name for name in names if getattr(kept.trade, name) != getattr(told, name)]
    if different:
        raise InvariantViolatedError(
            f"trade {told.venue}:{told.symbol}:{told.trade_id} is told with another {', '.join(different)}"
        )


def symbol_key(fill: Fill) -> SymbolKey:
    """Return the position that `fill` belongs to."""
    return SymbolKey(account=fill.account, venue=str(fill.trade.venue), symbol=fill.trade.symbol)


def quantities_of(connection: Connection, keys: Iterable[str]) -> dict[str, Decimal]:
    """Return what the orders of these intents have traded so far, as far as it is known here."""
    c = schema.fills.c
    wanted = sorted(set(keys))
    kept: dict[str, list[Decimal]] = {key: [] for key in wanted}
    for key, quantity in connection.execute(select(c.key, c.quantity).where(c.key.in_(wanted))):
        kept[key].append(quantity)
    return {key: total(quantities) for key, quantities in kept.items()}
