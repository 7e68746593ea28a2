"""Is this Redis safe to trade on? What `app.job_safety.redis_safety` finds, as `doctor` says it."""

from collections.abc import Iterator
from typing import Final

from redis import Redis

from app.cli.findings import Finding, Level
from app.clock import Clock
from app.job_safety.redis_facts import read_facts
from app.job_safety.redis_safety import SafetyLevel, judge
from app.settings import Settings
from app.wiring import redis_limits, redis_names

_LEVELS: Final = {SafetyLevel.OK: Level.OK, SafetyLevel.WARN: Level.WARN, SafetyLevel.FAIL: Level.FAIL}


def look(client: Redis, settings: Settings, clock: Clock) -> Iterator[Finding]:
    """Yield what is to be said of a server.

    Raises:
        RedisError: it does not answer.
    """
    facts = read_facts(client, redis_names(settings), clock, draw=settings.redis_safety.sample_keys)
    for one in judge(facts, redis_limits(settings)).findings:
        yield Finding(check=f"redis {one.check}", level=_LEVELS[one.level], detail=one.detail, remedy=one.remedy)
