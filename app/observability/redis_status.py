"""What the keeper last found about Redis, left in Redis for whoever shows it: exporter, `/status`, a person.

It expires, so that a keeper that is gone leaves no reassuring word behind.
"""

import json
from dataclasses import dataclass

from redis import Redis

from app.job_safety.redis_safety import RedisFinding, SafetyLevel, SafetyReport, problems

MAX_TEXT = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisStatus:
    """The last look. Only what is not well is kept, the worst first."""

    at_ms: int
    level: SafetyLevel
    findings: tuple[RedisFinding, ...]


def status_key(prefix: str, *, mode: str, account: str) -> str:
    """Return where it is kept."""
    return f"{prefix}:{mode}:{account}"


def write_status(redis: Redis, key: str, report: SafetyReport, *, now_ms: int, ttl_s: int) -> None:
    """Keep what was found for `ttl_s`.

    Raises:
        RedisError: it was not kept.
    """
    found = [
        {"check": one.check, "level": one.level.value, "detail": one.detail[:MAX_TEXT], "remedy": one.remedy[:MAX_TEXT]}
        for one in problems(report)
    ]
    redis.set(key, json.dumps({"at_ms": now_ms, "level": report.level.value, "findings": found}), ex=ttl_s)


def read_status(redis: Redis, key: str) -> RedisStatus | None:
    """Return the last look; None if nobody has looked lately, or what is there is not ours to read.

    Raises:
        RedisError: Redis does not answer.
    """
    raw = redis.get(key)
    if not isinstance(raw, bytes | str):
        return None
    try:
        told = json.loads(raw)
        return RedisStatus(
            at_ms=int(told["at_ms"]),
            level=SafetyLevel(told["level"]),
            findings=tuple(
                RedisFinding(
                    check=str(one["check"]),
                    level=SafetyLevel(one["level"]),
                    detail=str(one["detail"]),
                    remedy=str(one["remedy"]),
                )
                for one in told["findings"]
            ),
        )
    except (ValueError, KeyError, TypeError):
        return None
