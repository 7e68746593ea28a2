"""Is this Redis safe to trade on? Facts in, findings out; the same at start, while running, and in `doctor`.

The journal outlives the loss of all of Redis, so that nothing found here can repeat or lose an effect. It can stop
everything, though, or take the kill switch's key away without a word. A failure keeps mode live from starting.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from app.job_safety.errors import TerminalError
from app.job_safety.redis_facts import RedisFacts

MIN_VERSION: Final = (6, 2)
"""RQ needs LMOVE. https://redis.io/docs/latest/commands/lmove/"""

MEMORY_WARN_PERCENT: Final = 75
MEMORY_FAIL_PERCENT: Final = 90
SHOWN: Final = 3
MIB: Final = 1_048_576


class SafetyLevel(StrEnum):
    """How bad it is. The values are stored and shown: never rename."""

    OK = "ok"
    WARN = "warn"
    """Safe, and it could be better."""

    FAIL = "fail"
    """Not safe to trade on."""


_ORDER: Final = (SafetyLevel.OK, SafetyLevel.WARN, SafetyLevel.FAIL)


class UnsafeRedisError(TerminalError):
    """Mode live does not start on this Redis. The text says every reason and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisFinding:
    """One thing that was looked at. `remedy` is empty where all is well."""

    check: str
    level: SafetyLevel
    detail: str
    remedy: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisLimits:
    """What counts as too much or too little."""

    guard_budget_bytes: int
    min_headroom_bytes: int
    max_clock_skew_ms: int
    max_replica_lag_s: int
    expects_limit: bool
    """Whether a server without `maxmemory` is worth a word: the private one shares its owner's machine anyway."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SafetyReport:
    """What was found."""

    findings: Sequence[RedisFinding]

    @property
    def level(self) -> SafetyLevel:
        """Return the worst level found."""
        return max((finding.level for finding in self.findings), key=_ORDER.index, default=SafetyLevel.OK)

    def at_level(self, level: SafetyLevel) -> list[RedisFinding]:
        """Return the findings of one level."""
        return [finding for finding in self.findings if finding.level is level]


def judge(facts: RedisFacts, limits: RedisLimits, *, newly_evicted: int = 0) -> SafetyReport:
    """Return what is to be said of a server.

    Args:
        facts: What it told.
        limits: What is too much.
        newly_evicted: How many keys it has evicted while we were watching.
    """
    return SafetyReport(
        findings=(
            _version(facts),
            _role(facts),
            _eviction(facts),
            _evicted(facts, newly_evicted),
            _memory(facts, limits),
            _guards(facts, limits),
            _persistence(facts),
            _disk(facts),
            _scripts(facts),
            _clock(facts, limits),
            _replicas(facts, limits),
            _rights(facts),
            _database(facts),
        )
    )


def refuse_if_unsafe(report: SafetyReport, *, is_live: bool) -> None:
    """Keep mode live from starting on a Redis that failed any check; other modes are only warned.

    Raises:
        UnsafeRedisError: it failed, and real money is at stake.
    """
    failed = report.at_level(SafetyLevel.FAIL)
    if is_live and failed:
        reasons = "; ".join(f"{one.check}: {one.detail}: {one.remedy}" for one in failed)
        raise UnsafeRedisError(f"mode live does not start on this Redis: {reasons}")


def _ok(check: str, detail: str) -> RedisFinding:
    return RedisFinding(check=check, level=SafetyLevel.OK, detail=detail)


def _warn(check: str, detail: str, remedy: str) -> RedisFinding:
    return RedisFinding(check=check, level=SafetyLevel.WARN, detail=detail, remedy=remedy)


def _fail(check: str, detail: str, remedy: str) -> RedisFinding:
    return RedisFinding(check=check, level=SafetyLevel.FAIL, detail=detail, remedy=remedy)


def _version(facts: RedisFacts) -> RedisFinding:
    # Valkey goes on saying redis_version 7.2.4 for old clients.
    name, text = ("Valkey", facts.text("valkey_version")) if "valkey_version" in facts.info else (
        "Redis", facts.text("redis_version")
    )  # fmt: skip
    found = tuple(int(part) for part in re.findall(r"\d+", text)[:2])
    if found < MIN_VERSION:
        return _fail("version", f"{name} {text}", "use Redis or Valkey 6.2 or newer: RQ needs LMOVE")
    if facts.number("cluster_enabled"):
        return _fail("version", f"{name} {text}, a cluster", "name a server that is none: RQ cannot use a cluster")
    return _ok("version", f"{name} {text}")


def _role(facts: RedisFacts) -> RedisFinding:
    if (role := facts.text("role")) != "master":
        return _fail("role", role or "unknown", "name the primary in REDIS_URL: a replica takes no writes")
    if facts.number("loading"):
        return _fail("role", "primary, still loading its data", "wait until it has loaded")
    return _ok("role", "primary")


def _eviction(facts: RedisFacts) -> RedisFinding:
    policy = facts.text("maxmemory_policy") or "unknown"
    if policy != "noeviction":
        remedy = "set maxmemory-policy noeviction: any other lets Redis drop queues and guards without a word"
        return _fail("eviction", policy, remedy)
    return _ok("eviction", policy)


def _evicted(facts: RedisFacts, newly: int) -> RedisFinding:
    if newly:
        remedy = (
            "set maxmemory-policy noeviction and raise maxmemory; then `fillonce doctor`, and look at the kill switch"
        )
        return _fail("evicted", f"{newly} keys were evicted just now", remedy)
    if before := facts.number("evicted_keys"):
        remedy = "keys of ours may be among them: look at the kill switch; the sweeper mends the queues"
        return _warn("evicted", f"{before} keys since the server started", remedy)
    return _ok("evicted", "no key was")


def _memory(facts: RedisFacts, limits: RedisLimits) -> RedisFinding:
    used, limit = facts.number("used_memory"), facts.number("maxmemory")
    if limit == 0:
        if limits.expects_limit:
            remedy = "set maxmemory (256mb is plenty): an error is better than the kernel's out-of-memory killer"
            return _warn("memory", f"{_mib(used)} used, no limit", remedy)
        return _ok("memory", f"{_mib(used)} used, no limit")
    percent, free = used * 100 // limit, max(limit - used, 0)
    words = f"{percent} % of {_mib(limit)} used, {_mib(free)} free"
    remedy = "raise maxmemory: at the limit Redis refuses every write, and nothing can be enqueued or guarded"
    if percent >= MEMORY_FAIL_PERCENT:
        return _fail("memory", words, remedy)
    if percent >= MEMORY_WARN_PERCENT or free < limits.min_headroom_bytes:
        return _warn("memory", words, remedy)
    return _ok("memory", words)


def _guards(facts: RedisFacts, limits: RedisLimits) -> RedisFinding:
    if facts.sample is None:
        return _ok("guards", "not measured")
    size = facts.sample.all_guard_bytes
    if size is None:
        return _ok("guards", "not measured: MEMORY USAGE is forbidden, or there is no key")
    drawn = f"{facts.sample.drawn} draws from {facts.sample.keys} keys"
    words = f"about {_mib(size)} of {_mib(limits.guard_budget_bytes)}, {drawn}"
    if size > limits.guard_budget_bytes:
        remedy = "shorten guard.result_ttl_s, or raise redis_safety.memory_budget_mb and maxmemory together"
        return _warn("guards", words, remedy)
    return _ok("guards", words)


def _persistence(facts: RedisFacts) -> RedisFinding:
    if facts.number("aof_enabled") != 1:
        has_dump = bool(facts.settings and facts.settings["save"])
        remedy = "set appendonly yes: a restart forgets queues, guards and the kill switch's key (the journal mends it)"
        return _fail("persistence", "snapshots only" if has_dump else "no append-only file", remedy)
    if facts.settings is None:
        return _warn(
            "persistence", "append-only file, fsync unknown: CONFIG is forbidden",
            "allow CONFIG GET, or make sure of appendfsync everysec where the server is managed",
        )  # fmt: skip
    fsync = facts.settings["appendfsync"]
    if fsync == "no":
        remedy = "set appendfsync everysec: the operating system may keep half a minute of writes to itself"
        return _fail("persistence", "append-only file, fsync no", remedy)
    return _ok("persistence", f"append-only file, fsync {fsync}")


def _disk(facts: RedisFacts) -> RedisFinding:
    """Whether what should be on disk gets there."""
    if facts.number("aof_enabled") and (facts.text("aof_last_write_status") or "ok") != "ok":
        remedy = "free disk space and see Redis' log: it refuses writes until the file can be written"
        return _fail("disk", "the append-only file cannot be written", remedy)
    if (facts.text("rdb_last_bgsave_status") or "ok") != "ok":
        words = "the last snapshot failed"
        remedy = "free disk space and see Redis' log: with save lines set, it refuses writes after a failed snapshot"
        return _fail("disk", words, remedy)
    if facts.number("aof_enabled") and (facts.text("aof_last_bgrewrite_status") or "ok") != "ok":
        remedy = "free disk space and see Redis' log: the file grows until it can be rewritten"
        return _warn("disk", "the append-only file could not be rewritten", remedy)
    return _ok("disk", "writes and snapshots succeed")


def _scripts(facts: RedisFacts) -> RedisFinding:
    if facts.probe.refusal:
        remedy = "see the text and Redis' log: without scripts and writes nothing can be guarded, and no order leaves"
        return _fail("scripts", facts.probe.refusal, remedy)
    return _ok("scripts", f"a script wrote and answered in {facts.probe.took_ms} ms")


def _clock(facts: RedisFacts, limits: RedisLimits) -> RedisFinding:
    if facts.probe.refusal:
        return _ok("clock", "not read")
    ahead_ms = facts.probe.ours_ms - facts.probe.server_ms
    side = "behind" if ahead_ms < 0 else "ahead"
    words = f"ours is {abs(ahead_ms)} ms {side}"
    if abs(ahead_ms) - facts.probe.took_ms // 2 > limits.max_clock_skew_ms:
        remedy = "synchronize both machines (chrony): leases run by Redis' clock, schedules and logs by ours"
        return _fail("clock", words, remedy)
    return _ok("clock", words)


def _replicas(facts: RedisFacts, limits: RedisLimits) -> RedisFinding:
    count = facts.number("connected_slaves")
    wanted = int(facts.settings["min-replicas-to-write"]) if facts.settings else 0
    good = facts.info.get("min_slaves_good_slaves")
    if wanted and isinstance(good, int) and good < wanted:
        remedy = "bring a replica back, or lower min-replicas-to-write: Redis refuses every write"
        return _fail("replicas", f"{good} of {wanted} needed replicas follow", remedy)
    late = []
    for number in range(count):
        one = facts.info.get(f"slave{number}")
        fields = one if isinstance(one, dict) else {}
        if fields.get("state") != "online" or int(fields.get("lag", 0)) > limits.max_replica_lag_s:
            late.append(f"{fields.get('ip')}:{fields.get('port')} {fields.get('state')}, lag {fields.get('lag')} s")
    if late:
        remedy = "see the replica's log: promoted like this, it would forget guards and the kill switch's key"
        return _warn("replicas", "; ".join(late[:SHOWN]), remedy)
    if count and facts.settings is not None and not wanted:
        remedy = "set min-replicas-to-write 1: a primary cut off from its replicas goes on taking writes that are lost"
        return _warn("replicas", f"{count}, and min-replicas-to-write 0", remedy)
    return _ok("replicas", f"{count} follow" if count else "none")


def _rights(facts: RedisFacts) -> RedisFinding:
    who = facts.rights.user
    if who is None:
        return _ok("rights", "the server does not say who we are")
    if facts.rights.missing is None:
        return _ok("rights", f"user {who}, rights cannot be asked (ACL DRYRUN)")
    if facts.rights.missing:
        return _fail(
            "rights", f"user {who} may not {', '.join(facts.rights.missing)}",
            "give it the rights of docs/how-to/use-your-own-redis-and-postgres.md",
        )  # fmt: skip
    return _ok("rights", f"user {who} may do all that is needed")


def _database(facts: RedisFacts) -> RedisFinding:
    remedy = "name a database of its own in REDIS_URL (redis://host:6379/1): its FLUSHDB would be ours too"
    if facts.foreign_queues:
        words = f"RQ queues that are not ours: {', '.join(facts.foreign_queues[:SHOWN])}"
        return _warn("database", words, remedy)
    if facts.sample is not None and facts.sample.foreign:
        words = f"keys that are not ours, such as {', '.join(facts.sample.foreign[:SHOWN])}"
        return _warn("database", words, remedy)
    return _ok("database", "ours alone, as far as was looked")


def _mib(size: int) -> str:
    return f"{size / MIB:.1f} MiB"


def problems(report: SafetyReport) -> Iterator[RedisFinding]:
    """Yield what is not well, the worst first."""
    yield from report.at_level(SafetyLevel.FAIL)
    yield from report.at_level(SafetyLevel.WARN)
