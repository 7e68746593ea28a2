"""A person's verdict on what nobody else can settle. Audited; proof of execution overturns what it says of an order.

Work that is no order (signals, book jobs) has its effect and its end in one transaction: quarantined, it had none.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from sqlalchemy import Connection

from app.execution.adopt import adopt
from app.execution.context import ExecutionContext
from app.intents import OrderIntent, from_canonical
from app.job_safety.errors import RetryableError, TerminalError
from app.job_safety.outcome import ExchangeOrder, Venue
from app.job_safety.state import IntentState
from app.journal import attempts, audit, intents, meta
from app.journal.rows import IntentRow


class Verdict(StrEnum):
    """What the person says became of it."""

    EXECUTED = "executed"
    """An order: the exchange has it."""
    NOT_EXECUTED = "not-executed"
    """It had no effect, and never will: it is given up."""
    RETRY = "retry"
    """It had no effect, and may run again. Never for an order."""


class VerdictRefusedError(TerminalError):
    """The verdict cannot be taken; says why, and what to do instead."""


class TooEarlyError(RetryableError):
    """A request could still be executed: the verdict has to wait for its fence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """A verdict with everything that the audit trail keeps of it. `order_id` is the exchange's, for EXECUTED."""

    verdict: Verdict
    reason: str
    by: str
    order_id: int | None = None


def resolve(context: ExecutionContext, key: str, ruling: Ruling) -> IntentRow:
    """Settle the quarantined or doubtful intent `key` as `ruling` says; return the row as it stands then.

    `not-executed` closes it as EXPIRED and never resends it. `executed` takes in what the exchange says of the order
    with the given id, which must fit: a person can name an order, not invent one. `retry` lets quarantined work that is
    no order run again.

    Raises:
        IntentNotFoundError: the journal does not know the key.
        VerdictRefusedError: it is not in doubt, or verdict or named order do not fit it.
        TooEarlyError: an attempt's fence has not passed on the exchange's clock.
        ExchangeQueryError: the exchange did not answer.
    """
    with context.journal.read() as connection:
        row = intents.load(connection, key)
        tries = attempts.of_intent(connection, key)
    if row.type != "order":
        return _other_work(context, row, ruling)
    if row.state not in {IntentState.QUARANTINED, IntentState.IN_DOUBT}:
        raise VerdictRefusedError(f"{key} is {row.state}: only an order in doubt or quarantined waits for a verdict")
    if row.venue is None or row.symbol is None:
        raise VerdictRefusedError(f"{key} has no venue or symbol")
    if ruling.verdict is Verdict.RETRY:
        raise VerdictRefusedError(
            f"{key} is an order, and no verdict sends one: say executed or not-executed, then enqueue a new key"
        )
    if ruling.verdict is Verdict.EXECUTED:
        return _executed(context, row, ruling)
    if tries:
        _wait_for_fence(context, row.venue, max(attempt.fence_ms for attempt in tries))
    return _not_executed(context, row, ruling)


def _wait_for_fence(context: ExecutionContext, venue: Venue, fence_ms: int) -> None:
    left_ms = fence_ms + context.horizons.fence_margin_ms - context.gateway.server_time(venue).server_time_ms
    if left_ms > 0:
        raise TooEarlyError(f"a request of this order could still be executed; try again in {left_ms} ms")


def _executed(context: ExecutionContext, row: IntentRow, ruling: Ruling) -> IntentRow:
    if ruling.order_id is None:
        raise VerdictRefusedError("--as executed needs --order-id: the exchange's id of the order")
    venue, symbol = row.venue or Venue.USDM, row.symbol or ""
    answer = context.gateway.get_order(venue, symbol, order_id=ruling.order_id, is_algo=row.is_algo)
    if not isinstance(answer, ExchangeOrder):
        raise VerdictRefusedError(f"the exchange knows no order {ruling.order_id} of {symbol}")
    with context.journal.read() as connection:
        owner = intents.by_order_ids(connection, venue=venue.value, symbol=symbol, order_ids=[ruling.order_id])
    if ruling.order_id in owner and owner[ruling.order_id].key != row.key:
        raise VerdictRefusedError(f"order {ruling.order_id} belongs to {owner[ruling.order_id].key}")
    # A canceled Spot order has lost its client id, so that the id may differ; side and quantity may not.
    intent = from_canonical(row.content)
    if not isinstance(intent, OrderIntent) or (answer.side, answer.quantity) != (intent.side, intent.quantity):
        raise VerdictRefusedError(f"order {ruling.order_id} is {answer.side} {answer.quantity}: not what was asked for")
    with context.journal.write() as connection:
        adopted = adopt(context, connection, key=row.key, order=answer, source="person")
        _note(context, connection, row, ruling)
    context.hand_over(adopted.parcels)
    return adopted.row


def _not_executed(context: ExecutionContext, row: IntentRow, ruling: Ruling) -> IntentRow:
    says = f"not executed, says {ruling.by}: {ruling.reason}"
    return _moved(context, row, ruling, IntentState.EXPIRED, says, booked_at_ms=context.clock.now_ms())


def _other_work(context: ExecutionContext, row: IntentRow, ruling: Ruling) -> IntentRow:
    if row.type == "cancel" or row.state is not IntentState.QUARANTINED:
        raise VerdictRefusedError(f"{row.key} is a {row.type} in state {row.state}: it does not wait for a verdict")
    match ruling.verdict:
        case Verdict.EXECUTED:
            raise VerdictRefusedError(
                f"{row.key} is a {row.type}: its effect would have ended it, so it had none; say retry or not-executed"
            )
        case Verdict.NOT_EXECUTED:
            return _not_executed(context, row, ruling)
        case Verdict.RETRY:
            now_ms = context.clock.now_ms()
            says = f"to run again, says {ruling.by}: {ruling.reason}"
            return _moved(context, row, ruling, IntentState.RECEIVED, says, run_at_ms=now_ms, not_before_ms=now_ms)
        case _:
            assert_never(ruling.verdict)


def _moved(
    context: ExecutionContext, row: IntentRow, ruling: Ruling, after: IntentState, says: str, **changes: int
) -> IntentRow:
    now_ms = context.clock.now_ms()
    with context.journal.write() as connection:
        fresh = intents.load(connection, row.key, lock=True)
        moved = (fresh.state, fresh.fence) == (row.state, row.fence) and intents.move(
            connection, fresh, after, now_ms=now_ms, fence=meta.raise_fence(connection, fresh.fence),
            reason=says[:500], **changes,
        )  # fmt: skip
        if not moved:
            raise VerdictRefusedError(f"{row.key} has become {fresh.state} meanwhile: look again")
        _note(context, connection, row, ruling)
        return intents.load(connection, row.key)


def _note(context: ExecutionContext, connection: Connection, row: IntentRow, ruling: Ruling) -> None:
    detail = {
        "verdict": ruling.verdict.value,
        "reason": ruling.reason,
        "order_id": ruling.order_id,
        "from": row.state.value,
    }
    audit.append(
        connection,
        now_ms=context.clock.now_ms(),
        actor=ruling.by,
        action="resolve",
        subject=row.key,
        detail={**detail, "config_hash": context.config_hash},
    )
