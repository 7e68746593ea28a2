"""Whether everything promised is true: reads the exchange's own truth, the journal and the books, and trusts no worker.

Empty answer: at most one order per client order id, every intent finished and booked, nothing open, nothing
unexplained, and books that agree with the exchange to the last digit.
"""

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from redis import Redis
from sqlalchemy import Connection, select

from app.books.check import ExchangeSnapshot, check_books
from app.exchange.models import Balance, ExchangePosition, ExchangeTrade
from app.job_safety.keys import CLIENT_ORDER_ID_PREFIX
from app.job_safety.outcome import Venue
from app.job_safety.state import ON_EXCHANGE, TERMINAL_STATES, IntentState
from app.journal import attempts, schema
from app.journal.engine import Journal
from app.journal.rows import IntentRow, intent_row

VENUES = {"futures": Venue.USDM, "spot": Venue.SPOT}


@dataclass(frozen=True, slots=True, kw_only=True)
class Checker:
    """Checks one installation against its exchange."""

    journal: Journal
    redis: Redis
    mode: str = "paper"
    account: str = "main"

    def problems(self, truth: Any, *, expected_alarms: Collection[str] = ()) -> list[str]:
        """Return all that is not as promised, in words. To be asked when everything has come to rest."""
        with self.journal.read() as connection:
            rows = [intent_row(row) for row in connection.execute(select(schema.intents))]
            return [
                *_duplicates(truth),
                *_unfinished(connection, rows),
                *_not_as_the_exchange_says(connection, rows, truth),
                *_open_followups(connection),
                *_books(connection, truth),
                *self._alarms(expected_alarms),
            ]

    def counters(self) -> dict[str, int]:
        """Return what was counted."""
        raw: Any = self.redis.hgetall(f"metrics:counters:{self.mode}:{self.account}")
        return {_text(name): int(count) for name, count in raw.items()}

    def _alarms(self, expected: Collection[str]) -> Iterator[str]:
        found = {name for name in self.counters() if name.startswith("alarm_")}
        for name in sorted(found ^ set(expected)):
            yield f"{name}: {'counted, not expected' if name in found else 'expected, not counted'}"


def books_snapshot(truth: Any) -> ExchangeSnapshot:
    """Return what the exchange says, read from its own truth: none of our own reading of answers is in between."""
    spot = [_spot_balance(asset, one) for asset, one in truth["spot_balances"].items()]
    wallet = Decimal(truth["summary"]["futures_wallet"])
    futures = Balance(venue=Venue.USDM, asset="USDT", wallet=wallet, available=wallet)
    return ExchangeSnapshot(
        balances=[futures, *spot],
        positions=[
            ExchangePosition(
                symbol=symbol,
                quantity=Decimal(one["amount"]),
                entry_price=Decimal(one["entry_price"]),
                mark_price=Decimal(0),
                unrealized_pnl=Decimal(0),
            )
            for symbol, one in truth["positions"].items()
            if Decimal(one["amount"])
        ],
        trades=[_trade(trade) for trade in truth["trades"]],
        # All of them, from the first one on: a trade of ours that the exchange does not have must show up too.
        trades_from={(VENUES[name], symbol): 0 for name in VENUES for symbol in truth["prices"]},
    )


def _duplicates(truth: Any) -> Iterator[str]:
    placed = Counter((order["venue"], order["client_order_id"]) for order in truth["orders"] if _is_ours(order))
    placed.update(("algo", order["client_algo_id"]) for order in truth["algo_orders"])
    for (venue, client_order_id), count in placed.items():
        if count > 1:
            yield f"DUPLICATE: {count} {venue} orders with the id {client_order_id}"


def _unfinished(connection: Connection, rows: list[IntentRow]) -> Iterator[str]:
    for row in rows:
        if row.state not in TERMINAL_STATES:
            yield f"UNFINISHED: {row.key} is {row.state}: {row.reason}"
        elif row.booked_at_ms is None:
            yield f"NOT BOOKED: {row.key} is {row.state}"
        if row.type != "order" or row.state not in TERMINAL_STATES:
            continue
        for attempt in attempts.of_intent(connection, row.key):
            if attempt.outcome is None:
                yield f"NO PROOF: {row.key} is {row.state}, and nobody knows what became of attempt {attempt.attempt}"
            if attempt.outcome == "ACCEPTED" and row.state not in ON_EXCHANGE:
                yield f"LOST: {row.key} is {row.state}, and attempt {attempt.attempt} was accepted"


def _not_as_the_exchange_says(connection: Connection, rows: list[IntentRow], truth: Any) -> Iterator[str]:
    by_client_id = {row.client_order_id: row for row in rows if row.client_order_id}
    executed: dict[str, Decimal] = {}
    algo_owners = {algo["order_id"]: algo["client_algo_id"] for algo in truth["algo_orders"] if algo["order_id"]}
    at_exchange: set[str] = {algo["client_algo_id"] for algo in truth["algo_orders"]}
    for order in truth["orders"]:
        name = algo_owners.get(order["order_id"]) if order["algo_id"] else order["client_order_id"]
        if name is not None:
            at_exchange.add(name)
            executed[name] = executed.get(name, Decimal(0)) + Decimal(order["executed"])
        if order["venue"] == "spot" or not order["algo_id"]:
            yield from _end_differs(by_client_id.get(order["client_order_id"]), order)
    for name in sorted(at_exchange):
        if name.startswith(CLIENT_ORDER_ID_PREFIX) and name not in by_client_id:
            yield f"UNKNOWN ORDER: the exchange has {name}, and no intent explains it"
    for name, row in by_client_id.items():
        if (row.state in ON_EXCHANGE) != (name in at_exchange):
            yield f"{row.key} is {row.state}, and the exchange {'has' if name in at_exchange else 'never had'} it"
        ours, theirs = row.executed_quantity or Decimal(0), executed.get(name, Decimal(0))
        if ours != theirs:
            yield f"{row.key}: {ours} executed, and the exchange says {theirs}"


def _end_differs(row: IntentRow | None, order: Any) -> Iterator[str]:
    ends = {
        "FILLED": IntentState.FILLED,
        "CANCELED": IntentState.CANCELED,
        "EXPIRED": IntentState.EXPIRED_BY_EXCHANGE,
        "EXPIRED_IN_MATCH": IntentState.EXPIRED_BY_EXCHANGE,
    }
    if row is not None and row.state in TERMINAL_STATES and row.state != ends.get(order["status"]):
        yield f"{row.key} is {row.state}, and the exchange says {order['status']}"


def _open_followups(connection: Connection) -> Iterator[str]:
    c = schema.followups.c
    for key, tries, error in connection.execute(select(c.key, c.tries, c.last_error).where(c.done_at_ms.is_(None))):
        if not key.startswith("verify_single"):  # looks again for a minute after a resend
            yield f"FOLLOW-UP OPEN: {key} after {tries} tries: {error}"


def _books(connection: Connection, truth: Any) -> Iterator[str]:
    for found in check_books(connection, books_snapshot(truth)):
        yield f"BOOKS: {found.venue} {found.what}: ours {found.ours}, theirs {found.theirs}"


def _is_ours(order: Any) -> bool:
    return bool(order["client_order_id"].startswith(CLIENT_ORDER_ID_PREFIX))


def _spot_balance(asset: str, one: Any) -> Balance:
    free, locked = Decimal(one["free"]), Decimal(one["locked"])
    return Balance(venue=Venue.SPOT, asset=asset, wallet=free + locked, available=free)


def _trade(told: Any) -> ExchangeTrade:
    price, quantity = Decimal(told["price"]), Decimal(told["quantity"])
    return ExchangeTrade(
        venue=VENUES[told["venue"]],
        symbol=told["symbol"],
        trade_id=told["trade_id"],
        order_id=told["order_id"],
        side=told["side"],
        price=price,
        quantity=quantity,
        quote_quantity=price * quantity,
        commission=Decimal(told["fee"]),
        commission_asset=told["fee_asset"],
        time_ms=told["time_ms"],
        realized_pnl=Decimal(told["realized_pnl"]),
        is_maker=told["is_maker"],
    )


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
