"""When to try again. Every number here is in milliseconds of the exchange's time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.job_safety.errors import InvariantViolatedError
from app.job_safety.outcome import Advice, AlertLevel, Certainty, Failure, FailureClass
from app.job_safety.retry_policy import (
    Expire,
    GiveUp,
    NeedsPerson,
    NeedsProof,
    RetryAt,
    RetryLimits,
    Snooze,
    ask_again,
    decide,
    pause_until_ms,
    snooze_until,
)

NOW = 1_000_000
LIMITS = RetryLimits()
C = FailureClass


def longest(limit_ms):
    return limit_ms


def none(_limit_ms):
    return 0


def failure(failure_class=C.NOT_EXECUTED_RETRYABLE, advice=Advice.RETRY_AFTER_DELAY, **kwargs):
    values = {
        "failure_class": failure_class,
        "certainty": Certainty.REFUSED,
        "advice": advice,
        "counts_for_breaker": False,
        "alert": AlertLevel.NONE,
        "rule": "a_rule",
    }
    return Failure(**(values | kwargs))


def judge(what, attempt=1, *, valid_until_ms=NOW + 30_000, policy=LIMITS, jitter=longest):
    return decide(
        failure=what, attempt=attempt, now_ms=NOW, valid_until_ms=valid_until_ms, policy=policy, jitter=jitter
    )


@pytest.mark.parametrize(("attempt", "ceiling_ms"), [(1, 200), (2, 400), (3, 800), (4, 1600)])
def test_pause_doubles_and_chance_takes_anything_up_to_it(attempt, ceiling_ms):
    asked = []

    def half(limit_ms):
        asked.append(limit_ms)
        return limit_ms // 2

    assert judge(failure(), attempt, jitter=longest) == RetryAt(at_ms=NOW + ceiling_ms, reason="a_rule")
    assert judge(failure(), attempt, jitter=half) == RetryAt(at_ms=NOW + ceiling_ms // 2, reason="a_rule")
    assert judge(failure(), attempt, jitter=none) == RetryAt(at_ms=NOW, reason="a_rule")
    assert asked == [ceiling_ms]


def test_pause_never_grows_beyond_its_cap():
    for attempt in (9, 10, 60, 100_000):
        decision = judge(failure(), attempt, valid_until_ms=None)
        assert decision.at_ms <= NOW + 60_000
    assert decision.at_ms == NOW + 60_000


@pytest.mark.parametrize(("attempt", "ceiling_ms"), [(1, 1000), (2, 2000), (4, 8000), (7, 60_000)])
def test_exchange_that_is_down_is_left_alone_longer(attempt, ceiling_ms):
    assert judge(failure(C.EXCHANGE_DOWN), attempt, valid_until_ms=None).at_ms == NOW + ceiling_ms


def test_intent_that_expires_is_given_up_after_its_last_attempt():
    assert isinstance(judge(failure(), 4), RetryAt)
    assert isinstance(judge(failure(), 5), GiveUp)
    assert isinstance(judge(failure(), 6), GiveUp)


def test_intent_that_does_not_expire_is_never_given_up_for_the_number_of_attempts():
    """A cancel or a protective order that is dropped can ruin a position."""
    for what in (failure(), failure(C.CLOCK_SKEW), failure(C.RATE_LIMITED, Advice.RETRY_AT)):
        assert isinstance(judge(what, 1000, valid_until_ms=None), RetryAt)


def test_clock_skew_is_tried_twice_more():
    assert [type(judge(failure(C.CLOCK_SKEW), attempt)) for attempt in (1, 2, 3)] == [RetryAt, RetryAt, GiveUp]


def test_intent_expires_if_it_could_be_executed_after_its_validity():
    """Sent at the last moment, a request lives for one recvWindow more."""
    last = NOW + 200 + LIMITS.recv_window_ms
    assert isinstance(judge(failure(), valid_until_ms=last), RetryAt)
    assert isinstance(judge(failure(), valid_until_ms=last - 1), Expire)
    assert isinstance(judge(failure(), valid_until_ms=NOW - 1), Expire)


def test_pause_that_the_exchange_named_is_never_shortened():
    what = failure(C.RATE_LIMITED, Advice.RETRY_AT, retry_after_s=7)
    assert judge(what, jitter=none).at_ms == NOW + 7000
    assert judge(what, jitter=longest).at_ms == NOW + 7000 + LIMITS.spread_ms


def test_retry_after_of_a_service_that_is_down_is_honored_too():
    what = failure(C.EXCHANGE_DOWN, retry_after_s=9)
    assert judge(what, jitter=none).at_ms == NOW + 9000


def test_ban_lasts_until_the_later_of_two_named_times():
    late_date = failure(C.BANNED, Advice.RETRY_AT, retry_after_s=7, retry_at_ms=NOW + 8000)
    late_delay = failure(C.BANNED, Advice.RETRY_AT, retry_after_s=9, retry_at_ms=NOW + 8000)
    assert judge(late_date, jitter=none).at_ms == NOW + 8000
    assert judge(late_delay, jitter=none).at_ms == NOW + 9000
    over = failure(C.BANNED, Advice.RETRY_AT, retry_at_ms=NOW - 5000)
    assert judge(over, jitter=none).at_ms == NOW


def test_ban_without_a_named_end_doubles_and_has_a_cap():
    what = failure(C.BANNED, Advice.RETRY_AT)
    pauses = [
        pause_until_ms(failure=what, strikes=strikes, now_ms=NOW, policy=LIMITS) - NOW for strikes in (1, 2, 3, 50)
    ]
    assert pauses == [300_000, 600_000, 1_200_000, 259_200_000]


def test_rate_limit_without_a_named_end_waits_for_the_longest_window():
    what = failure(C.RATE_LIMITED, Advice.RETRY_AT)
    assert pause_until_ms(failure=what, strikes=3, now_ms=NOW, policy=LIMITS) == NOW + 60_000


def test_pause_that_outlasts_the_validity_expires_the_intent():
    assert isinstance(judge(failure(C.BANNED, Advice.RETRY_AT)), Expire)


@pytest.mark.parametrize("advice", Advice)
@pytest.mark.parametrize("attempt", [1, 5, 99])
def test_uncertain_outcome_needs_proof_whatever_it_advises(advice, attempt):
    what = failure(C.OUTCOME_UNKNOWN, advice, certainty=Certainty.UNKNOWN)
    assert judge(what, attempt) == NeedsProof(reason="a_rule")
    assert judge(what, attempt, valid_until_ms=NOW - 1) == NeedsProof(reason="a_rule")


@pytest.mark.parametrize(
    ("advice", "decision"),
    [
        (Advice.NEVER, GiveUp(reason="a_rule")),
        (Advice.PERSON, NeedsPerson(reason="a_rule")),
        (Advice.RESEND_AFTER_PROOF, NeedsProof(reason="a_rule")),
    ],
)
def test_advice_against_retrying_outranks_validity_and_attempts(advice, decision):
    assert judge(failure(advice=advice), 1) == decision
    assert judge(failure(advice=advice), 9, valid_until_ms=NOW - 1) == decision


def test_failure_that_claims_acceptance_is_our_bug():
    with pytest.raises(InvariantViolatedError):
        judge(failure(certainty=Certainty.ACCEPTED))


def test_attempts_are_numbered_from_one():
    with pytest.raises(ValueError, match="from 1"):
        judge(failure(), 0)


@pytest.mark.parametrize("wrong", [-1, 201])
def test_chance_outside_its_bounds_is_refused(wrong):
    with pytest.raises(ValueError, match="jitter"):
        judge(failure(), jitter=lambda _limit_ms: wrong)


@pytest.mark.parametrize("field", ["max_attempts", "backoff_base_ms", "snooze_ms"])
def test_limits_without_sense_are_refused(field):
    with pytest.raises(ValueError, match=field):
        RetryLimits(**{field: 0})


def test_query_is_asked_again_without_end():
    what = failure(certainty=Certainty.UNKNOWN)
    assert ask_again(failure=what, attempt=2, now_ms=NOW, policy=LIMITS, jitter=longest) == RetryAt(
        at_ms=NOW + 400, reason="a_rule"
    )
    assert ask_again(failure=what, attempt=5000, now_ms=NOW, policy=LIMITS, jitter=longest).at_ms == NOW + 60_000


def test_query_waits_out_a_ban_and_stops_for_a_bad_key():
    banned = failure(C.BANNED, Advice.RETRY_AT, certainty=Certainty.UNKNOWN, retry_at_ms=NOW + 90_000)
    assert ask_again(failure=banned, attempt=1, now_ms=NOW, policy=LIMITS, jitter=none).at_ms == NOW + 90_000
    bad_key = failure(C.AUTH, Advice.PERSON, certainty=Certainty.UNKNOWN)
    assert isinstance(ask_again(failure=bad_key, attempt=1, now_ms=NOW, policy=LIMITS, jitter=none), NeedsPerson)
    bad_question = failure(C.INVALID_REQUEST, Advice.NEVER, certainty=Certainty.UNKNOWN)
    assert isinstance(ask_again(failure=bad_question, attempt=1, now_ms=NOW, policy=LIMITS, jitter=none), GiveUp)


def snooze(opens_at_ms, valid_until_ms=None, jitter=none):
    return snooze_until(
        opens_at_ms=opens_at_ms,
        now_ms=NOW,
        valid_until_ms=valid_until_ms,
        policy=LIMITS,
        jitter=jitter,
        reason="kill switch",
    )


def test_snooze_looks_again_when_the_gate_opens_and_no_earlier():
    assert snooze(NOW + 5000) == Snooze(at_ms=NOW + 5000, reason="kill switch")
    assert snooze(NOW + 5000, jitter=longest) == Snooze(at_ms=NOW + 5250, reason="kill switch")
    assert snooze(NOW - 5000) == Snooze(at_ms=NOW, reason="kill switch")


def test_snooze_looks_again_soon_at_a_gate_without_a_time():
    assert snooze(None) == Snooze(at_ms=NOW + 1000, reason="kill switch")


def test_snooze_ends_where_the_validity_ends():
    assert isinstance(snooze(NOW + 5000, NOW + 8000), Snooze)
    assert isinstance(snooze(NOW + 5000, NOW + 7999), Expire)


failures = st.builds(
    failure,
    failure_class=st.sampled_from(FailureClass),
    advice=st.sampled_from(Advice),
    certainty=st.sampled_from([Certainty.NOT_SENT, Certainty.REFUSED, Certainty.UNKNOWN]),
    retry_after_s=st.none() | st.integers(0, 10**6),
    retry_at_ms=st.none() | st.integers(0, 2 * NOW),
)


@given(
    what=failures,
    attempt=st.integers(1, 10_000),
    valid_until_ms=st.none() | st.integers(0, 10 * NOW),
    share=st.integers(0, 100),
)
def test_retry_is_certain_in_the_future_valid_and_never_before_a_named_time(what, attempt, valid_until_ms, share):
    decision = judge(what, attempt, valid_until_ms=valid_until_ms, jitter=lambda n: n * share // 100)
    if not isinstance(decision, RetryAt):
        return
    assert what.certainty is not Certainty.UNKNOWN
    assert decision.at_ms >= NOW
    assert what.retry_after_s is None or decision.at_ms >= NOW + what.retry_after_s * 1000
    if what.advice is Advice.RETRY_AT and what.retry_at_ms is not None:
        assert decision.at_ms >= what.retry_at_ms
    if valid_until_ms is not None:
        assert attempt < LIMITS.max_attempts
        assert decision.at_ms + LIMITS.recv_window_ms <= valid_until_ms
