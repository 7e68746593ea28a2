"""Sends the orders of `flatten` the way of all intents, and waits until they are over."""

from collections.abc import Sequence
from typing import Final

from app.execution.context import ExecutionContext
from app.execution.flatten import STRATEGY, Exit
from app.execution.order import run_order
from app.job_safety.errors import OutcomeUnknownError, RetryableError
from app.job_safety.state import SENDABLE, TERMINAL_STATES, IntentState
from app.journal import audit, intents
from app.producer import Producer
from app.wiring import Installation

LOOK_S: Final = 0.2


def submit(
    installation: Installation, context: ExecutionContext, exits: Sequence[Exit], *, by: str, reason: str
) -> None:
    """Journal and enqueue the orders, and write down who wanted them.

    Raises:
        StoreUnavailableError: the journal does not answer. Asking again is safe.
    """
    now_ms = context.clock.now_ms()
    with context.journal.write() as connection:
        for one in exits:
            detail = {
                "why": reason,
                "position": one.quantity,
                "booked": one.booked,
                "orders": [order.key for order in one.orders],
                "config_hash": context.config_hash,
            }
            audit.append(
                connection,
                now_ms=now_ms,
                actor=by,
                action=STRATEGY,
                subject=f"position:usdm:{one.symbol}",
                detail=detail,
            )
    Producer.of(installation).submit_many([order for one in exits for order in one.orders])


def wait_until_over(context: ExecutionContext, exits: Sequence[Exit], *, timeout_s: float) -> dict[str, IntentState]:
    """Wait until the orders are finished, and run here what no worker takes; return how they stand.

    Raises:
        StoreUnavailableError: the journal does not answer.
    """
    keys = [order.key for one in exits for order in one.orders]
    deadline = context.clock.monotonic() + timeout_s
    while True:
        with context.journal.read() as connection:
            states = {key: intents.load(connection, key).state for key in keys}
        if all(state in TERMINAL_STATES for state in states.values()) or context.clock.monotonic() >= deadline:
            return states
        for key in (key for key, state in states.items() if state in SENDABLE):
            try:
                run_order(context, key)
            except (RetryableError, OutcomeUnknownError) as error:
                context.record.event("flatten_waits", level="warning", count=False, key=key, error=str(error))
        context.clock.sleep(LOOK_S)
