"""Mirrors the kill switch's Redis key into the journal: what was stopped stays stopped when Redis is flushed.

`SET … true` stops everything at once, because every admission reads the key; the journal keeps it as "by Redis key".
An explicit `SET … false` releases that latch, and no other. A key that is deleted or flushed releases nothing.
"""

import threading
import time
from typing import Final

from redis.exceptions import RedisError

from app.execution.context import ExecutionContext
from app.job_safety import kill_switch
from app.job_safety.errors import StoreUnavailableError
from app.job_safety.kill_switch import KillState, strictest
from app.journal import audit, meta
from app.wiring import Installation
from workers.loop import Stop

BY_KEY: Final = "by Redis key"
QUIET_S: Final = 5.0


class KillMirror:
    """Looks at the key and latches what it says."""

    def __init__(self, installation: Installation, context: ExecutionContext) -> None:
        self._installation = installation
        self._context = context
        self._seen: bytes | None = None
        self._is_first = True

    def look(self) -> bool:
        """Bring the journal's latch up to the key; return whether it was changed.

        Raises:
            StoreUnavailableError: the journal does not answer.
        """
        try:
            value = self._installation.redis.get(self._installation.settings.guard.kill_switch_key)
        except RedisError:
            return False  # unreadable: `read_kill_key` stops what opens risk meanwhile
        if value == self._seen and not self._is_first:
            return False
        self._seen, self._is_first = value if isinstance(value, bytes) else None, False
        if value is None:
            return False
        return self._latch(kill_switch.parse(value))

    def _latch(self, wanted: KillState) -> bool:
        now_ms = self._context.clock.now_ms()
        with self._context.journal.write() as connection:
            stamp = meta.load(connection)
            present = KillState(stamp.kill_state)
            if wanted is KillState.RUN:
                if present is KillState.RUN or stamp.kill_reason != BY_KEY:
                    return False
                after = KillState.RUN
            elif stamp.kill_reason == BY_KEY or strictest(wanted, present) is not present:
                after = wanted
            else:
                return False
            if after is present:
                return False
            meta.set_kill_state(connection, state=after.value, reason="" if after is KillState.RUN else BY_KEY)
            audit.append(
                connection,
                now_ms=now_ms,
                actor=BY_KEY,
                action="kill_switch",
                subject="kill_switch",
                detail={"from": present.value, "to": after.value},
            )
        self._context.record.event("kill_switch_changed", level="warning", state=after.value, why=BY_KEY)
        return True


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


def start(stop: Stop, mirror: KillMirror, context: ExecutionContext, *, poll_s: float) -> threading.Thread:
    """Mirror in a thread of its own: the reconciler may wait for the exchange."""
    thread = threading.Thread(
        target=mirror_until, args=(stop, mirror, context), kwargs={"poll_s": poll_s}, name="kill-mirror", daemon=True
    )
    thread.start()
    return thread
