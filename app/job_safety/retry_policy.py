"""When, and whether, to try again: a pure function of (failure, attempt, clock). Chance is passed in, so tests pin it.

The policy judges one attempt. That an intent may end only when no *earlier* attempt is in doubt is the journal's rule
(PROTOCOL.md), and stands above every GiveUp, Expire and NeedsPerson given here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from app.job_safety.errors import InvariantViolatedError
from app.job_safety.outcome import Advice, Certainty, Failure, FailureClass

Jitter: TypeAlias = Callable[[int], int]
"""Given n, returns a whole number from 0 to n, both included, e.g. `lambda n: random.randint(0, n)`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryLimits:
    """How patient we are. Milliseconds, unless the name says otherwise."""

    max_attempts: int = 5
    """For an intent that expires. One that does not (a cancel, a protective order) is never given up for this."""
    max_clock_skew_attempts: int = 3
    """The first, and two more after the clock was read again."""
    backoff_base_ms: int = 200
    exchange_down_base_ms: int = 1_000
    backoff_cap_ms: int = 60_000
    rate_limit_pause_ms: int = 60_000
    """When the exchange names no time: the longer of its two windows (10 s and 1 min)."""
    ban_pause_ms: int = 300_000
    """When the exchange names no time; doubled for every attempt."""
    ban_pause_cap_ms: int = 3 * 24 * 3_600_000
    spread_ms: int = 250
    """Added at random behind a pause that the exchange named, so that not everybody comes back at once."""
    snooze_ms: int = 1_000
    """How often to look at a closed gate that does not say when it opens."""
    recv_window_ms: int = 3_000
    """A request sent later than this before the end of an intent's validity could be executed after it."""

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) < (0 if name in {"spread_ms", "recv_window_ms"} else 1):
                raise ValueError(f"{name} is too small: {getattr(self, name)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryAt:
    """Send the same intent again, with the same client order id, not before `at_ms`. That is another attempt."""

    at_ms: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Snooze:
    """Look again at `at_ms`. Nothing was tried, so it costs no attempt."""

    at_ms: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveUp:
    """This attempt was the last: the intent's producer must decide anew."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Expire:
    """The intent's validity ends before it could be sent again."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NeedsProof:
    """The attempt may have been executed: reconcile decides, and nothing is sent before it has."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NeedsPerson:
    """Configuration or credentials: a person must look."""

    reason: str


RetryDecision: TypeAlias = RetryAt | GiveUp | Expire | NeedsProof | NeedsPerson


def decide(
    *,
    failure: Failure,
    attempt: int,
    now_ms: int,
    valid_until_ms: int | None,
    policy: RetryLimits,
    jitter: Jitter,
) -> RetryDecision:
    """Return what to do with an intent after attempt number `attempt` failed.

    An outcome that is not certain always needs proof, whatever the failure advises. For a failed query use `ask_again`.

    Args:
        failure: What the attempt ended in.
        attempt: Its number, from 1.
        now_ms: The exchange's time as we estimate it, epoch milliseconds.
        valid_until_ms: When the intent's validity ends, in the same time; None if it does not expire.
        policy: The limits.
        jitter: The source of chance.

    Raises:
        InvariantViolatedError: `failure` claims that the order was accepted.
        ValueError: `attempt` is less than 1.
    """
    if attempt < 1:
        raise ValueError(f"attempts are numbered from 1, not {attempt}")
    if failure.certainty is Certainty.ACCEPTED:
        raise InvariantViolatedError(f"a failure ({failure.rule}) cannot mean that the order was accepted")
    if failure.certainty is Certainty.UNKNOWN or failure.advice is Advice.RESEND_AFTER_PROOF:
        return NeedsProof(reason=failure.rule)
    if failure.advice is Advice.NEVER:
        return GiveUp(reason=failure.rule)
    if failure.advice is Advice.PERSON:
        return NeedsPerson(reason=failure.rule)
    if valid_until_ms is not None and attempt >= _attempts_allowed(failure, policy):
        return GiveUp(reason=f"{failure.rule}: no attempt left after {attempt}")
    at_ms = _retry_at_ms(failure=failure, attempt=attempt, now_ms=now_ms, policy=policy, jitter=jitter)
    if _is_too_late(at_ms, valid_until_ms, policy):
        return Expire(reason=f"{failure.rule}: could be sent again only after the end of its validity")
    return RetryAt(at_ms=at_ms, reason=failure.rule)


def ask_again(
    *, failure: Failure, attempt: int, now_ms: int, policy: RetryLimits, jitter: Jitter
) -> RetryAt | GiveUp | NeedsPerson:
    """Return when to repeat a *query* that failed, for the `attempt`-th time in a row.

    A query changes nothing, so it may be repeated without proof and without end; what it failed to tell stays unknown.
    """
    match failure.advice:
        case Advice.NEVER:
            return GiveUp(reason=failure.rule)
        case Advice.PERSON:
            return NeedsPerson(reason=failure.rule)
        case Advice.RETRY_AFTER_DELAY | Advice.RETRY_AT | Advice.RESEND_AFTER_PROOF:
            at_ms = _retry_at_ms(failure=failure, attempt=attempt, now_ms=now_ms, policy=policy, jitter=jitter)
            return RetryAt(at_ms=at_ms, reason=failure.rule)


def snooze_until(
    *,
    opens_at_ms: int | None,
    now_ms: int,
    valid_until_ms: int | None,
    policy: RetryLimits,
    jitter: Jitter,
    reason: str,
) -> Snooze | Expire:
    """Return when to look again at a gate that is closed now; it costs no attempt.

    Args:
        opens_at_ms: When the gate opens, if it says so; never looked at earlier than that.
        now_ms: The exchange's time as we estimate it.
        valid_until_ms: When the intent's validity ends; None if it does not expire.
        policy: The limits.
        jitter: The source of chance.
        reason: Which gate.
    """
    earliest_ms = now_ms + policy.snooze_ms if opens_at_ms is None else max(now_ms, opens_at_ms)
    if _is_too_late(earliest_ms, valid_until_ms, policy):
        return Expire(reason=f"{reason}: closed until after the end of its validity")
    return Snooze(at_ms=earliest_ms + _at_most(policy.spread_ms, jitter), reason=reason)


def pause_until_ms(*, failure: Failure, strikes: int, now_ms: int, policy: RetryLimits) -> int:
    """Return until when a shared gate stays closed after a rate limit or a ban, the `strikes`-th in a row.

    What the exchange named is honored in full; where it named two times, the later one.
    """
    named = []
    if failure.retry_after_s is not None:
        named.append(now_ms + failure.retry_after_s * 1000)
    if failure.retry_at_ms is not None:
        named.append(failure.retry_at_ms)
    if named:
        return max(now_ms, *named)
    if failure.failure_class is FailureClass.BANNED:
        return now_ms + _doubled(policy.ban_pause_ms, strikes, policy.ban_pause_cap_ms)
    return now_ms + policy.rate_limit_pause_ms


def _retry_at_ms(*, failure: Failure, attempt: int, now_ms: int, policy: RetryLimits, jitter: Jitter) -> int:
    if failure.advice is Advice.RETRY_AT:
        until_ms = pause_until_ms(failure=failure, strikes=attempt, now_ms=now_ms, policy=policy)
        return until_ms + _at_most(policy.spread_ms, jitter)
    is_down = failure.failure_class is FailureClass.EXCHANGE_DOWN
    base_ms = policy.exchange_down_base_ms if is_down else policy.backoff_base_ms
    at_ms = now_ms + _at_most(_doubled(base_ms, attempt, policy.backoff_cap_ms), jitter)
    if failure.retry_after_s is None:
        return at_ms
    return max(at_ms, now_ms + failure.retry_after_s * 1000 + _at_most(policy.spread_ms, jitter))


def _attempts_allowed(failure: Failure, policy: RetryLimits) -> int:
    if failure.failure_class is FailureClass.CLOCK_SKEW:
        return min(policy.max_clock_skew_attempts, policy.max_attempts)
    return policy.max_attempts


def _is_too_late(at_ms: int, valid_until_ms: int | None, policy: RetryLimits) -> bool:
    return valid_until_ms is not None and at_ms + policy.recv_window_ms > valid_until_ms


def _doubled(base_ms: int, attempt: int, cap_ms: int) -> int:
    # The exponent is bounded: attempts of an intent that never expires have no end.
    return min(base_ms << min(attempt - 1, 32), cap_ms)


def _at_most(limit_ms: int, jitter: Jitter) -> int:
    chosen_ms = jitter(limit_ms)
    if not 0 <= chosen_ms <= limit_ms:
        raise ValueError(f"jitter({limit_ms}) returned {chosen_ms}")
    return chosen_ms
