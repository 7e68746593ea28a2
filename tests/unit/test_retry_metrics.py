"""Rates over windows, spikes whose baseline does not follow them, anomalies (S2.18-S2.22, S2.28)."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.job_safety import retry_metrics
from app.job_safety.retry_metrics import AnomalyRule, Ended, SpikeRule, judge_spike, windows

RULE = SpikeRule()
MINUTE = 60_000


def test_rates_of_what_ended_are_shares_and_absent_without_any() -> None:
    ended = Ended(succeeded=3, failed=1, attempts=10)
    assert (ended.success_rate, ended.failure_rate, ended.avg_attempts) == (0.75, 0.25, 2.5)
    nothing = Ended()
    assert (nothing.success_rate, nothing.failure_rate, nothing.avg_attempts) == (None, None, None)


def test_rate_is_per_minute_of_its_window() -> None:
    assert retry_metrics.rate_per_minute(120, 3600) == 2.0
    assert retry_metrics.rate_per_minute(0, 3600) == 0.0


def test_block_rate_counts_blocks_among_blocks_and_attempts() -> None:
    assert retry_metrics.block_rate(1, 3) == 0.25
    assert retry_metrics.block_rate(0, 0) is None


def test_steady_retries_are_no_spike() -> None:
    assert not judge_spike([5, 6, 4, 5, 7, 5, 6, 5, 4, 6, 5, 5], 8, RULE).is_spike


def test_three_times_the_baseline_is_a_spike() -> None:
    spike = judge_spike([5] * 12, 15, RULE)
    assert (spike.is_spike, spike.baseline, spike.threshold) == (True, 5.0, 15.0)
    assert not judge_spike([5] * 12, 14, RULE).is_spike


def test_few_retries_after_none_are_no_spike() -> None:
    assert not judge_spike([0] * 24, RULE.least - 1, RULE).is_spike
    assert judge_spike([0] * 24, RULE.least, RULE).is_spike


def test_wildly_varying_retries_need_more_than_three_times_the_median() -> None:
    """The median absolute deviation raises the threshold where much variation is usual."""
    varied = [10, 60, 5, 80, 20, 70, 10, 90, 30, 60, 10, 80]
    spike = judge_spike(varied, 140, RULE)
    assert spike.threshold > 3 * spike.baseline
    assert not spike.is_spike


def test_baseline_does_not_follow_a_spike_that_lasts() -> None:
    """An hour of storm after an hour of quiet: each of its windows is a spike, the last one as the first."""
    history = [4] * 12
    for _ in range(12):
        spike = judge_spike(history[-RULE.history :], 200, RULE)
        assert spike.is_spike
        assert spike.baseline == 4.0
        history.append(200)


def test_one_old_spike_does_not_hide_the_next() -> None:
    assert judge_spike([4, 4, 500, 4, 4, 4, 4, 4, 4, 4, 4, 4], 40, RULE).is_spike


@given(st.lists(st.integers(0, 1000), max_size=24), st.integers(0, 5000))
def test_running_window_never_changes_its_own_baseline(completed: list[int], running: int) -> None:
    one, other = judge_spike(completed, running, RULE), judge_spike(completed, running + 1, RULE)
    assert (one.baseline, one.threshold) == (other.baseline, other.threshold)


def test_windows_without_retries_are_zeros_and_the_running_one_stands_apart() -> None:
    rule = replace(RULE, window_s=300, samples=2)
    now_ms = 300_000 * 100 + 1
    completed, running = windows({100: 7, 99: 3, 96: 1, 95: 9}, now_ms=now_ms, rule=rule)
    assert (completed, running) == ([1, 0, 0, 3], 7)


@pytest.mark.parametrize(
    ("retried", "tried", "is_odd"), [(5, 9, False), (5, 10, False), (6, 10, True), (0, 100, False), (51, 100, True)]
)
def test_share_is_odd_above_half_once_ten_were_tried(retried: int, tried: int, is_odd: bool) -> None:
    assert retry_metrics.share_is_odd(retried=retried, tried=tried, rule=AnomalyRule()) is is_odd
