"""Is this Redis safe to trade on? Everything from INFO, which managed servers allow where they forbid CONFIG."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, cast

from redis import Redis
from redis.exceptions import ResponseError

from app.cli.findings import Finding, fail, ok, warn
from app.embedded.redis_binary import MIN_VERSION

MEMORY_WARN_PERCENT: Final = 75
MEMORY_FAIL_PERCENT: Final = 90


def look(client: Redis) -> Iterator[Finding]:
    """Yield what is to be said of a server.

    Raises:
        RedisError: it does not answer.
    """
    info = cast("Mapping[str, Any]", client.info())
    yield _version(info)
    yield _role(info)
    yield _eviction(info)
    yield _memory(info)
    yield _persistence(client, info)


def _version(info: Mapping[str, Any]) -> Finding:
    # Valkey goes on saying redis_version 7.2.4 for old clients.
    name, text = ("Valkey", info["valkey_version"]) if "valkey_version" in info else ("Redis", info["redis_version"])
    found = tuple(int(part) for part in re.findall(r"\d+", str(text))[:2])
    if found < MIN_VERSION:
        return fail("redis version", f"{name} {text}", "use Redis or Valkey 6.2 or newer: RQ needs LMOVE")
    return ok("redis version", f"{name} {text}")


def _role(info: Mapping[str, Any]) -> Finding:
    if info.get("role") != "master":
        return fail("redis role", f"{info.get('role')}", "name the primary in REDIS_URL: a replica takes no writes")
    return ok("redis role", "primary")


def _eviction(info: Mapping[str, Any]) -> Finding:
    policy = str(info.get("maxmemory_policy", "unknown"))
    if policy != "noeviction":
        remedy = "set maxmemory-policy noeviction: any other lets Redis drop queues and guards without a word"
        return fail("redis eviction", policy, remedy)
    return ok("redis eviction", policy)


def _memory(info: Mapping[str, Any]) -> Finding:
    used, limit = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    if limit == 0:
        return ok("redis memory", f"{_mib(used)} used, no limit")
    percent = used * 100 // limit
    words = f"{percent} % of {_mib(limit)} used"
    remedy = "raise maxmemory: at the limit Redis refuses every write, and nothing can be enqueued or guarded"
    if percent >= MEMORY_FAIL_PERCENT:
        return fail("redis memory", words, remedy)
    return warn("redis memory", words, remedy) if percent >= MEMORY_WARN_PERCENT else ok("redis memory", words)


def _persistence(client: Redis, info: Mapping[str, Any]) -> Finding:
    if int(info.get("aof_enabled", 0)) != 1:
        remedy = "set appendonly yes: a restart forgets queues, guards and the kill switch's key (the journal mends it)"
        return warn("redis persistence", "no append-only file", remedy)
    if info.get("aof_last_write_status", "ok") != "ok":
        return fail("redis persistence", "the append-only file cannot be written", "free disk space; see Redis' log")
    try:
        fsync = str(cast("Mapping[str, Any]", client.config_get("appendfsync")).get("appendfsync", "unknown"))
    except ResponseError:
        return warn("redis persistence", "append-only file, fsync unknown", "allow CONFIG GET, or set it to everysec")
    if fsync == "no":
        remedy = "set appendfsync everysec: the operating system may keep half a minute of writes to itself"
        return warn("redis persistence", "append-only file, fsync no", remedy)
    return ok("redis persistence", f"append-only file, fsync {fsync}")


def _mib(size: int) -> str:
    return f"{size / 1_048_576:.1f} MiB"
