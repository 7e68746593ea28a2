"""Proof of execution: what the exchange says of an order of ours is welcome at any fence, in any state.

It is stored append-only, bars every further send, reopens a finished row, and asks for fills that are not booked yet.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from sqlalchemy import Connection

from app.delivery import FOLLOWUP, Parcel
from app.execution.alarms import alarm
from app.execution.context import REDELIVER_AFTER_MS, ExecutionContext
from app.intents import OrderIntent, from_canonical
from app.job_safety.errors import InvariantViolatedError
from app.job_safety.outcome import ExchangeOrder
from app.job_safety.state import DOUBTFUL, LIVE, ON_EXCHANGE, TERMINAL_STATES, IntentState
from app.journal import attempts, followups, intents, tallies
from app.journal.followups import Followup
from app.journal.intents import RETRIED_FROM
from app.journal.prepared import Bound, counts_of
from app.journal.rows import IntentRow
from app.journal.tallies import Tally

FETCH_FILLS: Final = "fetch_fills"

_FINISHED: Final = {
    "FILLED": IntentState.FILLED,
    "CANCELED": IntentState.CANCELED,
    "EXPIRED": IntentState.EXPIRED_BY_EXCHANGE,
    "EXPIRED_IN_MATCH": IntentState.EXPIRED_BY_EXCHANGE,
    "REJECTED": IntentState.EXPIRED_BY_EXCHANGE,
    "FINISHED": IntentState.FILLED,
}
_NO_LONGER_SENT: Final = frozenset({IntentState.EXPIRED, IntentState.REJECTED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopted:
    """The row after the proof, and what is now to be delivered."""

    row: IntentRow
    parcels: Sequence[Parcel]


def adopt(context: ExecutionContext, connection: Connection, *, key: str, order: ExchangeOrder, source: str) -> Adopted:
    """Take what the exchange said of `order` into the journal, in the caller's transaction.

    Args:
        context: This process.
        connection: A write transaction.
        key: The intent whose client order id the order carries.
        order: What the exchange said.
        source: Who heard it: `dispatch`, `reconcile`, `follow`, `sweep`, …

    Raises:
        IntentNotFoundError: the journal does not know the key.
    """
    now_ms = context.clock.now_ms()
    row = intents.load(connection, key, lock=True)
    _alarm_if_odd(context, connection, row, order, source)
    if _is_second(row, order):
        counts_of(connection, _proof(row, order, source, now_ms=now_ms))
        _tally_second(connection, row, order)
        # A second order under one id: the first keeps the row, and the sweep of trades books the other one too.
        return Adopted(row=row, parcels=[])
    ask, also = _along(row, order, source, now_ms=now_ms)
    row, counts = _moved(context, connection, row, order, source=source, also=also, now_ms=now_ms)
    return _adopted(row, ask, counts)


def adopt_at_once(context: ExecutionContext, row: IntentRow, order: ExchangeOrder) -> Adopted | None:
    """Take the plain answer to a first attempt into the journal, as `adopt` does, in a transaction of its own.

    Args:
        context: This process, the owner of the attempt.
        row: As this process has moved it to DISPATCHED.
        order: What the exchange said.

    Returns:
        What `adopt` does, or None, and nothing is written: somebody has moved the row, or there is more to be told and
        counted than goes into one statement.

    Raises:
        StoreUnavailableError: as `Journal.write`.
    """
    after = _state_after(row, order)
    if after is None or row.attempt >= RETRIED_FROM or _is_second(row, order) or _differences(row, order):
        return None
    now_ms = context.clock.now_ms()
    ask, also = _along(row, order, "dispatch", now_ms=now_ms)
    move, moved = intents.moving(row, after, now_ms=now_ms, **_columns(row, order, after, "dispatch", now_ms=now_ms))
    counts = context.journal.at_once(move, *also)
    if counts is None:
        return None
    _tell_if_finished(context, row, after)
    return _adopted(moved, ask, counts)


def _proof(row: IntentRow, order: ExchangeOrder, source: str, *, now_ms: int) -> Bound:
    return attempts.proof(key=row.key, order=order, source=source, before=row.state.value, now_ms=now_ms)


def _along(row: IntentRow, order: ExchangeOrder, source: str, *, now_ms: int) -> tuple[Followup | None, list[Bound]]:
    """Return what is written along with the move: the proof, the attempt's outcome, and what asks for the fills."""
    proof = _proof(row, order, source, now_ms=now_ms)
    settled = attempts.settling(
        key=row.key, attempt=row.attempt, outcome="ACCEPTED", by=source, now_ms=now_ms,
        answer=f"{order.status} {order.executed_quantity}",
    )  # fmt: skip
    ask = _question_of_fills(row, order, now_ms=now_ms)
    return ask, [proof, settled, *([followups.addition(ask, now_ms=now_ms)] if ask is not None else [])]


def _adopted(row: IntentRow, ask: Followup | None, counts: Sequence[int]) -> Adopted:
    is_news = ask is not None and counts[-1] == 1
    return Adopted(row=row, parcels=[_parcel(ask)] if ask is not None and is_news else [])


def _moved(
    context: ExecutionContext,
    connection: Connection,
    row: IntentRow,
    order: ExchangeOrder,
    *,
    source: str,
    also: Sequence[Bound],
    now_ms: int,
) -> tuple[IntentRow, list[int]]:
    """Take what is new of the order into its row, with whatever goes along; return the row, and what `also` counted."""
    after = _state_after(row, order)
    if after is None:
        if order.is_algo and order.actual_order_id is not None and row.actual_order_id is None:
            # Triggered: from here on the real order is followed and canceled, by its own id.
            intents.touch(connection, row, now_ms=now_ms, actual_order_id=order.actual_order_id)
        counts = counts_of(connection, *also)
        return intents.load(connection, row.key), counts
    changes = _columns(row, order, after, source, now_ms=now_ms)
    moved, counts = intents.move_with(connection, row, after, also, now_ms=now_ms, **changes)
    if moved is None:
        raise InvariantViolatedError(f"{row.key}: moved by somebody else under its lock")
    _tell_if_finished(context, row, after)
    return moved, counts


def _tally_second(connection: Connection, row: IntentRow, order: ExchangeOrder) -> None:
    """Count a second order once, however often the exchange tells of it."""
    if attempts.is_first_proof(connection, key=row.key, order_id=order.order_id):
        tallies.add(connection, Tally.DUPLICATES_EXECUTED, row.job_type)


def _tell_if_finished(context: ExecutionContext, row: IntentRow, after: IntentState) -> None:
    if after in TERMINAL_STATES and row.state not in TERMINAL_STATES:
        context.record.event("order_finished", level="debug", count=False, key=row.key, state=after.value)


def _state_after(row: IntentRow, order: ExchangeOrder) -> IntentState | None:
    """Return the new state, or None if the proof tells nothing new (a lagging read, an old answer, a repetition)."""
    executed = row.executed_quantity or Decimal(0)
    if row.state in ON_EXCHANGE:
        if order.executed_quantity < executed:
            return None
        if row.state not in LIVE and order.executed_quantity == executed:
            return None
    if order.is_algo and order.status == "FINISHED" and order.executed_quantity == 0:
        # The algo order is over; what became of the real order is asked for by its own id.
        return IntentState.ACCEPTED if row.state not in ON_EXCHANGE else None
    finished = _FINISHED.get(order.status)
    if finished is not None:
        return finished
    after = IntentState.PARTIALLY_FILLED if order.executed_quantity > 0 else IntentState.ACCEPTED
    if after is IntentState.ACCEPTED and row.state in ON_EXCHANGE:
        return None
    return after


def _columns(
    row: IntentRow, order: ExchangeOrder, after: IntentState, source: str, *, now_ms: int
) -> dict[str, object]:
    columns: dict[str, object] = {
        "executed_quantity": order.executed_quantity,
        "average_price": order.average_price if order.average_price > 0 else row.average_price,
        "exchange_status": order.status,
        "run_at_ms": None,
        "in_doubt_since_ms": None,
        "finished_at_ms": None if _FINISHED.get(order.status) is None else now_ms,
    }
    if order.is_algo:
        columns |= {
            "exchange_order_id": order.order_id,
            "actual_order_id": order.actual_order_id or row.actual_order_id,
        }
    elif row.is_algo:
        columns["actual_order_id"] = order.order_id
    else:
        columns["exchange_order_id"] = order.order_id
    if row.booked_at_ms is not None and order.executed_quantity > (row.executed_quantity or 0):
        columns["booked_at_ms"] = None
    if row.state not in ON_EXCHANGE:
        columns["reason"] = None if source == "dispatch" else f"found at the exchange by {source}"
    if after in TERMINAL_STATES and order.executed_quantity == 0:
        columns["booked_at_ms"] = now_ms
    return columns


def _question_of_fills(row: IntentRow, order: ExchangeOrder, *, now_ms: int) -> Followup | None:
    """Return what asks for the fills that the order tells of; the same question once only, by its key."""
    if order.executed_quantity <= 0:
        return None
    trading_id = (order.actual_order_id or order.order_id) if order.is_algo else order.order_id
    return Followup(
        key=f"{FETCH_FILLS}:{row.venue}:{row.symbol}:{trading_id}:{order.executed_quantity}:{order.status}",
        kind=FETCH_FILLS,
        queue="positions",
        intent_key=row.key,
        payload={
            "order_id": trading_id,
            "executed_quantity": format(order.executed_quantity, "f"),
            "venue": order.venue.value,
        },
        # The sweeper's time to look: the worker that writes this delivers it at once.
        run_at_ms=now_ms + REDELIVER_AFTER_MS,
    )


def _parcel(ask: Followup) -> Parcel:
    return Parcel(key=ask.key, type=FOLLOWUP, queue=ask.queue, description=f"fetch fills of {ask.intent_key}")


def _alarm_if_odd(
    context: ExecutionContext, connection: Connection, row: IntentRow, order: ExchangeOrder, source: str
) -> None:
    if row.state in _NO_LONGER_SENT or (row.state is IntentState.RETRY_WAIT and row.attempt > 0):
        alarm(
            context, connection, "late_fill", row, state=row.state.value, order_id=order.order_id, status=order.status,
            source=source,
        )  # fmt: skip
    if _is_second(row, order):
        alarm(
            context, connection, "duplicate_order", row, order_id=row.exchange_order_id,
            second_order_id=order.order_id, source=source,
        )  # fmt: skip
    different = _differences(row, order)
    if different:
        alarm(context, connection, "order_differs", row, order_id=order.order_id, differences=different, source=source)
    if row.state in DOUBTFUL and source != "dispatch":
        context.record.event(
            "doubt_settled", key=row.key, state=row.state.value, order_id=order.order_id, source=source,
            job_type=row.job_type, attempt=row.attempt,
            doubt_ms=context.clock.now_ms() - (row.in_doubt_since_ms or row.updated_at_ms),
        )  # fmt: skip


def _is_second(row: IntentRow, order: ExchangeOrder) -> bool:
    """Whether `order` is another one than the row's. The real order of a triggered algo order has an id of its own."""
    own_id = row.actual_order_id if row.is_algo and not order.is_algo else row.exchange_order_id
    return own_id is not None and own_id != order.order_id


def _differences(row: IntentRow, order: ExchangeOrder) -> list[str]:
    intent = from_canonical(row.content)
    if not isinstance(intent, OrderIntent):
        return ["the row is not an order"]
    asked = {"symbol": intent.symbol, "side": intent.side, "quantity": intent.quantity}
    told = {"symbol": order.symbol, "side": order.side, "quantity": order.quantity}
    if intent.price is not None and not order.is_algo:
        asked["price"] = intent.price
        told["price"] = order.price
    if intent.reduce_only and order.quantity <= intent.quantity:
        told["quantity"] = intent.quantity  # the exchange cuts a reduce-only order down to the position
    return [f"{name}: asked {asked[name]}, exchange says {told[name]}" for name in asked if asked[name] != told[name]]
