"""The worst answers at the real horizons: nothing is scaled down here, so it takes as long as in production."""

import pytest

from tests.chaos.faults import READ_PATH
from tests.chaos.plans import Place
from tests.chaos.runner import Arena, arena
from tests.chaos.test_chaos_scenarios import strike_once
from tests.chaos.workload import market

REAL = """
sweep: {interval_ms: 200}
poll: {interval_ms: 200, weight_share: "0.9"}
"""
LOST = "answer_lost_after_execution"


@pytest.mark.timeout(600)
def test_late_lost_and_unseen_orders_are_placed_once_at_the_real_horizons(place: Place) -> None:
    """Four orders, each answered in another bad way at the same time, and each with its own way to the end."""
    with arena(place.folder / "real", redis=place.redis, nursery=place.nursery, config=REAL) as one:
        one.start()
        one.warm_up()
        one.here.exchange.faults(
            strike_once(one, "late-and-executed", action="delay_before_ms", ms=1_500),
            strike_once(one, "too-late", action="delay_before_ms", ms=4_000),
            strike_once(one, "too-late-and-silent", action="delay_before_ms", ms=4_000),
            strike_once(one, "too-late-and-silent", action=LOST),
            strike_once(one, "unseen-for-8-s", action=LOST),
            {"name": "lag", "action": "read_lag_ms", "ms": 8_000,
             "match": {"method": "GET", "path": READ_PATH, "symbol": "ETHUSDT"}},
        )  # fmt: skip
        one.submit([market("late-and-executed"), market("too-late"), market("too-late-and-silent")])
        one.submit([market("unseen-for-8-s", symbol="ETHUSDT")])
        left = one.rest(timeout_s=150)
        assert left == [], one.here._report()
        findings = one.result().findings
        assert not findings, str(findings)
        struck = one.here.exchange.struck()
        assert struck[:5] == [1] * 5
        assert struck[5] > 0
        assert_late_order_was_executed_and_not_repeated(one)
        assert_order_after_its_fence_was_refused_and_sent_again(one)
        assert_order_refused_unheard_was_sent_again_after_proof(one)
        assert_order_that_is_not_shown_was_waited_for(one)


def assert_late_order_was_executed_and_not_repeated(ended: Arena) -> None:
    assert [one.outcome for one in ended.here.sent("late-and-executed")] == ["ACCEPTED"]


def assert_order_after_its_fence_was_refused_and_sent_again(ended: Arena) -> None:
    first, second = ended.here.sent("too-late")
    assert (first.outcome, second.outcome) == ("REFUSED", "ACCEPTED")
    assert first.recv_window_ms == 3_000


def assert_order_refused_unheard_was_sent_again_after_proof(ended: Arena) -> None:
    first, second = ended.here.sent("too-late-and-silent")
    assert (first.outcome, second.outcome) == ("ABSENT", "ACCEPTED")
    assert "witness_order_id" in (first.evidence or "")
    assert second.timestamp_ms >= first.fence_ms + 2_000 + 5_000


def assert_order_that_is_not_shown_was_waited_for(ended: Arena) -> None:
    (attempt,) = ended.here.sent("unseen-for-8-s")
    assert attempt.outcome == "ACCEPTED"
    assert attempt.settled_at_ms is not None
    assert attempt.settled_at_ms - attempt.dispatched_at_ms >= 7_500


def test_fill_between_cancel_and_confirmation_is_booked(place: Place) -> None:
    """The cancel is on its way to the engine when the price comes: the order is filled, the cancel finds nothing."""
    with arena(place.folder / "cancel", redis=place.redis, nursery=place.nursery, config=REAL) as one:
        one.start()
        one.submit([market("resting", order_type="LIMIT", price="19000.00")])
        one.here.wait_for_state("resting", "ACCEPTED")
        slow = {"action": "delay_before_ms", "ms": 1_500, "match": {"method": "DELETE", "times": 1}}
        one.here.exchange.faults(slow)
        one.here.cancel("cancel", "resting")
        one.here.until(lambda: one.here.exchange.struck() == [1], "the cancel to be on its way")
        one.here.exchange.price("BTCUSDT", "18999.00")
        (row,) = one.here.wait_until_booked("resting")
        assert row.state == "FILLED"
        assert one.here.wait_for_state("cancel", "DONE", "REJECTED").state == "DONE"
        findings = one.result().findings
        assert not findings, str(findings)
