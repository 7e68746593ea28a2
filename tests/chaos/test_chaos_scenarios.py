"""The sixteen scenarios that people name when they ask what a safe job queue survives, each with the right expectation.

Real processes, a real Redis and an exchange that counts what it accepted. Names are kept from where they are known;
what is expected is not always what was expected there: a lost answer must never lead to a second call.
"""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from app.composition import guard_names, make_breakers
from app.delivery import Parcel
from app.job_safety.admission import Admission, Admitted, Done, EffectKind
from app.job_safety.circuit_breaker import BreakerState
from app.job_safety.errors import StoreUnavailableError
from app.job_safety.faults import FaultPoint
from app.job_safety.side_effect_guard import Token
from tests.chaos.crowd import deliver, submit_twentyfold
from tests.chaos.faults import ORDER_PATH
from tests.chaos.plans import Place
from tests.chaos.runner import Arena, arena, client_order_id_of
from tests.chaos.sentinel import RedisUnderSentinel
from tests.chaos.supervised import CLOCK_FILE, clock_mark
from tests.chaos.workload import market
from workers.side import make_guard

THROTTLED = {"action": "reply_instead", "canned": "503_throttled_1008"}
THROTTLED_FOR_2_S = {
    "action": "reply_instead", "status": 503, "body": {"code": -1008, "msg": "Server is currently overloaded."},
    "headers": {"Retry-After": "2"},
}  # fmt: skip
"""Without a time the retry may be due at once, and then the same worker makes it."""


@pytest.fixture(scope="module")
def installation(place: Place) -> Iterator[Arena]:
    with arena(place.folder / "scenarios", redis=place.redis, nursery=place.nursery) as one:
        yield one


@pytest.fixture
def lab(installation: Arena, place: Place) -> Iterator[Arena]:
    """The installation with nothing running; what a scenario starts ends with it."""
    place.redis.renew()
    installation.here.exchange.faults()
    yield installation
    for process in installation.here.processes:
        process.kill()
    installation.here.processes.clear()


def strike_once(one: Arena, key: str, **rule: Any) -> dict[str, Any]:
    """Return a rule that strikes the first request of this order."""
    match = {"method": "POST", "path": ORDER_PATH, "client_order_id": f"^{client_order_id_of(one.here, key)}$"}
    return {**rule, "match": {**match, "times": 1}}


def start_everybody(one: Arena) -> None:
    """Start an orders worker too, for what the machine was too slow to send in time: it waits in the journal."""
    one.here.start("worker", "orders")
    start_helpers(one)


def start_helpers(one: Arena) -> None:
    """Start everybody but the orders worker."""
    for queue in ("positions", "ledger", "pnl"):
        one.here.start("worker", queue)
    one.here.start("sweeper")
    one.here.start("reconciler")


def outcomes(one: Arena, key: str) -> list[str | None]:
    """Return what became of the attempts that may have been sent."""
    return [attempt.outcome for attempt in one.here.sent(key)]


def assert_placed_once(one: Arena, *keys: str) -> None:
    """Each order is at the exchange once, finished and booked, and nothing else is wrong either."""
    assert one.rest(timeout_s=60) == [], one.here._report()
    for key in keys:
        assert one.here.row(key).state == "FILLED", one.here.row(key)
        assert len(one.here.exchange.orders_of(client_order_id_of(one.here, key))) == 1, key
    findings = one.result().findings
    assert not findings, str(findings)


def test_redis_crash_mid_retry_resumes_the_retry_from_the_journal(lab: Arena, place: Place) -> None:
    """Not "either result is fine": the retry was journaled, so an empty Redis changes nothing."""
    key = "redis-crash-mid-retry"
    lab.here.exchange.faults(strike_once(lab, key, **THROTTLED_FOR_2_S))
    lab.submit([market(key)])
    assert lab.here.run("worker", "orders", "--burst") == 0
    assert lab.here.row(key).state == "RETRY_WAIT"
    place.redis.kill()
    place.redis.start()
    with place.redis.client() as client:
        client.flushall()
    lab.here.start("worker", "orders")
    start_helpers(lab)
    assert_placed_once(lab, key)
    assert outcomes(lab, key) == ["REFUSED", "ACCEPTED"]


def test_double_worker_retry_race_sends_the_retry_once(lab: Arena) -> None:
    key = "double-worker-retry-race"
    lab.here.exchange.faults(strike_once(lab, key, **THROTTLED_FOR_2_S))
    lab.submit([market(key)])
    assert lab.here.run("worker", "orders", "--burst") == 0
    now_ms = lab.here.installation.clock.now_ms
    lab.here.until(lambda: now_ms() > lab.here.row(key).not_before_ms, "the retry to be due")
    deliver(lab, key, 2)
    for worker in [lab.here.start("worker", "orders", "--burst") for _ in range(2)]:
        assert worker.wait() == 0
    start_everybody(lab)
    assert_placed_once(lab, key)
    assert outcomes(lab, key) == ["REFUSED", "ACCEPTED"]


def test_network_failure_during_side_effect_does_not_call_a_second_time(lab: Arena) -> None:
    """The answer is lost after the exchange has executed. One call is right; two would be the bug."""
    key = "network-failure-during-side-effect"
    lab.here.exchange.faults(strike_once(lab, key, action="answer_lost_after_execution"))
    lab.submit([market(key)])
    lab.here.start("worker", "orders")
    start_helpers(lab)
    assert_placed_once(lab, key)
    assert lab.here.exchange.struck() == [1]
    assert outcomes(lab, key) == ["ACCEPTED"]


def test_duplicate_retry_storm_of_ten_workers_and_eighty_submissions_runs_once(lab: Arena) -> None:
    """The same intent 20 times at once from 4 processes, and 10 workers that all find it in their queue twice."""
    key = "duplicate-retry-storm"
    assert submit_twentyfold(lab, market(key)) == 80
    deliver(lab, key, 20)
    for worker in [lab.here.start("worker", "orders", "--burst") for _ in range(10)]:
        assert worker.wait(60) == 0
    start_everybody(lab)
    assert_placed_once(lab, key)
    assert outcomes(lab, key) == ["ACCEPTED"]


def paused(one: Arena) -> bool:
    with one.here.redis.client() as client:
        return any(client.scan_iter("rate_limit:pause:*"))


def answer_429(after_s: int, **match: Any) -> dict[str, Any]:
    body = {"code": -1003, "msg": "Too many requests."}
    return {
        "action": "reply_instead", "status": 429, "body": body, "headers": {"Retry-After": str(after_s)},
        "match": {"method": "POST", "path": ORDER_PATH, **match},
    }  # fmt: skip


def test_circuit_breaker_triggers_on_storm_and_nobody_runs_against_the_closed_gate(lab: Arena) -> None:
    """The gate that the first refusal closes holds for every worker: of ten orders at most one each is sent."""
    keys = [f"gate-storm-{number}" for number in range(10)]
    lab.here.exchange.faults(answer_429(8))
    lab.submit([market(key) for key in keys])
    for worker in [lab.here.start("worker", "orders", "--burst", "--threads", "1") for _ in range(3)]:
        assert worker.wait(60) == 0
    assert paused(lab)
    (struck,) = lab.here.exchange.struck()
    assert 1 <= struck <= 3
    assert {lab.here.row(key).state for key in keys} <= {"RECEIVED", "RETRY_WAIT"}
    lab.here.exchange.faults()
    lab.here.start("worker", "orders")
    start_helpers(lab)
    assert_placed_once(lab, *keys)


def test_half_open_on_override_closes_again_when_the_exchange_still_refuses(lab: Arena) -> None:
    """A person who opens the gate by hand does not switch it off for ever."""
    key = "override"
    lab.here.exchange.faults(answer_429(8))
    lab.submit([market(key)])
    assert lab.here.run("worker", "orders", "--burst") == 0
    assert paused(lab)
    lab.end_pauses()
    probe = "override-probe"
    lab.submit([market(probe)])
    assert lab.here.run("worker", "orders", "--burst") == 0
    assert paused(lab)
    assert lab.here.exchange.struck() == [2]
    assert outcomes(lab, probe) == ["REFUSED"]
    lab.here.exchange.faults()
    lab.here.start("worker", "orders")
    start_helpers(lab)
    assert_placed_once(lab, probe)


def test_closes_on_success_without_a_person(lab: Arena) -> None:
    """When the time has passed that the exchange asked for, work goes on by itself."""
    key = "goes-on"
    lab.here.exchange.faults(answer_429(1, times=1))
    lab.submit([market(key)])
    assert lab.here.run("worker", "orders", "--burst") == 0
    assert lab.here.row(key).state == "RETRY_WAIT"
    lab.here.start("worker", "orders")
    start_helpers(lab)
    lab.here.wait_until_booked(key)  # and nobody ends the pause
    assert_placed_once(lab, key)
    assert outcomes(lab, key) == ["REFUSED", "ACCEPTED"]
    assert not paused(lab)


def test_concurrent_mark_executed_by_five_keeps_the_result_of_the_one_who_holds_it(lab: Arena) -> None:
    here = lab.here.installation
    names = guard_names(here.settings)
    admission = Admission(here.redis, names, owner="holder", lease_ttl_ms=5_000)
    answer = admission.ask("order", "marked", kind=EffectKind.BOOK)
    assert isinstance(answer, Admitted)
    guard = make_guard(here, names)
    tokens = [answer.token, *(Token(f"stale-{number}#1") for number in range(4))]
    with ThreadPoolExecutor(5) as pool:
        marked = list(pool.map(lambda token: guard.complete("order", "marked", token, f"by {token}"), tokens))
    assert marked == [True, False, False, False, False]
    assert admission.ask("order", "marked", kind=EffectKind.BOOK) == Done(hint=f"by {answer.token}")


def test_check_and_execute_race_of_three_executes_once(lab: Arena) -> None:
    key = "check-and-execute-race"
    lab.submit([market(key)])
    deliver(lab, key, 6)
    for worker in [lab.here.start("worker", "orders", "--burst") for _ in range(3)]:
        assert worker.wait(60) == 0
    start_everybody(lab)
    assert_placed_once(lab, key)
    assert outcomes(lab, key) == ["ACCEPTED"]


def test_ttl_expiry_race_late_owner_sends_nothing(lab: Arena) -> None:
    """The lease runs out while its owner is stopped just before sending. Others settle the order; then it wakes up."""
    key = "ttl-expiry-race"
    marker = lab.folder / "stopped"
    lab.submit([market(key)])
    zombie = lab.here.start("worker", "orders", faults=f"{FaultPoint.BEFORE_SEND.value}=stop@{marker}")
    lab.here.until(marker.exists, "the worker to be stopped")
    lab.here.start("worker", "orders")
    start_helpers(lab)
    assert_placed_once(lab, key)
    os.kill(zombie.pid, signal.SIGCONT)
    lab.submit([market(f"{key}-witness")])
    zombie.terminate()
    assert zombie.wait() == 0
    assert_placed_once(lab, key)
    assert outcomes(lab, key) == ["ABSENT", "ACCEPTED"]
    owners = [attempt.owner for attempt in lab.here.sent(key)]
    assert owners[0] != owners[1]


def test_metrics_during_concurrent_retries_count_each_of_twenty_once(lab: Arena) -> None:
    keys = [f"metric-{number:02d}" for number in range(20)]
    lab.here.exchange.faults(*(strike_once(lab, key, **THROTTLED) for key in keys))
    # Twenty refusals in a row would open the circuit, and the rest would wait; here each is to be tried.
    make_breakers(lab.here.installation).override("order_usdm", BreakerState.CLOSED, by="test", reason="count all")
    lab.submit([market(key) for key in keys])
    for worker in [lab.here.start("worker", "orders", "--burst") for _ in range(4)]:
        assert worker.wait(60) == 0
    assert lab.here.exchange.struck() == [1] * 20
    assert lab.here.checker.counters()["retry"] == 20
    lab.here.exchange.faults()
    lab.here.start("worker", "orders")
    start_helpers(lab)
    assert_placed_once(lab, *keys)
    assert lab.here.checker.counters()["retry"] == 20


def test_metrics_survive_redis_hiccup_and_the_worker_that_counted(lab: Arena, place: Place) -> None:
    """Counters outlive the worker that counted and the Redis process that kept them; work does not wait for either."""
    first, second = "hiccup-1", "hiccup-2"
    lab.here.exchange.faults(*(strike_once(lab, key, **THROTTLED) for key in (first, second)))
    lab.submit([market(first)])
    assert lab.here.run("worker", "orders", "--burst") == 0
    assert lab.here.checker.counters()["retry"] == 1
    place.redis.restart()
    lab.submit([market(second)])
    lab.here.start("worker", "orders")
    start_helpers(lab)
    assert_placed_once(lab, first, second)
    lab.here.until(lambda: lab.here.checker.counters()["retry"] == 2, "the second retry to be counted")


def test_worker_killed_between_claim_and_send_sends_once_after_proof(lab: Arena) -> None:
    key = "killed-before-send"
    lab.submit([market(key)])
    faults = f"{FaultPoint.BEFORE_SEND.value}=kill@{lab.folder / key}"
    assert lab.here.run("worker", "orders", "--burst", faults=faults) == -signal.SIGKILL
    lab.here.start("worker", "orders")
    start_helpers(lab)
    assert_placed_once(lab, key)
    assert outcomes(lab, key) == ["ABSENT", "ACCEPTED"]
    first, second = lab.here.sent(key)
    assert second.dispatched_at_ms > first.fence_ms


def test_worker_killed_between_send_and_record_is_found_and_not_sent_again(lab: Arena) -> None:
    key = "killed-after-send"
    lab.submit([market(key)])
    faults = f"{FaultPoint.AFTER_SEND.value}=kill@{lab.folder / key}"
    assert lab.here.run("worker", "orders", "--burst", faults=faults) == -signal.SIGKILL
    lab.here.start("worker", "orders")
    start_helpers(lab)
    assert_placed_once(lab, key)
    assert outcomes(lab, key) == ["ACCEPTED"]


def test_redis_failover_losing_the_last_second_repeats_and_loses_nothing(place: Place) -> None:
    """Sentinel promotes a replica that has not heard of what was done last and of what waited."""
    folder = place.folder / "failover"
    with (
        RedisUnderSentinel(folder / "redis") as redis,
        arena(folder / "system", redis=redis, nursery=place.nursery) as one,
    ):
        known, forgotten, waiting = keys = ("done-and-replicated", "done-and-forgotten", "waiting-and-forgotten")
        one.submit([market(known)])
        assert one.here.run("worker", "orders", "--burst") == 0
        with redis.client() as client:
            assert client.wait(1, 5_000) == 1
        redis.forget_from_now_on()
        one.submit([market(forgotten)])
        assert one.here.run("worker", "orders", "--burst") == 0
        one.submit([market(waiting)])
        assert queued(one, *keys) == {known, forgotten, waiting}
        redis.fail_over()
        assert queued(one, *keys) == {known}
        for key in (known, forgotten):
            one.here.until(lambda key=key: delivered(one, key), "the new master to be known")
        one.here.start("worker", "orders")
        start_helpers(one)
        assert_placed_once(one, *keys)
        assert [outcomes(one, key) for key in keys] == [["ACCEPTED"]] * 3


def queued(one: Arena, *keys: str) -> set[str]:
    """Return of which orders Redis has ever heard, as far as it remembers."""
    job_id = one.here.installation.delivery.job_id
    with one.here.redis.client() as client:
        return {key for key in keys if client.exists(f"rq:job:{job_id(Parcel(key=key, type='order', queue='orders'))}")}


def delivered(one: Arena, key: str) -> bool:
    """Deliver an order's job once more; return whether Redis took it."""
    try:
        one.here.installation.delivery.deliver([Parcel(key=key, type="order", queue="orders")], force=True)
    except StoreUnavailableError:
        return False
    return True


def test_clock_jump_of_five_seconds_either_way_neither_loses_nor_repeats(lab: Arena) -> None:
    """First our clock jumps while orders are on their way, then the exchange's. Pinned times are the exchange's."""
    clock = lab.folder / "clock"
    clock.write_text("0")
    lab.start(**{CLOCK_FILE: str(clock)})
    keys = []
    for number, offset in enumerate(("0", "5000", "-5000", "0")):
        clock.write_text(offset)
        keys.append(f"clock-jump-{number}")
        lab.submit([market(keys[-1])])
        # The next jump comes as soon as somebody has seen this one, with the order on its way.
        lab.here.until(clock_mark(clock, int(offset)).exists, f"the clock to be seen {offset} ms off")
    for offset_ms in (5_000, -5_000, 0):
        lab.here.exchange.control("POST", "clock", {"offset_ms": offset_ms})
        keys.append(f"exchange-clock-{offset_ms}")
        lab.submit([market(keys[-1])])
        lab.here.until(lambda: lab.here.row(keys[-1]).state == "FILLED", f"{keys[-1]} to be filled", timeout_s=60)
    assert_placed_once(lab, *keys)


SCENARIOS = (
    "redis_crash_mid_retry", "double_worker_retry_race", "network_failure_during_side_effect", "duplicate_retry_storm",
    "circuit_breaker_triggers_on_storm", "half_open_on_override", "closes_on_success", "concurrent_mark_executed",
    "check_and_execute_race", "ttl_expiry_race", "metrics_during_concurrent_retries", "metrics_survive_redis_hiccup",
    "worker_killed_between_claim_and_send", "worker_killed_between_send_and_record",
    "redis_failover_losing_the_last_second", "clock_jump",
)  # fmt: skip


def test_each_of_the_sixteen_scenarios_has_a_test_of_its_name() -> None:
    tests = [line for line in Path(__file__).read_text().splitlines() if line.startswith("def test_")]
    assert len(SCENARIOS) == 16
    for name in SCENARIOS:
        assert sum(line.startswith(f"def test_{name}_") for line in tests) == 1, name
