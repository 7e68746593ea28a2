"""Advice on thresholds: the replayed circuit does what the real one does, and the report says what follows."""

import random
from dataclasses import replace
from typing import Any

import pytest
from redis import Redis

from app.cli.circuit_advise import circuit_of, fields, take, tried, weight_of, words
from app.job_safety.admission import Admitted
from app.job_safety.circuit_advice import MIN_CALLS, Advice, Rates, Replay, advice_of, settings_to_try
from app.job_safety.circuit_breaker import BreakerPolicy
from app.job_safety.circuit_changes import CircuitChanges
from app.journal.attempt_history import PastAttempt
from tests.support.gates import NAMES, Bench, stopped_clock

T0 = 1_800_000_000_000
POLICY = BreakerPolicy(
    window_ms=1_000, window_calls=8, min_calls=4, rate_percent=60, consecutive=4, open_ms=200, open_max_ms=500, probes=2
)
UNLISTED = "execution_status_unknown"


def attempt(**changes: Any) -> PastAttempt:
    base: dict[str, Any] = {
        "dispatched_at_ms": T0, "key": "k", "job_type": "order_usdm", "symbol": "BTCUSDT", "attempt": 1,
        "result": "ACCEPTED", "failure_class": None, "rule": None, "http_status": None, "code": None,
        "retry_delay_ms": None, "settled_at_ms": T0, "settled_by": "dispatch", "owner": "w", "state": "FILLED",
        "answer": None, "type": "order", "venue": "usdm", "opens_risk": True, "unknown_at_ms": None,
    }  # fmt: skip
    return PastAttempt(**{**base, **changes})


@pytest.mark.parametrize("seed", range(6))
def test_replayed_circuit_lets_through_and_opens_as_the_real_one(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    stopped_clock(monkeypatch)
    dice = random.Random(seed)
    with Redis.from_url(redis_url) as redis:
        bench, replay = Bench(redis, POLICY), Replay(POLICY)
        bench.set_time(T0)
        for number in range(250):
            bench.wait(dice.choice([1, 20, 60, 150, 400]))
            weight = dice.choice([0, 0, 0, 1, 3] if number % 80 < 50 else [0])
            passed = isinstance(bench.call(weight), Admitted)
            assert replay.take(bench.now_ms, weight) is passed, f"seed {seed}, call {number}"
        opened = [one for one in CircuitChanges(redis, NAMES).read(10_000) if one.action == "circuit_open"]
    assert replay.opened == sum(one.from_state == "closed" for one in opened) > 0


def test_open_circuit_counts_what_it_would_have_held_back() -> None:
    replay = Replay(replace(POLICY, consecutive=3))
    assert replay.take(T0, 3) is True
    assert [replay.take(T0 + ms, weight) for ms, weight in ((10, 3), (20, 0), (30, 1), (199, 0))] == [False] * 4
    assert (replay.opened, replay.spared, replay.held_back, replay.is_open) == (1, 4, 2, True)
    assert replay.take(T0 + 200, 1) is True, "a probe"
    assert (replay.opened, replay.open_ms) == (1, 200 + 400), "it failed: open for longer, and no second opening"
    assert [replay.take(T0 + 700 + ms, 0) for ms in (0, 1)] == [True, True]
    assert replay.is_open is False


def test_rates_are_of_windows_with_enough_calls() -> None:
    rates = Rates(window_ms=1_000, min_calls=2)
    for at_ms, weight in ((0, 0), (10, 0), (1_000, 1), (1_001, 0), (2_000, 1), (3_000, 1), (3_100, 3)):
        rates.take(T0 + at_ms, weight)
    rates.end()
    assert (rates.windows, rates.quantile(50), rates.quantile(95), rates.quantile(34)) == (3, 50, 100, 50)
    assert Rates(window_ms=1, min_calls=1).quantile(50) is None


def test_present_setting_is_tried_first_and_the_others_stay_within_bounds() -> None:
    first, stricter, looser, loosest = settings_to_try(BreakerPolicy())
    assert first.policy == BreakerPolicy()
    assert [(one.policy.rate_percent, one.policy.consecutive) for one in (stricter, looser, loosest)] == [
        (30, 6), (70, 13), (90, 18),
    ]  # fmt: skip
    assert all(1 <= one.policy.rate_percent <= 100 for one in settings_to_try(BreakerPolicy(rate_percent=100)))
    assert all(one.policy.consecutive >= 1 for one in settings_to_try(BreakerPolicy(consecutive=1)))


def filled(*weights: int, every_ms: int = 10, policy: BreakerPolicy = POLICY) -> Advice:
    advice = advice_of("order_usdm", policy)
    for number, weight in enumerate(weights):
        advice.take(T0 + number * every_ms, weight)
    advice.rates.end()
    return advice


def test_stricter_thresholds_are_named_where_they_would_have_spared_failures() -> None:
    """Three failures in a row stay below four each time; a stricter circuit opens at the second."""
    found = filled(*([1, 1, 1, 0] * MIN_CALLS), every_ms=100, policy=replace(POLICY, min_calls=100))
    best = found.best()
    assert best is not None
    assert best.name == "stricter"
    told = {row["setting"]: row for row in tried(found)}
    assert (told["present"]["opened"], told["present"]["failure_weight_spared"]) == (0, 0)
    assert told["stricter"]["opened"] > 0
    assert told["stricter"]["failure_weight_spared"] > told["stricter"]["good_calls_held_back"] > 0
    assert words(found).startswith("consider breaker.rate_percent 36, breaker.consecutive 2: failures of weight ")
    assert fields(found)["recommended"] == "stricter"


def test_thresholds_are_kept_where_nothing_fails_and_where_there_is_too_little() -> None:
    assert words(filled(*[0] * MIN_CALLS)) == f"keep the thresholds: none of {MIN_CALLS} calls failed"
    assert words(filled(*[1] * 5)) == f"too little to go by: 5 calls, at least {MIN_CALLS} are needed"
    assert fields(filled(1))["recommended"] is None
    calm = filled(*([0] * 60 + [1]) * 10)
    assert words(calm) == "keep the thresholds: none that was tried would have done clearly better"


def test_difference_that_may_be_chance_is_no_reason_to_change() -> None:
    """One storm: the stricter circuit opens a call or two earlier, and that is all."""
    storm = filled(*[0] * MIN_CALLS, *[3] * 40, *[0] * MIN_CALLS, every_ms=50)
    gains = {setting.name: replay.gain for setting, replay in storm.tried}
    assert gains["stricter"] != gains["present"]
    assert fields(storm)["recommended"] == "present"


def test_circuit_that_never_blocks_is_told_as_such() -> None:
    advice = advice_of("cancel_usdm", POLICY)
    for number in range(MIN_CALLS):
        advice.take(T0 + number, 1)
    assert "never blocks" in words(advice)


@pytest.mark.parametrize(
    ("changes", "weight"),
    [
        pytest.param({}, 0, id="accepted"),
        pytest.param({"unknown_at_ms": T0, "rule": UNLISTED, "settled_by": "reconcile"}, 3, id="unknown"),
        pytest.param({"result": "OPEN", "settled_by": None, "unknown_at_ms": T0, "rule": UNLISTED}, 3, id="in-doubt"),
        pytest.param({"settled_by": "reconcile"}, None, id="worker-died"),
        pytest.param({"result": "ABSENT", "settled_by": "reconcile"}, None, id="worker-died-absent"),
        pytest.param({"result": "NOT_SENT", "settled_by": "own"}, None, id="our-own-pause"),
        pytest.param({"result": "REFUSED", "settled_by": "own_answer", "rule": "REJECTED"}, None, id="rejected"),
        pytest.param({"result": "REFUSED", "settled_by": "own_answer", "rule": "FAILING"}, 1, id="refused"),
    ],
)
def test_attempt_counts_as_it_did_for_its_circuit(changes: dict[str, Any], weight: int | None) -> None:
    from app.job_safety.failure_table import BY_RULE

    named = {
        "REJECTED": next(rule for rule, row in BY_RULE.items() if not row.counts_for_breaker),
        "FAILING": next(rule for rule, row in BY_RULE.items() if row.counts_for_breaker),
    }
    rule = changes.get("rule")
    assert weight_of(attempt(**{**changes, "rule": named.get(str(rule), rule)}), BreakerPolicy()) == weight


def test_attempts_are_replayed_for_their_own_circuit() -> None:
    assert circuit_of(attempt()) == "order_usdm"
    assert circuit_of(attempt(opens_risk=False)) == "reduce_usdm"
    assert circuit_of(attempt(type="cancel", opens_risk=False, venue="spot")) == "cancel_spot"
    assert circuit_of(attempt(venue=None)) is None
    found: dict[str, Advice] = {}
    page = [attempt(), attempt(opens_risk=False), attempt(venue=None), attempt(settled_by="reconcile")]
    take(found, page, BreakerPolicy())
    assert {name: advice.calls for name, advice in found.items()} == {"order_usdm": 1, "reduce_usdm": 1}
