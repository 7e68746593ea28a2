"""Nothing silent: every block, snooze, retry, doubt, rescue and alarm becomes a log line and a count.

`event` is the one way to leave a trace. What it counts stands in `events`; it costs no round trip. The journal's row is
the third trace and does not depend on Redis.
"""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from redis import Redis

from app.clock import Clock
from app.observability import catalog
from app.observability.buffer import EVENTS, MINUTE, SERIES, TIMES, Amount, CountBuffer, CountNames, series
from app.observability.events import ALARM, EFFECTS
from app.observability.labels import LabelValues
from app.observability.metric import Count, Effect, Fields, Mark, Metric, Observe, Source

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

SILENCE_S: Final = 5.0
"""How often it is told that Redis takes no counts."""

SUM_SCALE: Final = 1_000_000
"""Sums of histograms are kept in millionths, as whole numbers."""


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
        self._values = LabelValues()
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
        for effect in EFFECTS.get(name, ()):
            if effect.when is None or effect.when(fields):
                amounts += self._amounts(effect, fields)
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

    def _amounts(self, effect: Effect, fields: Fields) -> list[Amount]:
        metric = effect.metric
        values = self._label_values(metric, effect.labels, fields)
        match effect:
            case Count():
                field = series(metric.name, *values)
                return [(SERIES, field, 1), (MINUTE, field, 1)] if metric.is_windowed else [(SERIES, field, 1)]
            case Mark():
                return [(TIMES, series(metric.name, *values), self._clock.now_ms())]
            case Observe():
                number = fields.get(effect.value)
                if not isinstance(number, int | float):
                    return []
                value = max(number, 0) / effect.scale
                return [
                    (SERIES, series(f"{metric.name}_bucket", *values, metric.bound_of(value)), 1),
                    (SERIES, series(f"{metric.name}_sum", *values), round(value * SUM_SCALE)),
                ]

    def _label_values(self, metric: Metric, labels: Mapping[str, Source], fields: Fields) -> list[str]:
        admit, name = self._values.admit, metric.name
        return [
            admit(name, label, fields.get(source) if isinstance(source := labels[label], str) else source(fields))
            for label in metric.labels
        ]

    def _not_kept(self, error: str) -> None:
        now = self._clock.monotonic()
        if now >= self._quiet_until_s:
            self._quiet_until_s = now + SILENCE_S
            self._log.warning("counts_not_kept", error=error, pid=os.getpid())
