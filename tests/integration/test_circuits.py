"""Circuit breakers on the real path: worker processes, a real Redis by its own clock, the local exchange's faults."""

import itertools
import json
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from app.clock import SystemClock
from app.composition import make_breakers
from app.execution.circuits import journal_changes
from app.execution.order import run_order
from app.job_safety.admission import Admission, Admitted, Blocked, EffectKind
from app.job_safety.circuit_breaker import BreakerPolicy, Breakers, BreakerState
from app.job_safety.circuit_changes import CircuitChange, CircuitChanges
from app.job_safety.side_effect_guard import Gates
from app.job_safety.state import IntentState
from app.journal import audit, circuits, followups, migrate
from app.journal.engine import Journal
from app.journal.followups import ALERT
from app.observability.log import make_logger
from app.observability.recorder import Recorder
from tests.support.gates import JOB, NAMES, Bench
from tests.support.nursery import Nursery
from tests.support.paper_process import PaperProcess
from tests.support.redis_server import RedisServer
from tests.support.system import CONFIG, System, system

S = IntentState
SENDING = {"method": "POST", "path": "/fapi/v1/order"}
DOWN = {"action": "reply_instead", "canned": "503_unavailable", "match": SENDING}
BREAKER = "breaker: {consecutive: 4, open_ms: 700, open_max_ms: 1400, probes: 1, probe_lease_ms: 1500}\n"
Opener = Callable[..., System]


@pytest.fixture
def opener(tmp_path: Path, redis_server: RedisServer, redis_url: str, nursery: Nursery) -> Iterator[Opener]:
    with PaperProcess(tmp_path / "exchange", "--price", "BTCUSDT=20000") as exchange:
        opened = []

        def open_one(breaker: str = BREAKER) -> System:
            config = "\n".join(line for line in CONFIG.splitlines() if not line.startswith("breaker")) + "\n" + breaker
            manager = system(
                tmp_path / "system",
                redis=redis_server,
                database_url=f"sqlite:///{tmp_path / 'journal.db'}",
                exchange=exchange,
                nursery=nursery,
                config=config,
            )
            opened.append(manager)
            return manager.__enter__()

        yield open_one
        for manager in opened:
            manager.__exit__(None, None, None)


@pytest.fixture
def here(opener: Opener) -> System:
    return opener()


def breakers_of(here: System) -> Breakers:
    return make_breakers(here.installation)


def is_state(here: System, state: BreakerState, job: str = JOB) -> Callable[[], bool]:
    return lambda: breakers_of(here).read(job).state is state


def history(here: System) -> list[tuple[str, str, str]]:
    with here.installation.journal.read() as connection:
        rows = circuits.history(connection, [JOB], limit=1000)
    return [(row.action, json.loads(row.detail)["from"], json.loads(row.detail)["to"]) for row in rows]


# The whole story


def test_storm_opens_the_circuit_orders_snooze_and_go_out_after_a_probe(here: System) -> None:
    here.start_all()
    here.order("before")
    here.wait_until_booked("before")
    here.exchange.faults(DOWN)
    storm = [here.order(f"storm-{number}") for number in range(3)]
    here.until(is_state(here, BreakerState.OPEN), "the circuit to open")
    late = here.order("late")
    here.until(lambda: here.row(late).snoozes > 0, "the order to snooze")
    waiting = here.row(late)
    assert (waiting.state, waiting.attempt) == (S.RECEIVED, 0)
    assert waiting.reason is not None
    assert waiting.reason.startswith(f"snoozed: breaker:{JOB}")
    here.exchange.faults()
    rows = here.wait_until_booked(*storm, late)
    assert {row.state for row in rows} == {S.FILLED}
    assert is_state(here, BreakerState.CLOSED)()
    here.until(lambda: history(here)[-1:] == [("circuit_close", "half_open", "closed")], "the history")
    told = history(here)
    assert told[:2] == [("circuit_open", "closed", "open"), ("circuit_half_open", "open", "half_open")]
    for before, after in itertools.pairwise(told):
        assert before[2] == after[1], told  # every change begins where the one before it ended: none is missing
    with here.installation.journal.read() as connection:
        assert audit.verify(connection) == []
    assert here.problems() == []


def test_orders_behind_an_open_circuit_expire_by_their_validity_and_nothing_was_sent(here: System) -> None:
    here.start_all()
    here.order("first")
    here.wait_until_booked("first")
    sent = len(here.exchange.truth()["orders"])
    breakers_of(here).override(JOB, BreakerState.OPEN, by="test", reason="stay shut", ttl_ms=3_600_000)
    here.order("short", valid_for_s=30)
    row = here.wait_for_state("short", S.EXPIRED)
    assert (row.attempt, row.reason) == (0, f"breaker:{JOB}: closed until after the end of its validity")
    assert len(here.exchange.truth()["orders"]) == sent


def test_cancels_and_reductions_pass_an_open_circuit(here: System) -> None:
    here.start_all()
    here.order("position")
    here.order("resting", order_type="LIMIT", price="19000")
    here.wait_until_booked("position")
    here.wait_for_state("resting", S.ACCEPTED)
    breakers_of(here).override(JOB, BreakerState.OPEN, by="test", reason="stay shut", ttl_ms=3_600_000)
    here.order("exit", side="SELL", reduce_only=True)
    here.cancel("stop-it", "resting")
    assert here.wait_until_booked("exit", "resting")[1].state is S.CANCELED
    assert here.row("exit").state is S.FILLED
    read = breakers_of(here).read
    assert [read(job).calls for job in ("reduce_usdm", "cancel_usdm")] == [1, 1]
    assert [read(job).failures for job in ("reduce_usdm", "cancel_usdm")] == [0, 0]


def test_observing_breaker_sends_everything_and_says_what_it_would_have_blocked(opener: Opener) -> None:
    here = opener(BREAKER.replace("{", "{mode: observe, "))
    breakers_of(here).override(JOB, BreakerState.OPEN, by="test", reason="see", ttl_ms=3_600_000)
    here.order("passes")
    here.run("worker", "orders", "--burst")
    assert here.row("passes").state is S.FILLED
    words = here.processes[-1].words()
    assert '"event": "would_block"' in words
    assert f'"reason": "breaker:{JOB}"' in words


# Crashes


def test_permit_of_a_prober_killed_by_kill_9_comes_back_within_two_seconds(here: System) -> None:
    breakers_of(here).override(JOB, BreakerState.HALF_OPEN, by="test", reason="probe", ttl_ms=3_600_000)
    here.order("dead")
    here.start("worker", "orders", "--burst", faults=f"before_send=stop@{here.folder / 'struck'}")
    here.until((here.folder / "struck").exists, "the prober to stop before it sends")
    context = here.context("second")

    def ask() -> Admitted | Blocked:
        answer = context.admission.ask("order", "second", kind=EffectKind.OPEN, venue="usdm")
        assert isinstance(answer, Admitted | Blocked)
        return answer

    here.processes[-1].kill()
    permits = here.installation.redis.zrange(NAMES.circuit(JOB)[2], 0, -1, withscores=True)
    seconds, micros = here.installation.redis.time()
    left_ms = [score - seconds * 1000 - micros / 1000 for _, score in permits]
    assert len(left_ms) == 1
    assert left_ms[0] <= 2_000
    assert left_ms[0] <= 0 or isinstance(ask(), Blocked)
    here.until(lambda: isinstance(ask(), Admitted), "the permit to come back")


def test_living_prober_keeps_its_permit_for_as_long_as_it_works(here: System) -> None:
    """Its lease is shorter than the answer takes; it is renewed beside the work."""
    breakers_of(here).override(JOB, BreakerState.HALF_OPEN, by="test", reason="probe", ttl_ms=3_600_000)
    here.exchange.faults({"action": "delay_reply_ms", "ms": 4_000, "match": SENDING})
    here.order("slow")
    here.start("worker", "orders", "--burst")
    here.until(lambda: here.row("slow").state is S.DISPATCHED, "the probe to be on its way")
    began = breakers_of(here).read(JOB).now_ms
    seen = []

    def is_over() -> bool:
        status = breakers_of(here).read(JOB)
        if status.state is BreakerState.HALF_OPEN:
            seen.append((status.now_ms - began, status.probes_out))
        return status.state is BreakerState.CLOSED

    here.until(is_over, "the probe to succeed")
    assert max(at for at, _ in seen) > 2_000
    assert {out for _, out in seen} == {1}


def test_unknown_answer_counts_though_its_worker_died_before_it_told_the_circuit(here: System) -> None:
    here.exchange.faults({"action": "reply_after_execution", "canned": "503_unknown", "match": SENDING})
    here.order("lost")
    mark = here.folder / "struck"
    code = here.run("worker", "orders", "--burst", faults=f"after_settle_commit=kill@{mark}")
    assert code == -signal.SIGKILL
    assert breakers_of(here).read(JOB).calls == 0
    reconciler = here.start("reconciler")
    here.until(lambda: here.row("lost").state is S.FILLED, "the order to be found")
    here.until(lambda: breakers_of(here).read(JOB).calls, "the circuit to be told")
    status = breakers_of(here).read(JOB)
    assert (status.calls, status.consecutive_failures) == (1, BreakerPolicy().unknown_weight)
    reconciler.terminate()


def test_death_of_a_worker_before_any_answer_is_no_failure_of_the_exchange(here: System) -> None:
    here.order("ours")
    code = here.run("worker", "orders", "--burst", faults=f"after_send=kill@{here.folder / 'struck'}")
    assert code == -signal.SIGKILL
    here.start("reconciler")
    here.until(lambda: here.row("ours").state is S.FILLED, "the order to be found")
    assert breakers_of(here).read(JOB).calls == 0


@pytest.mark.parametrize("when", ["before_commit", "after_commit"])
def test_drainer_killed_at_either_side_of_its_commit_loses_and_doubles_no_change(
    redis_url: str, database_url: str, when: str
) -> None:
    with Redis.from_url(redis_url) as redis:
        bench = Bench(redis)
        for number in range(5):
            bench.breakers.override(JOB, BreakerState.OPEN, by="anna", reason=f"change {number}")
        pid = os.fork()
        if pid == 0:
            drain_and_die(redis_url, database_url, when)
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL
        journal = Journal(database_url)
        migrate.upgrade(journal)
        changes = CircuitChanges(redis, NAMES)
        assert len(changes.read()) == 5
        drain(journal, changes)
        assert drain(journal, changes) == 0
        assert changes.read() == []
        with journal.read() as connection:
            rows = circuits.history(connection, [JOB], limit=100)
            assert [json.loads(row.detail)["why"] for row in rows] == [f"change {number}" for number in range(5)]
            told = followups.open_of_kind(connection, ALERT, now_ms=2**62, limit=100)
            assert sorted(one.payload["values"]["why"] for one in told) == [f"change {number}" for number in range(5)]
            assert audit.verify(connection) == []
        journal.close()


def drain(journal: Journal, changes: CircuitChanges, **options: Any) -> int:
    record = Recorder(make_logger(), None, SystemClock(), mode="paper", account="main")
    return journal_changes(journal, changes, SystemClock(), record, **options)


def drain_and_die(redis_url: str, database_url: str, when: str) -> None:
    try:
        journal = Journal(database_url)
        migrate.upgrade(journal)
        changes = CircuitChanges(Redis.from_url(redis_url), NAMES)

        def die(*_: object) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        def die_at_the_third(_: object, change: CircuitChange) -> None:
            if change.why == "change 2":
                die()

        if when == "before_commit":
            drain(journal, changes, also=[die_at_the_third])
        changes.drop = die  # type: ignore[method-assign]
        drain(journal, changes)
    finally:
        os._exit(1)


def test_changes_that_nobody_takes_are_bounded_and_the_trail_says_how_many_are_missing(
    redis_url: str, database_url: str
) -> None:
    journal = Journal(database_url)
    migrate.upgrade(journal)
    with Redis.from_url(redis_url) as redis:
        breakers = Bench(redis, BreakerPolicy(changes_kept=5)).breakers
        changes = CircuitChanges(redis, NAMES)
        breakers.override(JOB, BreakerState.OPEN, by="anna", reason="taken")
        drain(journal, changes)
        for number in range(9):
            breakers.override(JOB, BreakerState.CLOSED, by="anna", reason=f"change {number}")
            assert redis.xlen(NAMES.circuit_changes) <= 5
        breakers.reset("order_spot", by="anna", reason="takes the place of one more")
        assert drain(journal, changes) == 5
        assert drain(journal, changes) == 0
        breakers.reset(JOB, by="anna", reason="nothing is missing before this one")
        assert drain(journal, changes) == 1
    with journal.read() as connection:
        rows = circuits.history(connection, [JOB], limit=100)
        told = [(row.action, json.loads(row.detail)) for row in rows]
        assert audit.verify(connection) == []
    journal.close()
    assert [detail["why"] for action, detail in told if action != circuits.LOST] == [
        "taken", "change 5", "change 6", "change 7", "change 8", "nothing is missing before this one",
    ]  # fmt: skip
    assert [action for action, _ in told][:2] == ["override", circuits.LOST]
    gap = told[1][1]
    assert (gap["missing"], gap["from"], gap["to"]) == (5, "open", "closed")
    assert [action for action, _ in told].count(circuits.LOST) == 1


def test_circuit_that_redis_has_lost_begins_anew_without_a_gap_in_the_trail(redis_url: str, database_url: str) -> None:
    journal = Journal(database_url)
    migrate.upgrade(journal)
    with Redis.from_url(redis_url) as redis:
        breakers, changes = Bench(redis).breakers, CircuitChanges(redis, NAMES)
        for reason in ("one", "two", "three"):
            breakers.override(JOB, BreakerState.OPEN, by="anna", reason=reason)
        drain(journal, changes)
        redis.flushall()
        for reason in ("four", "five", "six", "seven"):
            breakers.override(JOB, BreakerState.OPEN, by="anna", reason=reason)
        drain(journal, changes)
    with journal.read() as connection:
        rows = circuits.history(connection, [JOB], limit=100)
    journal.close()
    assert [row.action for row in rows] == ["override"] * 7


# What it costs, and what reconcile makes of it


def test_gates_add_no_round_trip_to_admission_and_completion(here: System, monkeypatch: pytest.MonkeyPatch) -> None:
    here.order("warm")
    here.order("counted")
    context = here.context("counting")
    run_order(context, "warm")
    asked: list[str] = []
    redis = here.installation.redis
    original = redis.execute_command

    def counted(*arguments: Any, **options: Any) -> Any:
        if threading.current_thread() is threading.main_thread():  # a slow machine renews leases beside it
            asked.append(str(arguments[0]))
        return original(*arguments, **options)

    monkeypatch.setattr(redis, "execute_command", counted)
    assert run_order(context, "counted") == "FILLED"
    # Admission with every gate; completion with what circuit and limits are told; delivery of the follow-ups.
    assert asked == ["EVALSHA"] * 3
    assert breakers_of(here).read(JOB).calls == 2
    counted_orders = redis.hgetall(NAMES.rates("usdm")[2])
    assert sum(int(count) for name, count in counted_orders.items() if name.startswith(b"60000:")) == 2


def test_nothing_is_proven_absent_while_the_circuit_is_not_closed(here: System) -> None:
    here.start_all()
    here.order("position")
    here.wait_until_booked("position")
    here.exchange.faults({"action": "reset_before", "match": {**SENDING, "nth": 1}})
    here.order("lost")
    here.wait_for_state("lost", S.IN_DOUBT)
    breakers_of(here).override(JOB, BreakerState.OPEN, by="test", reason="hold", ttl_ms=3_600_000)
    fence_ms = here.attempts("lost")[0].fence_ms
    here.until(lambda: time.time_ns() // 1_000_000 > fence_ms + 100, "the fence to pass")
    here.order("witness", side="SELL", quantity="0.001", reduce_only=True)
    here.wait_until_booked("witness")
    unknown_at_ms = here.attempts("lost")[0].unknown_at_ms
    assert unknown_at_ms is not None

    def is_proven_but_for_the_circuit() -> bool:
        evidence = json.loads(here.attempts("lost")[0].evidence or "{}")
        is_healthy = time.time_ns() // 1_000_000 - unknown_at_ms > 6_000 + 3_000
        return bool(evidence.get("witness_order_id")) and is_healthy

    here.until(is_proven_but_for_the_circuit, "the evidence to be complete")
    asked = here.row("lost").answered_doubt_ms
    here.until(lambda: here.row("lost").answered_doubt_ms > asked, "another look")
    assert here.row("lost").state is S.IN_DOUBT
    breakers_of(here).reset(JOB, by="test", reason="done")
    rows = here.wait_until_booked("lost")
    assert (rows[0].state, rows[0].attempt) == (S.FILLED, 2)
    assert here.problems() == []


# The command line


def test_command_line_shows_overrides_and_tells_the_history(here: System) -> None:
    here.cli("circuit", "open", JOB, "--reason", "maintenance at noon", "--by", "anna", "--ttl", "1h")
    told = json.loads(here.cli("circuit", "show", JOB, "--json").splitlines()[-1])
    assert (told["state"], told["would_block"]) == ("open", True)
    assert (told["override"]["by"], told["override"]["reason"]) == ("anna", "maintenance at noon")
    listed = [json.loads(line) for line in here.cli("circuit", "list", "--json").splitlines() if line.startswith("{")]
    assert {one["job_type"]: one["state"] for one in listed if one["would_block"]} == {JOB: "open"}
    answer = here.context("x").admission.ask("order", "k", kind=EffectKind.OPEN, venue="usdm")
    assert isinstance(answer, Blocked)
    here.cli("circuit", "half-open", JOB, "--reason", "they are back", "--by", "ben")
    here.cli("circuit", "close", JOB, "--reason", "sure of it", "--by", "ben", "--ttl", "10m")
    told_of = rf"^circuit       {JOB}: closed by ben, for [\d.]+ s more: sure of it$"
    assert re.search(told_of, here.cli("status"), re.MULTILINE)
    held = json.loads(here.cli("status", "--json").splitlines()[-1])["breakers"]
    assert {one["open_for_s"] for one in held} == {None}  # it was open once, and is not now
    here.cli("circuit", "reset", JOB, "--reason", "over", "--by", "anna")
    rows = [json.loads(line) for line in here.cli("circuit", "history", "--json").splitlines() if line.startswith("{")]
    assert [(row["action"], row["from"], row["to"], row["by"]) for row in rows] == [
        ("override", "closed", "open", "anna"),
        ("override", "open", "half_open", "ben"),
        ("override", "half_open", "closed", "ben"),
        ("circuit_reset", "closed", "closed", "anna"),
    ]
    assert all(row["config_hash"] for row in rows)


def test_command_line_says_what_opened_the_circuit_where_nothing_is_counted(opener: Opener) -> None:
    """A zero beside an open circuit would say that nothing failed."""
    here = opener("breaker: {consecutive: 4, open_ms: 600000, open_max_ms: 600000, probe_lease_ms: 1500}\n")
    assert shown(here)["calls"] == "0", "closed: it counts"
    here.start("worker", "orders")
    here.order("opens-the-books")
    here.wait_for_state("opens-the-books", "FILLED")
    here.exchange.faults(DOWN)
    for number in range(4):
        here.order(f"storm-{number}")
    here.until(is_state(here, BreakerState.OPEN), "the circuit to open")
    counts = ("calls", "failures", "failure weight", "consecutive failures")
    found = shown(here)
    assert (found["state"], found["opened because"]) == ("open", "failures in a row weigh 4")
    assert {found[name] for name in counts} == {"not counted until it is closed"}
    (line,) = [line for line in here.cli("circuit", "list").splitlines() if line.startswith(JOB)]
    assert line.split()[1:5] == ["open", "-", "-", "-"]
    here.cli("circuit", "half-open", JOB, "--reason", "they are back", "--by", "anna")
    found = shown(here)
    assert (found["state"], found["why"]) == ("half_open", "they are back")
    assert found["opened because"] == "failures in a row weigh 4", "whatever has moved it since"
    told = json.loads(here.cli("circuit", "show", JOB, "--json").splitlines()[-1])
    assert told["opened_because"] == "failures in a row weigh 4"
    here.cli("circuit", "reset", JOB, "--reason", "over", "--by", "anna")
    assert shown(here)["opened because"] == "-"
    here.cli("circuit", "open", JOB, "--reason", "maintenance", "--by", "anna")
    assert shown(here)["opened because"] == "maintenance"


def shown(here: System) -> dict[str, str]:
    """Return the table of `circuit show`."""
    rows = [re.split(r" {2,}", line, maxsplit=1) for line in here.cli("circuit", "show", JOB).splitlines()]
    return {row[0]: row[1] for row in rows if len(row) == 2}


def test_two_processes_share_one_circuit(redis_url: str) -> None:
    """What one process counts, a process that has just started meets at its first call."""
    with Redis.from_url(redis_url) as redis:
        pid = os.fork()
        if pid == 0:
            with Redis.from_url(redis_url) as own:
                one = Bench(own, owner="one")
                for _ in range(3):
                    one.call(3)
            os._exit(0)
        os.waitpid(pid, 0)
        gates = Gates(breakers=Breakers(redis, NAMES, BreakerPolicy()), rate=Bench(redis).rate)
        fresh = Admission(redis, NAMES, owner="two", lease_ttl_ms=4_000, gates=gates)
        answer = fresh.ask("order", "k", kind=EffectKind.OPEN, venue="usdm")
        assert isinstance(answer, Blocked)
        assert answer.why == f"breaker:{JOB}"
