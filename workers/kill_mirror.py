"""Keeps the journal up to the kill switch's other sources: what was stopped stays stopped when they fall silent.

`SET … true` stops everything at once, because every admission reads the key; the journal keeps it as held by the Redis
key. An explicit `SET … false` releases that latch, and no other. A key that is deleted or flushed, and a file that is
removed, release nothing. A drill whose process has died is ended here too.
"""

import threading
import time
from typing import Final

from app.execution import drill
from app.execution.context import ExecutionContext
from app.execution.kill import KillSwitch
from app.job_safety import kill_key
from app.job_safety.errors import StoreUnavailableError
from app.job_safety.kill_switch import KillSource, KillState
from app.journal import kill_latches
from app.journal.kill_latches import Change
from workers.loop import Stop

QUIET_S: Final = 5.0
ORPHAN_S: Final = 5.0
"""The name of a state that stands in the key for so long, and is not ours, is latched like a person's word."""

LATCHES_S: Final = 2.0
"""How often the journal's latches are read although no source has said anything new."""


class KillMirror:
    """Looks at the sources and latches what they say."""

    def __init__(self, switch: KillSwitch) -> None:
        self._switch = switch
        self._seen: object = None
        self._name_since_s: float | None = None
        self._latches_at_s = 0.0

    def look(self) -> bool:
        """Bring the journal's latches up to the sources; return whether that changed the switch.

        Raises:
            StoreUnavailableError: the journal does not answer.
        """
        now_s = self._switch.clock.monotonic()
        value = self._switch.read_key()
        seen = (value, tuple(self._switch.read_here().items()))
        changed = False
        is_due = now_s >= self._latches_at_s
        if seen != self._seen or is_due:
            # Also when nothing is new here: a worker may have latched a word that was taken back between two looks.
            changed = bool(self._switch.mirror())
            self._seen = seen  # only now: what could not be journaled is tried again
        if is_due:
            self._latches_at_s = now_s + LATCHES_S
            drill.end_if_overdue(self._switch)
            changed = self._adopt_name(value, now_s) or changed
        return changed

    def _adopt_name(self, value: str | None, now_s: float) -> bool:
        """Latch the name of a state that stands in the key although our command line does not hold it."""
        named = kill_key.named(value)
        if named is None or named is KillState.RUN:
            self._name_since_s = None
            return False
        with self._switch.journal.read() as connection:
            latches = {latch.source: latch.state for latch in kill_latches.held(connection)}
        if named in {latches.get(KillSource.OPERATOR), latches.get(KillSource.REDIS_KEY)}:
            self._name_since_s = None
            return False
        self._name_since_s = self._name_since_s or now_s
        if now_s - self._name_since_s < ORPHAN_S:
            return False
        wish = Change(
            source=KillSource.REDIS_KEY, state=named, actor="by Redis key", reason=f"set to {value}",
            config_hash=self._switch.config_hash,
        )  # fmt: skip
        return self._switch.change(wish) is not None


def mirror_until(stop: Stop, mirror: KillMirror, context: ExecutionContext, *, poll_s: float) -> None:
    """Mirror until told to stop; a store that does not answer is waited for."""
    told_s = 0.0
    while not stop.wait(poll_s):
        try:
            mirror.look()
            context.record.event("duty_done", level="debug", count=False, duty="kill_mirror")
        except StoreUnavailableError as error:
            if time.monotonic() - told_s > QUIET_S:
                told_s = time.monotonic()
                context.record.event("kill_switch_not_mirrored", level="warning", count=False, error=str(error))


def start(stop: Stop, context: ExecutionContext, *, poll_s: float) -> threading.Thread | None:
    """Mirror in a thread of its own: the reconciler may wait for the exchange."""
    if context.kill is None:
        return None
    thread = threading.Thread(
        target=mirror_until, args=(stop, KillMirror(context.kill), context), kwargs={"poll_s": poll_s},
        name="kill-mirror", daemon=True,
    )  # fmt: skip
    thread.start()
    return thread
