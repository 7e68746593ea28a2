"""Circuits on a real Redis, by a clock of the test: every rule of the state machine, and what must not move it."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from redis import Redis

from app.job_safety.admission import Admitted, Blocked, EffectKind
from app.job_safety.circuit_breaker import (
    JOB_TYPES,
    BreakerPolicy,
    BreakerState,
    blocks,
    job_type_of,
    weight_of,
)
from app.job_safety.circuit_changes import CircuitChanges
from app.job_safety.effect import GateMode
from app.job_safety.failure_classifier import classify_answer
from app.job_safety.outcome import NotSent, Refused, Unknown, Venue
from app.job_safety.side_effect_guard import Told
from tests.support.gates import JOB, NAMES, Bench, stopped_clock

S = BreakerState
POLICY = BreakerPolicy(
    window_ms=10_000, window_calls=20, min_calls=6, rate_percent=50, consecutive=4, open_ms=1_000, open_max_ms=3_000,
    probes=2, lease_ms=500, config_hash="cafe",
)  # fmt: skip
UNKNOWN, FAILED, OK = 3, 1, 0


@pytest.fixture
def bench(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    stopped_clock(monkeypatch)
    with Redis.from_url(redis_url) as redis:
        one = Bench(redis, POLICY)
        one.set_time(one.now_ms)
        yield one


def again(bench: Bench, policy: BreakerPolicy = POLICY, owner: str = "x") -> Bench:
    """A process that has just started."""
    fresh = Bench(bench.redis, policy, owner=owner)
    fresh.now_ms = bench.now_ms
    return fresh


def open_it(bench: Bench) -> None:
    while bench.status.state is not S.OPEN:
        assert isinstance(bench.call(FAILED), Admitted)


def actions(bench: Bench) -> list[str]:
    return [change.action for change in CircuitChanges(bench.redis, NAMES).read()]


# Closed to open


def test_failures_in_a_row_open_it_and_a_success_between_them_does_not(bench: Bench) -> None:
    strict = again(bench, replace(POLICY, min_calls=1_000))
    for weight in (FAILED, FAILED, FAILED, OK, FAILED, FAILED, FAILED):
        assert strict.status.state is S.CLOSED
        strict.call(weight)
    assert strict.status.state is S.CLOSED
    strict.call(FAILED)
    assert (bench.status.state, bench.status.why) == (S.OPEN, "failures in a row weigh 4")


def test_an_unknown_outcome_weighs_more_than_a_refusal(bench: Bench) -> None:
    bench.call(UNKNOWN)
    assert bench.status.state is S.CLOSED
    bench.call(UNKNOWN)
    assert bench.status.state is S.OPEN


def test_rate_opens_it_only_from_the_minimum_of_calls_on(bench: Bench) -> None:
    for weight in (FAILED, OK, FAILED, OK, FAILED):
        bench.call(weight)
    assert bench.status.state is S.CLOSED  # 60 % of 5
    bench.call(OK)
    assert bench.status.state is S.CLOSED  # a success never opens it
    bench.call(FAILED)
    assert (bench.status.state, bench.status.why) == (S.OPEN, "4 of 7 calls failed, by weight 57 %")


def test_calls_that_fail_in_the_same_millisecond_all_count(bench: Bench) -> None:
    """Once the member of the sorted set was the time, and 50 failures of one moment counted as 1."""
    lenient = again(bench, BreakerPolicy(consecutive=1000, min_calls=1000, window_calls=1000))
    for _ in range(50):
        lenient.call(FAILED)
    assert (lenient.status.calls, lenient.status.failures) == (50, 50)


def test_window_forgets_by_time_and_by_number(bench: Bench) -> None:
    lenient = again(bench, BreakerPolicy(consecutive=1000, min_calls=100, window_ms=10_000, window_calls=20))
    for _ in range(30):
        lenient.call(FAILED)
    assert lenient.status.calls == 20
    lenient.wait(9_999)
    assert lenient.status.calls == 20
    lenient.wait(1)
    assert lenient.status.calls == 0
    lenient.call(OK)
    assert lenient.status.calls == 1
    assert lenient.redis.zcard(NAMES.circuit(JOB)[1]) == 1


def test_what_says_nothing_about_the_exchange_counts_for_nothing(bench: Bench) -> None:
    for _ in range(50):
        bench.call(None)
    assert (bench.status.state, bench.status.calls) == (S.CLOSED, 0)


@pytest.mark.parametrize(
    ("status", "body", "counted"),
    [
        (400, '{"code": -2019, "msg": "Margin is insufficient."}', None),
        (429, '{"code": -1003, "msg": "Too many requests."}', None),
        (503, '{"code": -1000, "msg": "Unknown error, please check your request or try again later."}', 3),
        (503, '{"msg": "Service Unavailable."}', 1),
        (502, "<html>bad gateway</html>", 3),
        (400, '{"code": -1111, "msg": "Precision is over the maximum."}', None),
    ],
)
def test_only_classes_that_speak_of_the_exchange_have_a_weight(status: int, body: str, counted: int | None) -> None:
    failure = classify_answer(
        venue=Venue.USDM, method="order", http_status=status, body=body, headers={}, now_ms=1_800_000_000_000
    )
    assert failure is not None
    outcome = Unknown(failure=failure) if failure.certainty == "UNKNOWN" else Refused(failure=failure)
    assert weight_of(outcome, POLICY) == counted
    assert weight_of(NotSent(reason="too slow"), POLICY) is None


# Open


def test_fresh_process_refuses_its_very_first_call_while_open(bench: Bench) -> None:
    open_it(bench)
    bench.wait(999)
    _, answer = again(bench).ask()
    assert answer == Blocked(why=f"breaker:{JOB}", for_ms=1)
    assert answer.gate == "breaker"


def test_open_blocks_neither_reductions_nor_cancels_nor_the_other_venue(bench: Bench) -> None:
    open_it(bench)
    admitted = [
        bench.ask(EffectKind.REDUCE),
        bench.ask(EffectKind.CANCEL),
        bench.ask(EffectKind.BOOK),
        bench.ask(EffectKind.OPEN, Venue.SPOT),
    ]
    assert all(isinstance(answer, Admitted) for _, answer in admitted)


def test_cancels_and_reductions_have_circuits_of_their_own_that_never_block(bench: Bench) -> None:
    for _ in range(10):
        assert isinstance(bench.call(UNKNOWN, EffectKind.CANCEL), Admitted)
        assert isinstance(bench.call(UNKNOWN, EffectKind.REDUCE), Admitted)
    states = {status.job_type: status.state for status in bench.breakers.read_all()}
    assert set(states) == set(JOB_TYPES)
    assert {job for job, state in states.items() if state is S.OPEN} == {"cancel_usdm", "reduce_usdm"}
    assert not any(status.would_block for status in bench.breakers.read_all())
    assert isinstance(bench.ask()[1], Admitted)


def test_late_result_of_an_older_generation_is_ignored(bench: Bench) -> None:
    late = [bench.ask() for _ in range(4)]
    open_it(bench)
    bench.wait(1_000)
    key, probe = bench.ask()
    assert isinstance(probe, Admitted)
    generation = bench.status.generation
    for old, answer in late:
        assert isinstance(answer, Admitted)
        bench.tell(old, answer, UNKNOWN)
    assert (bench.status.state, bench.status.generation) == (S.HALF_OPEN, generation)
    bench.tell(key, probe, OK)
    bench.call(OK)
    assert bench.status.state is S.CLOSED
    bench.tell(late[0][0], late[0][1], UNKNOWN)  # type: ignore[arg-type]
    assert bench.status.calls == 0


# Half-open


def test_half_open_lets_two_probes_through_and_no_third(bench: Bench) -> None:
    """Once 100 of 100 were let through."""
    open_it(bench)
    bench.wait(1_000)
    answers = [again(bench, owner=f"w{number}").ask()[1] for number in range(100)]
    assert [isinstance(answer, Admitted) for answer in answers] == [True] * 2 + [False] * 98
    assert answers[2] == Blocked(why=f"breaker:{JOB}", for_ms=None)
    assert bench.status.would_block


def test_enough_probes_that_succeed_close_it_and_one_that_fails_opens_it_for_longer_up_to_the_cap(bench: Bench) -> None:
    open_it(bench)
    waits = []
    for _ in range(4):
        waits.append(bench.status.open_until_ms - bench.now_ms)
        bench.wait(waits[-1])
        assert bench.status.state is S.HALF_OPEN
        bench.call(OK)
        bench.call(FAILED)
        assert (bench.status.state, bench.status.why) == (S.OPEN, "a probe failed")
    assert waits == [1_000, 2_000, 3_000, 3_000]
    bench.wait(3_000)
    bench.call(OK)
    assert bench.status.state is S.HALF_OPEN
    bench.call(OK)
    assert bench.status.state is S.CLOSED
    open_it(bench)
    assert bench.status.open_until_ms - bench.now_ms == 1_000


def test_probe_that_learns_nothing_gives_its_permit_back(bench: Bench) -> None:
    open_it(bench)
    bench.wait(1_000)
    for _ in range(5):
        assert isinstance(bench.call(None), Admitted)
    assert bench.status.state is S.HALF_OPEN


def test_permit_lives_by_its_lease(bench: Bench) -> None:
    open_it(bench)
    bench.wait(1_000)
    key, living = bench.ask()
    assert isinstance(living, Admitted)
    assert living.ticket is not None
    assert living.ticket.is_probe
    dead = bench.ask()[1]
    assert isinstance(dead, Admitted)
    bench.wait(400)
    bench.guard.renew("order", key, living.token, Told(venue=Venue.USDM, ticket=living.ticket))
    assert isinstance(bench.ask()[1], Blocked)
    bench.wait(100)
    assert isinstance(bench.ask()[1], Admitted)  # the dead one's came back
    assert isinstance(bench.ask()[1], Blocked)


# What a person says


def test_override_ends_by_the_servers_clock_with_nobody_there_to_end_it(bench: Bench) -> None:
    bench.breakers.override(JOB, S.OPEN, by="anna", reason="maintenance", ttl_ms=60_000)
    assert bench.status.override is not None
    assert (bench.status.override.by, bench.status.override.reason) == ("anna", "maintenance")
    bench.wait(59_999)
    assert isinstance(again(bench).ask()[1], Blocked)
    bench.wait(1)
    assert bench.status.override is None
    assert isinstance(again(bench, owner="y").ask()[1], Admitted)
    assert actions(bench) == ["override", "override_expired", "circuit_half_open"]


def test_override_to_closed_does_not_disable_the_breaker_for_ever(bench: Bench) -> None:
    """Once a single override left behind kept the breaker from ever blocking again."""
    open_it(bench)
    bench.breakers.override(JOB, S.CLOSED, by="anna", reason="false alarm", ttl_ms=5_000)
    for _ in range(12):
        assert isinstance(bench.call(FAILED), Admitted)
    bench.wait(5_000)
    assert isinstance(bench.call(FAILED), Admitted)  # judged with all that failed meanwhile
    assert bench.status.state is S.OPEN
    assert isinstance(bench.ask()[1], Blocked)


def test_there_is_one_override_at_a_time_and_reset_ends_it(bench: Bench) -> None:
    bench.breakers.override(JOB, S.OPEN, by="anna", reason="one", ttl_ms=60_000)
    bench.breakers.override(JOB, S.CLOSED, by="ben", reason="two", ttl_ms=1_000)
    assert bench.status.override is not None
    assert (bench.status.state, bench.status.override.by) == (S.CLOSED, "ben")
    bench.wait(1_000)
    assert bench.status.state is S.CLOSED  # nothing of anna's is left behind
    bench.breakers.override(JOB, S.OPEN, by="anna", reason="three")
    assert bench.status.override is not None
    assert bench.status.override.until_ms == bench.now_ms + 15 * 60_000
    bench.breakers.reset(JOB, by="ben", reason="four")
    assert (bench.status.state, bench.status.override) == (S.CLOSED, None)


def test_override_to_half_open_is_used_up_by_the_first_probe_that_decides(bench: Bench) -> None:
    open_it(bench)
    bench.breakers.override(JOB, S.HALF_OPEN, by="anna", reason="they say it is back")
    bench.call(FAILED)
    assert (bench.status.state, bench.status.override) == (S.OPEN, None)
    assert bench.status.open_until_ms - bench.now_ms == 2_000


@pytest.mark.parametrize(("by", "reason"), [("", "why"), ("anna", ""), (" ", "why"), ("anna", "\t")])
def test_override_needs_a_name_and_a_reason(bench: Bench, by: str, reason: str) -> None:
    with pytest.raises(ValueError, match="reason, by"):
        bench.breakers.override(JOB, S.OPEN, by=by, reason=reason)
    assert actions(bench) == []


def test_what_takes_risk_away_cannot_be_blocked_by_a_person_either(bench: Bench) -> None:
    for job_type in JOB_TYPES:
        if not blocks(job_type):
            with pytest.raises(ValueError, match="never blocks"):
                bench.breakers.override(job_type, S.OPEN, by="anna", reason="why")
    with pytest.raises(ValueError, match="ttl"):
        bench.breakers.override(JOB, S.OPEN, by="anna", reason="why", ttl_ms=25 * 3_600_000)
    with pytest.raises(ValueError, match="not a circuit"):
        bench.breakers.override("order", S.OPEN, by="anna", reason="why")


# Modes


def test_observing_circuit_says_what_it_would_have_blocked_and_blocks_nothing(bench: Bench) -> None:
    watching = again(bench, BreakerPolicy(mode=GateMode.OBSERVE, consecutive=4, open_ms=1_000, probes=1))
    for _ in range(4):
        watching.call(FAILED)
    _, answer = watching.ask()
    assert isinstance(answer, Admitted)
    assert answer.would_block == f"breaker:{JOB}"
    watching.wait(1_000)
    key, probe = watching.ask()
    _, second = watching.ask()
    assert isinstance(probe, Admitted)
    assert isinstance(second, Admitted)
    assert (probe.would_block, second.would_block) == ("", f"breaker:{JOB}")
    watching.tell(key, second, FAILED)  # it was no probe
    assert watching.status.state is S.HALF_OPEN
    watching.tell(key, probe, OK)
    assert watching.status.state is S.CLOSED


def test_breaker_that_is_off_keeps_nothing_and_asks_nothing(bench: Bench) -> None:
    off = again(bench, BreakerPolicy(mode=GateMode.OFF))
    for _ in range(50):
        assert isinstance(off.call(UNKNOWN), Admitted)
    assert bench.redis.keys("circuit_breaker:*") == []
    assert off.status.state is S.CLOSED


# Late failures, ticks and traces


def test_unknown_found_after_a_crash_counts_once_and_only_in_its_own_time(bench: Bench) -> None:
    late = bench.breakers.report_late
    assert late(JOB, member="k#1", age_ms=0)
    assert late(JOB, member="k#1", age_ms=10)
    assert (bench.status.calls, bench.status.consecutive_failures) == (1, 3)
    assert not late(JOB, member="old#1", age_ms=10_000)
    bench.breakers.reset(JOB, by="t", reason="t")
    bench.wait(100)
    assert not late(JOB, member="k#1", age_ms=100)  # before the reset
    assert late(JOB, member="new#1", age_ms=99)
    assert late(JOB, member="newer#1", age_ms=99)
    assert bench.status.state is S.OPEN
    assert not late(JOB, member="newest#1", age_ms=0)


def test_worker_and_reconciler_that_tell_of_the_same_call_count_it_once(bench: Bench) -> None:
    key, answer = bench.ask()
    assert isinstance(answer, Admitted)
    bench.breakers.report_late(JOB, member=f"{key}#1", age_ms=0)
    bench.tell(key, answer, UNKNOWN)
    assert (bench.status.calls, bench.status.consecutive_failures) == (1, 3)


def test_call_that_is_told_of_again_grows_no_younger(bench: Bench) -> None:
    key, answer = bench.ask()
    assert isinstance(answer, Admitted)
    bench.breakers.report_late(JOB, member=f"{key}#1", age_ms=0)
    bench.wait(5_000)
    bench.tell(key, answer, UNKNOWN)
    bench.wait(5_000)
    assert bench.status.calls == 0


def test_tick_moves_a_circuit_when_its_time_is_over_with_nobody_calling(bench: Bench) -> None:
    open_it(bench)
    bench.breakers.tick()
    assert actions(bench) == ["circuit_open"]
    bench.wait(1_000)
    bench.breakers.tick()
    bench.breakers.tick()
    assert actions(bench) == ["circuit_open", "circuit_half_open"]


def test_every_change_is_written_down_with_who_and_why_and_which_settings(bench: Bench) -> None:
    open_it(bench)
    bench.wait(1_000)
    bench.call(OK)
    bench.call(OK)
    told = [
        (one.job_type, one.from_state, one.to_state, one.by, one.config_hash)
        for one in CircuitChanges(bench.redis, NAMES).read()
    ]
    assert told == [
        (JOB, "closed", "open", "breaker", "cafe"),
        (JOB, "open", "half_open", "timer", "cafe"),
        (JOB, "half_open", "closed", "breaker", "cafe"),
    ]
    keys = [change.key for change in CircuitChanges(bench.redis, NAMES).read()]
    assert len(set(keys)) == 3


def test_every_kind_that_is_sent_has_a_circuit_and_book_work_has_none() -> None:
    told = {job_type_of(kind, venue.value) for kind in EffectKind for venue in Venue}
    assert told == {None, *JOB_TYPES}
    assert {job for job in JOB_TYPES if blocks(job)} == {"order_usdm", "order_spot"}
