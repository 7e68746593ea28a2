"""The shared limits on a real Redis, by a clock of the test: never more than a limit in any window, and room kept."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from app.job_safety.admission import Admitted, Blocked, EffectKind
from app.job_safety.circuit_breaker import BreakerPolicy
from app.job_safety.effect import GateMode
from app.job_safety.outcome import Venue
from app.job_safety.rate_limit import DEFAULTS, Limit, Pause, RateBlocked, RateGate, RatePolicy, limits_text
from tests.support.gates import NAMES, Bench, stopped_clock

OFF = BreakerPolicy(mode=GateMode.OFF)
LIMITS = [Limit(kind="weight", window_ms=60_000, most=100), Limit(kind="orders", window_ms=10_000, most=20)]
WHOLE = RatePolicy(use_percent=100, reserve_percent=0)


@pytest.fixture
def bench(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    stopped_clock(monkeypatch)
    with Redis.from_url(redis_url) as redis:
        one = Bench(redis, OFF, RatePolicy(use_percent=100, reserve_percent=25))
        one.set_time(one.now_ms)
        one.rate.publish(Venue.USDM, LIMITS)
        yield one


def admitted(bench: Bench, kind: EffectKind, tries: int = 40) -> int:
    return sum(isinstance(bench.ask(kind)[1], Admitted) for _ in range(tries))


def test_what_opens_risk_stops_short_of_the_limit_and_reductions_use_the_rest(bench: Bench) -> None:
    assert admitted(bench, EffectKind.OPEN) == 15
    _, answer = bench.ask()
    assert isinstance(answer, Blocked)
    assert (answer.why, answer.gate) == ("rate:orders", "rate")
    assert admitted(bench, EffectKind.REDUCE) == 5
    assert admitted(bench, EffectKind.CANCEL) == 40  # cancels are no orders; each weighs 1
    assert admitted(bench, EffectKind.BOOK) == 40


def test_blocked_order_is_told_when_there_is_room_again_and_then_there_is(bench: Bench) -> None:
    admitted(bench, EffectKind.OPEN)
    _, answer = bench.ask()
    assert isinstance(answer, Blocked)
    assert answer.for_ms is not None
    assert 10_000 <= answer.for_ms <= 11_000  # a window, and the part of it that was begun
    bench.wait(answer.for_ms - 1)
    assert isinstance(bench.ask()[1], Blocked)
    bench.wait(1)
    assert admitted(bench, EffectKind.OPEN) == 15


def test_questions_share_the_weight_of_the_address_and_are_held_back_at_its_end(bench: Bench) -> None:
    other = Bench(bench.redis, OFF, RatePolicy(use_percent=100), owner="other")
    for _ in range(10):
        assert bench.rate.spend(Venue.USDM, 5) == ""
        assert other.rate.spend(Venue.USDM, 5) == ""
    told = bench.rate.spend(Venue.USDM, 1)
    assert isinstance(told, RateBlocked)
    assert told.why == "rate:weight"
    assert bench.rate.spend(Venue.SPOT, 1) == ""


def test_what_an_admission_has_counted_for_its_questions_is_not_counted_again(bench: Bench) -> None:
    answer = bench.admission.ask("followup", "f", kind=EffectKind.BOOK, venue="usdm", weight=95)
    assert isinstance(answer, Admitted)
    with bench.rate.prepaid(Venue.USDM, 95):
        assert bench.rate.spend(Venue.USDM, 95) == ""
        assert bench.rate.spend(Venue.USDM, 5) == ""
        assert isinstance(bench.rate.spend(Venue.USDM, 1), RateBlocked)
    assert isinstance(bench.admission.ask("followup", "g", kind=EffectKind.BOOK, venue="usdm", weight=5), Blocked)


def test_headers_tell_of_what_others_spend_and_never_lower_what_we_know(bench: Bench) -> None:
    bench.rate.saw(Venue.USDM, used_weight={"1M": 96, "1W": 9}, order_count={"10S": 14})
    assert bench.rate.spend(Venue.USDM, 4) == ""
    assert isinstance(bench.rate.spend(Venue.USDM, 1), RateBlocked)
    bench.rate.saw(Venue.USDM, used_weight={"1M": 1}, order_count={})
    assert isinstance(bench.rate.spend(Venue.USDM, 1), RateBlocked)
    key, answer = bench.ask()
    assert isinstance(answer, Admitted)
    assert isinstance(bench.ask()[1], Blocked)
    bench.tell(key, answer, None, seen="orders 10000 20")
    assert isinstance(bench.ask(EffectKind.REDUCE)[1], Blocked)


def test_headers_that_are_too_old_to_speak_of_this_window_are_not_believed(redis_url: str) -> None:
    now = [100.0]
    with Redis.from_url(redis_url) as redis:
        gate = RateGate(redis, NAMES, RatePolicy(), monotonic=lambda: now[0])
        gate.saw(Venue.USDM, used_weight={"1M": 96}, order_count={})
        now[0] += 2.1
        assert gate.take_seen(Venue.USDM) == ""


def test_request_larger_than_its_whole_share_passes_when_nothing_else_is_used(bench: Bench) -> None:
    assert bench.rate.spend(Venue.USDM, 500) == ""
    assert isinstance(bench.rate.spend(Venue.USDM, 1), RateBlocked)


def test_observing_gate_counts_and_says_what_it_would_have_blocked(bench: Bench) -> None:
    watching = Bench(bench.redis, OFF, RatePolicy(mode=GateMode.OBSERVE, use_percent=100, reserve_percent=25))
    watching.now_ms = bench.now_ms
    answers = [watching.ask()[1] for _ in range(20)]
    assert [getattr(answer, "would_block", None) for answer in answers] == [""] * 15 + ["rate:orders"] * 5
    assert isinstance(bench.ask(EffectKind.REDUCE)[1], Blocked)
    off = Bench(bench.redis, OFF, RatePolicy(mode=GateMode.OFF), owner="off")
    assert all(getattr(off.ask()[1], "would_block", None) == "" for _ in range(40))


def test_limits_of_binance_hold_until_the_exchanges_own_are_known(bench: Bench) -> None:
    bench.redis.delete(*NAMES.rates("usdm"))
    assert bench.rate.limits(Venue.USDM) is None
    assert bench.rate.spend(Venue.USDM, 2_400) == ""
    assert isinstance(bench.rate.spend(Venue.USDM, 1), RateBlocked)
    bench.rate.publish(Venue.USDM, DEFAULTS[Venue.USDM])
    assert limits_text(bench.rate.limits(Venue.USDM) or ()) == limits_text(DEFAULTS[Venue.USDM])


def test_pause_of_the_address_stops_everything_and_one_of_the_account_only_new_orders(bench: Bench) -> None:
    pause = Pause(bench.redis, NAMES)
    pause.close("usdm", for_ms=60_000, why="429:too_many_orders", whole_address=False)
    assert [admitted(bench, kind, 1) for kind in EffectKind] == [0, 0, 1, 1]
    assert bench.rate.spend(Venue.USDM, 1) == ""
    assert pause.remaining_ms("usdm") == 0
    pause.close("usdm", for_ms=60_000, why="418:banned", whole_address=True)
    assert [admitted(bench, kind, 1) for kind in EffectKind] == [0, 0, 0, 0]
    told = bench.rate.spend(Venue.USDM, 1)
    assert isinstance(told, RateBlocked)
    assert told.why == "pause:418:banned"
    assert told.for_ms is not None
    assert 0 < told.for_ms <= 60_000


@pytest.mark.parametrize("begun_ms", [0, 1, 500, 998, 999])
def test_what_was_sent_counts_for_a_whole_window_wherever_in_its_part_it_fell(bench: Bench, begun_ms: int) -> None:
    whole = Bench(bench.redis, OFF, WHOLE)
    whole.set_time(whole.now_ms + begun_ms)
    assert admitted(whole, EffectKind.OPEN) == 20
    whole.wait(9_999)
    assert admitted(whole, EffectKind.OPEN) == 0


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=st.lists(st.tuples(st.integers(0, 4_000), st.integers(1, 8)), max_size=60), offset=st.integers(0, 9_999))
def test_no_window_of_the_exchange_ever_holds_more_than_the_limit(
    bench: Bench, steps: list[tuple[int, int]], offset: int
) -> None:
    """Wherever the exchange's own windows begin, and however the requests fall."""
    bench.redis.flushdb()
    whole = Bench(bench.redis, OFF, WHOLE)
    whole.rate.publish(Venue.USDM, LIMITS)
    whole.set_time(whole.now_ms)
    windows: dict[int, int] = {}
    for pause_ms, burst in steps:
        whole.wait(pause_ms)
        count = admitted(whole, EffectKind.OPEN, burst)
        window = (whole.now_ms + offset) // 10_000
        windows[window] = windows.get(window, 0) + count
        assert windows[window] <= 20
        assert len(whole.redis.hkeys(NAMES.rates("usdm")[2])) <= 12
