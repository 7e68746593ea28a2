"""Take what a sweep has found at the exchange into the journal: trades into the books, orders into their intents.

A write transaction keeps every dispatch on SQLite waiting, and a sweep may find hundreds of orders: it takes some at a
time, and asks the exchange only about those that have traded more than the journal knows.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from app.exchange.errors import ExchangeQueryError
from app.exchange.models import ExchangeTrade
from app.execution import circuits
from app.execution.adopt import Adopted, adopt
from app.execution.context import ExecutionContext
from app.execution.fills import BOOK_KINDS, parcels_of
from app.job_safety.errors import InvariantViolatedError
from app.job_safety.outcome import ExchangeOrder
from app.job_safety.state import LIVE, ON_EXCHANGE
from app.journal import attempts, followups
from app.journal.rows import IntentRow
from app.money import ZERO

ORDERS_AT_ONCE: Final = 10
"""How many orders' trades are booked in one transaction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ours:
    """An order of ours, and trades of it."""

    owner: IntentRow
    trades: list[ExchangeTrade] = field(default_factory=list)


def book_ours(context: ExecutionContext, found: Sequence[Ours]) -> int:
    """Book the trades of orders of ours; return how many were new.

    Raises:
        ExchangeQueryError: an order has traded more than the journal knows, and a question about it was not answered.
        InvariantViolatedError: a trade contradicts the books. In both cases all others are booked all the same.
    """
    count = 0
    troubles: list[Exception] = []
    todo = deque(found[at : at + ORDERS_AT_ONCE] for at in range(0, len(found), ORDERS_AT_ONCE))
    while todo:
        some = todo.popleft()
        try:
            count += _book(context, some)
        except InvariantViolatedError as error:
            if len(some) > 1:
                todo.extend([one] for one in some)
            else:
                troubles.append(error)
        except ExchangeQueryError as error:
            troubles.append(error)
    if troubles:
        raise troubles[0]
    return count


def book_external(context: ExecutionContext, trades: Sequence[ExchangeTrade]) -> int:
    """Book trades that are not ours, visibly; return how many were new."""
    if not trades:
        return 0
    with context.journal.write() as connection:
        new = context.books.record_fills(connection, trades=trades, key=None, now_ms=context.clock.now_ms())
    if new:
        context.record.event("external_trades", level="warning", trades=[trade.trade_id for trade in new])
    return len(new)


def take_in(context: ExecutionContext, owner: IntentRow, order: ExchangeOrder) -> Adopted:
    """Adopt what the exchange says of an order of ours."""
    if owner.state not in ON_EXCHANGE:
        # The sweep may be faster than reconcile, which would have told the circuit.
        with context.journal.read() as connection:
            tries = attempts.of_intent(connection, owner.key)
        if tries:
            circuits.tell_of_unknown(context, owner, tries[-1])
    with context.journal.write() as connection:
        return adopt(context, connection, key=owner.key, order=order, source="sweep")


def _book(context: ExecutionContext, found: Sequence[Ours]) -> int:
    owned = {one.owner.key: one.trades for one in found}
    with context.journal.write() as connection:
        booked = context.books.record_owned(connection, owned=owned, now_ms=context.clock.now_ms())
    with context.journal.read() as connection:
        work = [
            one for key in owned if booked[key].new for one in followups.open_of_intent(connection, key, BOOK_KINDS)
        ]
    context.hand_over(parcels_of(work))
    for owner in (one.owner for one in found):
        if owner.state not in LIVE and booked[owner.key].quantity > (owner.executed_quantity or ZERO):
            _ask_for_the_end(context, owner)
    return sum(one.new for one in booked.values())


def _ask_for_the_end(context: ExecutionContext, owner: IntentRow) -> None:
    """A finished order has traded more than its last status said: take in what the exchange says of it now."""
    if owner.venue is None or owner.symbol is None:
        return
    answer = context.gateway.get_order(owner.venue, owner.symbol, order_id=owner.trading_id)
    if isinstance(answer, ExchangeOrder):
        context.hand_over(take_in(context, owner, answer).parcels)
