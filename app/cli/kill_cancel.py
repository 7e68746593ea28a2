"""Cancel every open order of ours while the switch lets cancels through."""

from collections.abc import Sequence
from typing import Final

from app.cli.output import say
from app.cli.progress import count_bar
from app.clock import SystemClock
from app.composition import compose
from app.control.kill import Control
from app.execution.cancel import run_cancel
from app.execution.context import ExecutionContext
from app.intents import CancelIntent
from app.job_safety.errors import StoreUnavailableError
from app.job_safety.keys import digest
from app.job_safety.state import DOUBTFUL, LIVE, TERMINAL_STATES
from app.journal import intents, meta
from app.producer import Producer
from app.wiring import open_installation

LOOK_S: Final = 0.2
LIMIT: Final = 10_000


def cancel_all_open(one: Control, *, timeout_s: float) -> list[str]:
    """Cancel the orders that rest at the exchange or are in doubt; return the keys of those that are not over then.

    The cancels are intents like all others; those that no worker takes are run here. An order that the journal does not
    know is not ours to cancel.

    Raises:
        StoreUnavailableError: the journal does not answer.
    """
    installation = open_installation(one.settings, SystemClock())
    try:
        context = compose(installation, "kill-switch-cancel")
        with context.journal.read() as connection:
            epoch = meta.load(connection).kill_epoch
            rows = intents.in_states(connection, sorted(LIVE | DOUBTFUL), limit=LIMIT, intent_type="order")
        orders = [row.key for row in rows]
        say(f"{len(orders)} orders are open or in doubt")
        cancels = [CancelIntent(key=f"kill:{epoch}:{digest('cancel', key)}", order_key=key) for key in orders]
        Producer.of(installation).submit_many(cancels)
        return _run(context, orders, [cancel.key for cancel in cancels], timeout_s=timeout_s)
    finally:
        installation.redis.close()
        installation.journal.close()


def _run(context: ExecutionContext, orders: Sequence[str], cancels: Sequence[str], *, timeout_s: float) -> list[str]:
    deadline = context.clock.monotonic() + timeout_s
    with count_bar("orders canceled") as show:
        while True:
            open_, todo = _left(context, orders), _left(context, cancels)
            show(len(orders) - len(open_), len(orders))
            if not open_ or context.clock.monotonic() >= deadline:
                return open_
            for key in todo:
                try:
                    run_cancel(context, key)
                except StoreUnavailableError as error:
                    context.record.event("cancel_again", level="warning", count=False, key=key, error=str(error))
            context.clock.sleep(LOOK_S)


def _left(context: ExecutionContext, keys: Sequence[str]) -> list[str]:
    with context.journal.read() as connection:
        return [key for key in keys if intents.load(connection, key).state not in TERMINAL_STATES]
