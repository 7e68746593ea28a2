"""Nothing silent: every block, snooze, retry, doubt, rescue and alarm becomes a log line and a count.

`event` is the one way to leave a trace. What it counts stands in `events`; it costs no round trip. The journal's row is
the third trace and does not depend on Redis.
"""

import os
from typing import TYPE_CHECKING, Any, Final

from redis import Redis

from app.clock import Clock
from app.observability import catalog
from app.observability.adding import adding
from app.observability.buffer import EVENTS, SERIES, Amount, CountBuffer, CountNames, series
from app.observability.events import ALARM, EFFECTS
from app.observability.labels import LabelValues

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

SILENCE_S: Final = 5.0
"""How often it is told that Redis takes no counts."""


class Recorder:
    """Writes the events of one process. Threads may share it."""

    def __init__(
        self,
        log: "FilteringBoundLogger",
        redis: Redis | None,
        clock: Clock,
        *,
        mode: str,
        account: str,
        is_counting: bool = True,
    ) -> None:
        self._log = log
        self._clock = clock
        self._values = values = LabelValues()
        self._effects = {
            name: [(effect.when, adding(effect, values, now_ms=clock.now_ms)) for effect in effects]
            for name, effects in EFFECTS.items()
        }
        self._quiet_until_s = 0.0
        self._counts: CountBuffer | None = None
        if redis is not None and is_counting:
            names = CountNames(mode=mode, account=account)
            self._counts = CountBuffer(redis, names, now_ms=clock.now_ms, told=self._not_kept)

    def event(self, name: str, *, count: bool = True, level: str = "info", **fields: Any) -> None:
        """Log `name` with `fields` and count what it means; with `count`, also count it by its name.

        Level `debug` writes no log line: for what happens with every order.
        """
        getattr(self._log, level)(name, **fields)
        if self._counts is None:
            return
        amounts: list[Amount] = [(EVENTS, name, 1)] if count else []
        for applies, amounts_of in self._effects.get(name, ()):
            if applies is None or applies(fields):
                amounts += amounts_of(fields)
        if is_alarm := name.startswith(ALARM):
            alarm = self._values.admit(catalog.ALARMS.name, "alarm", name.removeprefix(ALARM))
            amounts.append((SERIES, series(catalog.ALARMS.name, alarm), 1))
        if amounts:
            self._counts.put(amounts)
        if is_alarm:
            self._counts.hurry()

    def alarm(self, name: str, **fields: Any) -> None:
        """Log and count what a person must see."""
        self.event(f"{ALARM}{name}", level="critical", **fields)

    def close(self) -> None:
        """Bring what was counted to Redis. Called by every process that ends in order."""
        if self._counts is not None:
            self._counts.close()

    def _not_kept(self, error: str) -> None:
        now = self._clock.monotonic()
        if now >= self._quiet_until_s:
            self._quiet_until_s = now + SILENCE_S
            self._log.warning("counts_not_kept", error=error, pid=os.getpid())
