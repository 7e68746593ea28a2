"""Lets circuits pass what is over when it is due, takes their changes into the journal, and wakes who waited."""

import threading
import time
from typing import Final

from app.composition import guard_names
from app.execution.circuit_wake import CircuitWake
from app.execution.circuits import journal_changes
from app.execution.context import ExecutionContext
from app.job_safety.circuit_changes import CircuitChanges
from app.job_safety.errors import StoreUnavailableError
from app.wiring import Installation
from workers.loop import Stop

LOOK_S: Final = 1.0
QUIET_S: Final = 5.0


class CircuitWatch:
    """One of them is enough; several do no harm."""

    def __init__(self, installation: Installation, context: ExecutionContext) -> None:
        self._context = context
        self._changes = CircuitChanges(installation.redis, guard_names(installation.settings))
        self._wake = CircuitWake(context.journal, context.breakers, context.clock, context.record)

    def look(self) -> int:
        """Do what is due; return how many changes were new to the journal.

        Raises:
            StoreUnavailableError: a store does not answer.
        """
        context = self._context
        context.breakers.tick()
        new = journal_changes(context.journal, self._changes, context.clock, context.record)
        self._wake.step()
        return new


def watch_until(stop: Stop, watch: CircuitWatch, context: ExecutionContext) -> None:
    """Watch until told to stop; a store that does not answer is waited for."""
    told_s = 0.0
    while not stop.wait(LOOK_S):
        try:
            watch.look()
        except StoreUnavailableError as error:
            if time.monotonic() - told_s > QUIET_S:
                told_s = time.monotonic()
                context.record.event("circuits_not_watched", level="warning", count=False, error=str(error))
        except Exception as error:  # noqa: BLE001 - a thread that dies alone leaves a process that looks alive
            context.record.alarm("circuit_watch_failed", error=f"{type(error).__name__}: {error}")
            stop.wait(QUIET_S)


def start(stop: Stop, watch: CircuitWatch, context: ExecutionContext) -> threading.Thread:
    """Watch in a thread of its own: the reconciler may wait for the exchange."""
    thread = threading.Thread(target=watch_until, args=(stop, watch, context), name="circuit-watch", daemon=True)
    thread.start()
    return thread
