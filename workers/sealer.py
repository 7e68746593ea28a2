"""Seals what has settled, once a minute and in small batches: the history of attempts shows what is done to it.

Several do no harm, and one that is killed leaves nothing half done: what is not sealed is found by the next.
"""

import threading
from typing import Final

from app.execution.context import ExecutionContext
from app.job_safety.errors import StoreUnavailableError
from app.journal import attempt_seals
from workers.loop import Stop

EVERY_S: Final = 60.0
"""Seldom: each batch is a row of the trail, which people read."""

BREATH_S: Final = 0.2
"""Between two batches, so that a long backlog holds up no order on SQLite, where one writes at a time."""

RETRY_S: Final = 5.0


def seal_batch(context: ExecutionContext, *, limit: int = attempt_seals.BATCH) -> int:
    """Seal one batch; return how many attempts that were.

    Raises:
        StoreUnavailableError: the journal does not answer.
    """
    # Most of the time there is nothing: that is found out without keeping a writer waiting.
    if not attempt_seals.is_due(context.journal):
        return 0
    with context.journal.write() as connection:
        return attempt_seals.seal(connection, now_ms=context.clock.now_ms(), by=context.owner, limit=limit)


def seal_until(stop: Stop, context: ExecutionContext) -> None:
    """Seal until told to stop: what is left over from before at once, then what has come up in each minute."""
    while True:
        try:
            count = seal_batch(context)
            pause_s = BREATH_S if count == attempt_seals.BATCH else EVERY_S
            if count < attempt_seals.BATCH:
                context.record.event("duty_done", level="debug", count=False, duty="seal")
        except StoreUnavailableError as error:
            pause_s = RETRY_S
            context.record.event("attempts_not_sealed", level="warning", count=False, error=str(error))
        except Exception as error:  # noqa: BLE001 - a thread that dies alone leaves a process that looks alive
            pause_s = EVERY_S
            context.record.alarm("sealer_failed", error=f"{type(error).__name__}: {error}")
        if stop.wait(pause_s):
            return


def start(stop: Stop, context: ExecutionContext) -> threading.Thread:
    """Seal in a thread of its own: nobody waits for it."""
    thread = threading.Thread(target=seal_until, args=(stop, context), name="sealer", daemon=True)
    thread.start()
    return thread
