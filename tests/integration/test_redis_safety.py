"""Is this Redis safe to trade on? Asked of real servers that are set up badly, and of one that is set up well."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import RedisError, ResponseError

from app.cli.doctor_redis import look
from app.clock import SystemClock
from app.job_safety.redis_facts import NEEDED, Names, RedisFacts, read_facts
from app.job_safety.redis_safety import MIB, RedisLimits, SafetyLevel, SafetyReport, UnsafeRedisError, judge
from app.observability.redis_status import read_status, status_key
from app.settings import load_settings
from app.wiring import connect_redis, redis_limits, redis_names
from tests.support.clock import FakeClock
from tests.support.redis_server import RedisServer
from workers.loop import Stop
from workers.redis_watch import EVICTED_FOR_S, REPEAT_S, RedisWatch, check_before_work, start

CLOCK = SystemClock()
LIMITS = RedisLimits(
    guard_budget_bytes=100 * MIB, min_headroom_bytes=0, max_clock_skew_ms=5_000, max_replica_lag_s=10,
    expects_limit=False,
)  # fmt: skip
NAMES = Names(
    guards="idempotency:effect:paper:main:", own=("idempotency:effect", "quantum:"),
    probe="idempotency:effect:paper:main:probe", queues=frozenset({"orders", "urgent"}),
)  # fmt: skip
OK, WARN, FAIL = SafetyLevel


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "redis"


@pytest.fixture
def servers() -> Iterator[list[RedisServer]]:
    """Servers of one test, for their end."""
    started: list[RedisServer] = []
    yield started
    for one in started:
        one.kill()


def serve(servers: list[RedisServer], folder: Path, *options: str) -> RedisServer:
    server = RedisServer(folder, options=options).start()
    servers.append(server)
    return server


def facts_of(url: str, *, draw: int = 0) -> RedisFacts:
    with connect_redis(url) as client:
        return read_facts(client, NAMES, CLOCK, draw=draw)


def report_of(url: str, *, draw: int = 0, limits: RedisLimits = LIMITS) -> SafetyReport:
    return judge(facts_of(url, draw=draw), limits)


def bad(report: SafetyReport) -> dict[str, SafetyLevel]:
    return {one.check: one.level for one in report.findings if one.level is not OK}


def test_a_server_that_is_set_up_well_passes_every_check(redis_url: str) -> None:
    report = report_of(redis_url, draw=50)
    assert (bad(report), report.level) == ({}, OK)
    assert len({one.check for one in report.findings}) == len(report.findings) == 13


@pytest.mark.parametrize(
    ("told", "level"),
    [
        ({"redis_version": "6.0.16"}, FAIL),
        ({"redis_version": "6.2.0"}, OK),
        ({"redis_version": "10.0.0"}, OK),
        ({"redis_version": "7.2.4", "valkey_version": "9.1.0"}, OK),
        ({"redis_version": "7.2.4", "cluster_enabled": "1"}, FAIL),
        ({"redis_version": "unstable"}, FAIL),
    ],
)
def test_a_server_that_is_too_old_or_a_cluster_fails(redis_url: str, told: dict[str, str], level: SafetyLevel) -> None:
    facts = facts_of(redis_url)
    info = {name: value for name, value in facts.info.items() if not name.endswith("_version")}
    (found,) = [one for one in judge(replace(facts, info=info | told), LIMITS).findings if one.check == "version"]
    assert found.level is level


@pytest.mark.parametrize(
    ("options", "check", "word"),
    [
        pytest.param(("--maxmemory-policy", "allkeys-lru"), "eviction", "allkeys-lru", id="evicts any key"),
        pytest.param(("--maxmemory-policy", "volatile-ttl"), "eviction", "volatile-ttl", id="evicts what expires"),
        pytest.param(("--appendonly", "no"), "persistence", "no append-only file", id="forgets at a restart"),
        pytest.param(("--appendonly", "no", "--save", "60 1"), "persistence", "snapshots only", id="snapshots only"),
        pytest.param(("--appendfsync", "no"), "persistence", "fsync no", id="never syncs"),
        pytest.param(("--min-replicas-to-write", "1"), "replicas", "0 of 1", id="needs replicas that are not there"),
    ],
)
def test_a_server_that_is_set_up_badly_fails(
    servers: list[RedisServer], folder: Path, options: tuple[str, ...], check: str, word: str
) -> None:
    report = report_of(serve(servers, folder, *options).url)
    found = {one.check: one for one in report.findings}
    assert (found[check].level, report.level) == (FAIL, FAIL)
    assert word in found[check].detail
    assert found[check].remedy
    with pytest.raises(UnsafeRedisError, match=check):
        check_before_work_as("live", report)


def check_before_work_as(mode: str, report: SafetyReport) -> None:
    from app.job_safety.redis_safety import refuse_if_unsafe

    refuse_if_unsafe(report, is_live=mode == "live")


@pytest.mark.parametrize("mode", ["paper", "testnet", "dry_run"])
def test_only_mode_live_is_refused_for_it(servers: list[RedisServer], folder: Path, mode: str) -> None:
    report = report_of(serve(servers, folder, "--maxmemory-policy", "allkeys-lru", "--appendonly", "no").url)
    check_before_work_as(mode, report)
    with pytest.raises(UnsafeRedisError, match=r"eviction: allkeys-lru: set maxmemory-policy.*persistence: "):
        check_before_work_as("live", report)


def test_warnings_alone_do_not_keep_mode_live_from_starting(redis_url: str) -> None:
    report = report_of(redis_url, limits=replace(LIMITS, expects_limit=True))
    assert bad(report) == {"memory": WARN}
    check_before_work_as("live", report)


def test_a_replica_fails_and_its_primary_hears_of_a_missing_minimum(servers: list[RedisServer], tmp_path: Path) -> None:
    primary = serve(servers, tmp_path / "primary", "--repl-diskless-sync-delay", "0")
    replica = serve(servers, tmp_path / "replica", "--replicaof", f"127.0.0.1 {primary.port}")
    with replica.client() as client:
        until(lambda: client.info("replication")["master_link_status"] == "up")
    found = {one.check: one for one in report_of(replica.url).findings}
    assert (found["role"].level, found["role"].detail) == (FAIL, "slave")
    assert (found["scripts"].level, "read only replica" in found["scripts"].detail) == (FAIL, True)

    with primary.client() as client:
        until(lambda: client.info("replication")["slave0"]["state"] == "online")
        warned = report_of(primary.url)
        assert bad(warned) == {"replicas": WARN}
        client.config_set("min-replicas-to-write", "1")
        until(lambda: bad(report_of(primary.url)) == {})

    replica.pause()
    try:
        late = replace(LIMITS, max_replica_lag_s=1)
        until(lambda: bad(report_of(primary.url, limits=late)) == {"replicas": WARN}, timeout_s=30)
    finally:
        replica.resume()


def test_a_full_server_fails_and_a_filling_one_warns(servers: list[RedisServer], folder: Path) -> None:
    server = serve(servers, folder, "--maxmemory", "64mb")
    roomy = replace(LIMITS, min_headroom_bytes=1)
    assert bad(report_of(server.url, limits=roomy)) == {}
    assert bad(report_of(server.url, limits=replace(LIMITS, min_headroom_bytes=64 * MIB))) == {"memory": WARN}
    with server.client() as client:
        used = client.info("memory")["used_memory"]
        client.config_set("maxmemory", str(used * 100 // 80))
        assert bad(report_of(server.url, limits=roomy)).get("memory") is WARN
        client.config_set("maxmemory", str(used // 2))
    found = bad(report_of(server.url, limits=roomy))
    assert (found["memory"], found["scripts"]) == (FAIL, FAIL), "it refuses writes, and the probe hears it"


def test_keys_that_were_evicted_while_we_watch_fail_for_ten_minutes(servers: list[RedisServer], folder: Path) -> None:
    server = serve(servers, folder, "--maxmemory-policy", "allkeys-random", "--maxmemory", "4mb")
    clock = Later()
    watch = watch_of(server.url, clock=clock)
    assert bad(watch.look()).keys() == {"eviction"} | ({"memory"} if bad(watch.look()).get("memory") else set())
    with server.client() as client:
        while client.info("stats")["evicted_keys"] == 0:
            client.mset({f"idempotency:effect:{os.urandom(8).hex()}": "x" * 10_000 for _ in range(50)})
        client.config_set("maxmemory", "0")
        client.config_set("maxmemory-policy", "noeviction")
    assert bad(watch.look())["evicted"] is FAIL
    clock.forward_s += EVICTED_FOR_S
    assert bad(watch.look())["evicted"] is WARN, "they stay in the server's count"
    assert bad(report_of(server.url))["evicted"] is WARN


def test_an_append_only_file_on_a_full_disk_fails(servers: list[RedisServer], folder: Path) -> None:
    """`/dev/full` takes nothing: every write to it finds the disk full."""
    full = folder / "appendonlydir"
    full.mkdir(parents=True)
    (full / "appendonly.aof.1.incr.aof").symlink_to("/dev/full")
    server = serve(servers, folder)
    with server.client() as client:
        until(lambda: is_refused(client))
    found = {one.check: one for one in report_of(server.url).findings}
    assert (found["disk"].level, found["disk"].detail) == (FAIL, "the append-only file cannot be written")
    assert "MISCONF" in found["scripts"].detail


def is_refused(client: Any) -> bool:
    try:
        client.set("quantum:x", "1")
    except ResponseError as error:
        return "MISCONF" in str(error)
    return False


def test_a_snapshot_that_fails_is_a_failure(servers: list[RedisServer], folder: Path) -> None:
    """A folder stands where the file should go, which not even root can replace by a file."""
    server = serve(servers, folder)
    (folder / "dump.rdb").mkdir()
    with server.client() as client:
        client.bgsave()
        until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err")
    assert bad(report_of(server.url)) == {"disk": FAIL}


def test_a_rewrite_that_fails_is_a_warning(servers: list[RedisServer], folder: Path) -> None:
    server = serve(servers, folder)
    (folder / "appendonlydir" / "appendonly.aof.2.base.rdb").mkdir()
    with server.client() as client:
        client.bgrewriteaof()
        until(lambda: client.info("persistence")["aof_last_bgrewrite_status"] == "err")
    assert bad(report_of(server.url)) == {"disk": WARN}


def acl(server: RedisServer, *rules: str) -> str:
    """Make a user with these rights; return the URL that signs in as it."""
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "fillonce", "reset", "on", ">secret", "~*", "&*", *rules)
    return f"redis://fillonce:secret@127.0.0.1:{server.port}/0"


def test_forbidden_config_is_a_warning_and_nothing_else(servers: list[RedisServer], folder: Path) -> None:
    """As managed servers are: INFO yes, CONFIG no."""
    url = acl(serve(servers, folder), "+@all", "-config")
    report = report_of(url, draw=20)
    assert bad(report) == {"persistence": WARN}
    assert facts_of(url).settings is None


def test_a_careful_operators_rights_are_enough(servers: list[RedisServer], folder: Path) -> None:
    url = acl(
        serve(servers, folder), "+@all", "-config", "-acl", "-memory", "-randomkey", "-dbsize", "-@dangerous", "+info"
    )
    report = report_of(url, draw=20)
    assert bad(report) == {"persistence": WARN}
    details = {one.check: one.detail for one in report.findings}
    assert "not measured" in details["guards"]
    assert details["rights"] == "the server does not say who we are"


@pytest.mark.parametrize("command", ["evalsha", "lmove", "blmove", "subscribe"])
def test_a_missing_right_fails_by_name(servers: list[RedisServer], folder: Path, command: str) -> None:
    report = report_of(acl(serve(servers, folder), "+@all", f"-{command}"))
    found = {one.check: one for one in report.findings}
    assert found["rights"].level is FAIL
    assert found["rights"].detail == f"user fillonce may not {command}"


def test_every_command_that_is_asked_about_is_one_that_the_server_knows(redis_url: str) -> None:
    """A misspelled one would be denied to everybody, or to nobody."""
    with connect_redis(redis_url) as client:
        known = {name.decode() for name in client.execute_command("COMMAND LIST")}
    assert {command.partition("|")[0] for command in NEEDED} <= known


def test_what_guards_take_is_estimated_from_a_sample(redis_url: str) -> None:
    with connect_redis(redis_url) as client, client.pipeline() as pipe:
        for number in range(3_000):
            pipe.set(f"{NAMES.guards}order:{number:06d}", "D:" + "x" * 200)
            pipe.set(f"rq:job:{number:06d}", "y" * 2_000)
        pipe.execute()
        one = int(client.memory_usage(f"{NAMES.guards}order:000000"))
        sample = read_facts(client, NAMES, CLOCK, draw=400).sample
    assert sample is not None
    assert sample.all_guard_bytes is not None
    assert 0.7 < sample.all_guard_bytes / (3_000 * one) < 1.3
    small = replace(LIMITS, guard_budget_bytes=MIB // 4)
    assert bad(report_of(redis_url, draw=400, limits=small)) == {"guards": WARN}


def test_somebody_elses_keys_and_queues_in_our_database_are_a_warning(redis_url: str) -> None:
    with connect_redis(redis_url) as client:
        client.set("celery-task-meta-1", "x")
        report = report_of(redis_url, draw=20)
        assert bad(report) == {"database": WARN}
        assert "celery-task-meta-1" in {one.check: one.detail for one in report.findings}["database"]
        client.delete("celery-task-meta-1")
        client.sadd("rq:queues", "rq:queue:orders.sub1", "rq:queue:urgent")
        assert bad(report_of(redis_url, draw=20)) == {}
        client.sadd("rq:queues", "rq:queue:emails")
    assert bad(report_of(redis_url)) == {"database": WARN}


def test_a_clock_that_is_off_fails(redis_url: str) -> None:
    wrong = FakeClock(CLOCK.now_ms() - 60_000)
    with connect_redis(redis_url) as client:
        report = judge(read_facts(client, NAMES, wrong, draw=0), LIMITS)
    assert bad(report) == {"clock": FAIL}
    (found,) = report.at_level(FAIL)
    assert found.detail.endswith(" ms behind")


# While running


class Later(SystemClock):
    """The real time of day, and a stopwatch that can be put forward."""

    def __init__(self) -> None:
        self.forward_s = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.forward_s


@dataclass(slots=True)
class Told:
    """Events, as a recorder hears them."""

    events: list[tuple[str, dict[str, object]]] = field(default_factory=list)

    def event(self, name: str, *, count: bool = True, level: str = "info", **fields: object) -> None:
        self.events.append((name, {"level": level, **fields}))

    def names(self) -> list[str]:
        return [f"{name} {fields.get('check', '')}".strip() for name, fields in self.events]


def settings_of(url: str) -> Any:
    return load_settings({"REDIS_URL": url, "TRADING_MODE": "paper", "HOME": "/nowhere"}, Path("/nonexistent"))


def watch_of(url: str, *, clock: Any = CLOCK, told: Told | None = None) -> RedisWatch:
    return RedisWatch(connect_redis(url), settings_of(url), clock, told or Told())


def status_of(url: str) -> Any:
    with connect_redis(url) as client:
        return read_status(client, status_key("redis_safety", mode="paper", account="main"))


def test_the_watch_tells_once_and_again_after_ten_minutes_and_when_it_is_over(
    redis_server: RedisServer, redis_url: str
) -> None:
    told, clock = Told(), Later()
    watch = watch_of(redis_url, clock=clock, told=told)
    with redis_server.client() as client:
        client.config_set("maxmemory", str(4 << 30))
        watch.look()
        assert (told.names(), status_of(redis_url).level) == ([], OK)
        client.config_set("maxmemory-policy", "allkeys-lru")
        watch.look()
        watch.look()
        assert told.names() == ["redis_unsafe eviction"]
        assert told.events[0][1]["reason"] == "allkeys-lru"
        assert [(one.check, one.level) for one in status_of(redis_url).findings] == [("eviction", FAIL)]
        clock.forward_s += REPEAT_S
        watch.look()
        assert told.names() == ["redis_unsafe eviction"] * 2
        client.config_set("maxmemory-policy", "noeviction")
        watch.look()
    assert told.names()[2:] == ["redis_safe_again"]
    assert status_of(redis_url).level is OK


def test_a_server_that_is_gone_is_told_and_found_again(redis_server: RedisServer, redis_url: str) -> None:
    told = Told()
    watch = watch_of(redis_url, told=told)
    redis_server.kill()
    assert watch.look().level is FAIL
    assert told.names() == ["redis_unsafe answer"]
    redis_server.start()
    until(lambda: watch.look().level is not FAIL)
    assert "redis_safe_again" in told.names()


def test_the_status_is_gone_when_nobody_looks_any_more(redis_url: str) -> None:
    watch_of(redis_url).look()
    with connect_redis(redis_url) as client:
        key = status_key("redis_safety", mode="paper", account="main")
        assert 0 < client.pttl(key) <= 60_000
        client.set(key, "no json")
    assert status_of(redis_url) is None


def test_before_work_mode_paper_is_told_and_starts(servers: list[RedisServer], folder: Path) -> None:
    server = serve(servers, folder, "--maxmemory-policy", "allkeys-lru")
    told = Told()
    with connect_redis(server.url) as client:
        report = check_before_work(client, settings_of(server.url), CLOCK, told)
    assert report.level is FAIL
    assert "redis_unsafe eviction" in told.names()


def test_before_work_mode_live_is_refused_here(servers: list[RedisServer], folder: Path) -> None:
    """No settings can be live yet, so the mode is put in by force."""
    server = serve(servers, folder, "--maxmemory-policy", "allkeys-lru")
    settings = settings_of(server.url)
    live = settings.model_copy(update={"mode": type(settings.mode)("live")})
    with connect_redis(server.url) as client, pytest.raises(UnsafeRedisError, match="eviction"):
        check_before_work(client, live, CLOCK, Told())
    server.kill()
    with connect_redis(server.url) as client, pytest.raises(UnsafeRedisError, match="answer"):
        check_before_work(client, live, CLOCK, Told())


def test_the_watchs_thread_looks_at_once_and_ends_when_told(redis_url: str) -> None:
    stop = Stop()
    thread = start(stop, watch_of(redis_url), interval_s=60)
    until(lambda: status_of(redis_url) is not None)
    stop.set()
    thread.join(30)
    assert not thread.is_alive()


def test_doctor_says_what_the_watch_says(redis_url: str) -> None:
    settings = settings_of(redis_url)
    with connect_redis(redis_url) as client:
        shown = [(one.check, one.level.value, one.detail) for one in look(client, settings, CLOCK)]
        facts = read_facts(client, redis_names(settings), CLOCK, draw=settings.redis_safety.sample_keys)
    judged = judge(facts, redis_limits(settings)).findings
    assert [(f"redis {one.check}", one.level.value) for one in judged] == [(name, level) for name, level, _ in shown]
    assert len(shown) == 13
    assert json.dumps(shown)


def until(look: Any, *, timeout_s: float = 20) -> None:
    """Poll until `look` is true."""
    deadline = CLOCK.monotonic() + timeout_s
    while True:
        try:
            if look():
                return
        except (RedisError, KeyError):
            pass
        assert CLOCK.monotonic() < deadline, "waited in vain"
        CLOCK.sleep(0.02)
