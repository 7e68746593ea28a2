"""Asks Redis whether it is safe to trade on: once before work starts, and again and again while it goes on.

What is not well is told when it appears and every ten minutes while it lasts, and kept where the exporter finds it.
"""

import threading
import traceback
from typing import Final, Protocol

from redis import Redis
from redis.exceptions import RedisError

from app.clock import Clock
from app.job_safety.redis_facts import read_facts
from app.job_safety.redis_safety import (
    RedisFinding,
    SafetyLevel,
    SafetyReport,
    judge,
    problems,
    refuse_if_unsafe,
)
from app.observability.redis_status import status_key, write_status
from app.settings import Settings, TradingMode
from app.wiring import redis_limits, redis_names
from workers.loop import Stop

REPEAT_S: Final = 600.0
EVICTED_FOR_S: Final = 600.0
"""For how long an eviction counts as just now."""

KEPT_ROUNDS: Final = 4
"""The status outlives this many looks that did not happen."""

_LOG_LEVEL: Final = {SafetyLevel.WARN: "warning", SafetyLevel.FAIL: "error"}


class Tells(Protocol):
    """Where events go: a `Recorder`, or a logger that is made to look like one."""

    def event(self, name: str, *, count: bool = True, level: str = "info", **fields: object) -> None:
        """Tell of `name`."""
        ...


class RedisWatch:
    """Looks at one server for one installation."""

    def __init__(self, redis: Redis, settings: Settings, clock: Clock, tells: Tells) -> None:
        self._redis = redis
        self._settings = settings
        self._clock = clock
        self._tells = tells
        self._told_s: dict[tuple[str, SafetyLevel], float] = {}
        self._evicted_before: int | None = None
        self._evictions: list[tuple[float, int]] = []

    def look(self, *, draw: int | None = None) -> SafetyReport:
        """Look once, tell what is new, and keep the result; a server that does not answer is a finding too."""
        try:
            report = self._ask(self._settings.redis_safety.sample_keys if draw is None else draw)
            self._keep(report)
        except RedisError as error:
            report = _unreadable(error)
        self._tell(report)
        return report

    def _ask(self, draw: int) -> SafetyReport:
        facts = read_facts(self._redis, redis_names(self._settings), self._clock, draw=draw)
        newly = self._newly_evicted(facts.number("evicted_keys"))
        return judge(facts, redis_limits(self._settings), newly_evicted=newly)

    def _newly_evicted(self, total: int) -> int:
        """Return how many keys were evicted lately; a server that was restarted counts from zero."""
        now_s = self._clock.monotonic()
        before = total if self._evicted_before is None else min(self._evicted_before, total)
        self._evicted_before = total
        if total > before:
            self._evictions.append((now_s, total - before))
        self._evictions = [one for one in self._evictions if now_s - one[0] < EVICTED_FOR_S]
        return sum(count for _, count in self._evictions)

    def _keep(self, report: SafetyReport) -> None:
        settings = self._settings
        key = status_key(settings.redis_safety.status_key, mode=settings.mode.value, account=settings.account)
        ttl_s = max(KEPT_ROUNDS * settings.redis_safety.interval_s, 10)
        write_status(self._redis, key, report, now_ms=self._clock.now_ms(), ttl_s=ttl_s)

    def _tell(self, report: SafetyReport) -> None:
        now_s = self._clock.monotonic()
        current = list(problems(report))
        for one in current:
            told_s = self._told_s.get((one.check, one.level))
            if told_s is None or now_s - told_s >= REPEAT_S:
                self._told_s[one.check, one.level] = now_s
                self._tells.event(
                    "redis_unsafe" if one.level is SafetyLevel.FAIL else "redis_doubtful",
                    level=_LOG_LEVEL[one.level],
                    check=one.check,
                    reason=one.detail,
                    remedy=one.remedy,
                )
        gone = self._told_s.keys() - {(one.check, one.level) for one in current}
        for item in gone:
            del self._told_s[item]
        if gone and not report.at_level(SafetyLevel.FAIL) and any(level is SafetyLevel.FAIL for _, level in gone):
            self._tells.event("redis_safe_again")


def check_before_work(redis: Redis, settings: Settings, clock: Clock, tells: Tells) -> SafetyReport:
    """Look before anything starts: mode live does not start on a server that fails, the others are warned.

    Raises:
        UnsafeRedisError: in mode live, with every reason and its remedy.
    """
    report = RedisWatch(redis, settings, clock, tells).look(draw=0)
    refuse_if_unsafe(report, is_live=settings.mode is TradingMode.LIVE)
    return report


def start(stop: Stop, watch: RedisWatch, *, interval_s: float) -> threading.Thread:
    """Look in a thread of its own: a server that hangs must hold up nothing else."""

    def run() -> None:
        while True:
            try:
                watch.look()
            except Exception:  # noqa: BLE001 - a watch that dies alone leaves a process that looks watched
                traceback.print_exc()
            if stop.wait(interval_s):
                return

    thread = threading.Thread(target=run, name="redis-watch", daemon=True)
    thread.start()
    return thread


def _unreadable(error: RedisError) -> SafetyReport:
    finding = RedisFinding(
        check="answer",
        level=SafetyLevel.FAIL,
        detail=str(error)[:300],
        remedy="start Redis, or see docs/how-to/redis-lost.md",
    )
    return SafetyReport(findings=(finding,))
