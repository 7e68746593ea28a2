"""Nothing silent: every block, snooze, retry, doubt, rescue and alarm becomes a log line and a counter.

Counters live in Redis, because workers come and go. Losing one is no reason to stop work, so Redis' absence is logged
and borne; the journal's row is the third trace and does not depend on it.
"""

import time
from typing import TYPE_CHECKING, Any, Final

from redis import Redis
from redis.exceptions import RedisError

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

SILENCE_S: Final = 5.0
"""For how long counters are given up after Redis failed to take one."""

COUNTERS_KEY: Final = "metrics:counters"


class Recorder:
    """Writes the events of one process."""

    def __init__(self, log: "FilteringBoundLogger", redis: Redis | None, *, mode: str, account: str) -> None:
        self._log = log
        self._redis = redis
        self._silent_until_s = 0.0
        self._key = f"{COUNTERS_KEY}:{mode}:{account}"

    def event(self, name: str, *, count: bool = True, level: str = "info", **fields: Any) -> None:
        """Log `name` with `fields`; with `count`, add one to its counter."""
        getattr(self._log, level)(name, **fields)
        if count and self._redis is not None and time.monotonic() >= self._silent_until_s:
            try:
                self._redis.hincrby(self._key, name, 1)
            except RedisError as error:
                self._silent_until_s = time.monotonic() + SILENCE_S
                self._log.warning("counter_not_kept", counter=name, error=str(error))

    def alarm(self, name: str, **fields: Any) -> None:
        """Log and count what a person must see."""
        self.event(f"alarm_{name}", level="critical", **fields)
