"""Close futures positions by reduce-only market orders, which can neither open nor turn a position.

The orders are intents like all others. Their keys follow from what is to be closed (symbol, quantity, last booked
trade), so that asking twice closes once; an order of which nothing was executed gives way to the next number.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from sqlalchemy import Connection, select

from app.execution.context import ExecutionContext
from app.intents import OrderIntent
from app.job_safety.outcome import Venue
from app.job_safety.state import TERMINAL_STATES
from app.journal import intents, schema
from app.money import EXACT, plain

STRATEGY = "flatten"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """How one position is to be closed. Quantities are signed; `booked` is what the books say of it."""

    symbol: str
    quantity: Decimal
    booked: Decimal
    orders: Sequence[OrderIntent]


def plan(context: ExecutionContext, symbol: str | None = None) -> list[Exit]:
    """Return how to close every futures position that the exchange shows, or that of `symbol`.

    Raises:
        ExchangeQueryError: the exchange did not tell.
        StoreUnavailableError: the journal does not answer.
    """
    held = [one for one in context.gateway.positions(symbol) if one.quantity != 0 and symbol in {None, one.symbol}]
    exits = []
    for position in sorted(held, key=lambda one: one.symbol):
        parts = _parts(context, position.symbol, abs(position.quantity))
        with context.journal.read() as connection:
            booked, last_trade_id = _booked(context, connection, position.symbol)
            name = f"{STRATEGY}:{position.symbol}:{plain(position.quantity)}:{last_trade_id}"
            orders = [
                OrderIntent(
                    key=_key(connection, f"{name}:{number}"),
                    symbol=position.symbol,
                    side="SELL" if position.quantity > 0 else "BUY",
                    quantity=part,
                    reduce_only=True,
                    strategy=STRATEGY,
                )
                for number, part in enumerate(parts, 1)
            ]
        exits.append(Exit(symbol=position.symbol, quantity=position.quantity, booked=booked, orders=orders))
    return exits


def _key(connection: Connection, base: str) -> str:
    """Return the first key that is free or whose order may have done, or may yet do, something."""
    number = 1
    while True:
        key = f"{base}.{number}"
        row = intents.find(connection, key)
        if row is None or row.state not in TERMINAL_STATES or row.executed_quantity:
            return key
        number += 1


def _parts(context: ExecutionContext, symbol: str, quantity: Decimal) -> list[Decimal]:
    """Split what is more than the exchange takes in one market order."""
    rules = context.rules.rules(Venue.USDM, symbol)
    most = rules.market_quantity.most if rules is not None else Decimal(0)
    if most <= 0:
        return [quantity]
    parts, rest = [], quantity
    while rest > 0:
        parts.append(min(rest, most))
        rest = EXACT.subtract(rest, parts[-1])
    return parts


def _booked(context: ExecutionContext, connection: Connection, symbol: str) -> tuple[Decimal, int]:
    table = schema.positions.c
    query = select(table.quantity, table.last_trade_id).where(
        table.account == context.account, table.venue == Venue.USDM.value, table.symbol == symbol
    )
    row = connection.execute(query).first()
    return (Decimal(0), -1) if row is None else (row.quantity, row.last_trade_id)
