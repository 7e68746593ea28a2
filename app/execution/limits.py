"""The exchange's limits as the workers use them: learned from exchangeInfo, spent before a question is asked."""

from collections.abc import Mapping
from typing import Final

from app.exchange.errors import ExchangeQueryError
from app.exchange.models import RateLimit
from app.exchange.weights import weight_of
from app.execution.context import ExecutionContext
from app.job_safety.errors import StoreUnavailableError
from app.job_safety.outcome import Advice, AlertLevel, Certainty, Failure, FailureClass, Venue
from app.job_safety.rate_limit import DEFAULTS, Limit, RateBlocked

RULE: Final = "held_back"
"""The rule of a question that we did not ask, so as not to break a limit or disturb a pause."""

LOOK_AGAIN_S: Final = 30.0
_LIMITS_QUESTIONS: Final = frozenset({"futures_exchange_info", "get_exchange_info"})
_KINDS: Final = {"REQUEST_WEIGHT": "weight", "ORDERS": "orders", "RAW_REQUESTS": "raw"}


def learn(context: ExecutionContext, venue: Venue) -> None:
    """Read the venue's limits and make them known to everybody.

    Raises:
        ExchangeQueryError: the exchange did not answer.
        StoreUnavailableError: Redis did not answer.
    """
    context.rate.publish(venue, [_limit(one) for one in context.rules.info(venue).rate_limits if one.kind in _KINDS])


def ensure_known(context: ExecutionContext, venue: Venue) -> None:
    """Learn the venue's limits before this process sends it anything, unless somebody has.

    Without an answer Binance's published limits hold, and it is tried again a little later.
    """
    now = context.clock.monotonic()
    if not context.rate.is_on or now < context.limits_looked.get(venue, now):
        return
    context.limits_looked[venue] = now + LOOK_AGAIN_S
    try:
        if context.rate.limits(venue) is None:
            learn(context, venue)
    except ExchangeQueryError as error:
        context.record.event("limits_unknown", level="warning", venue=venue.value, error=str(error))
    except StoreUnavailableError:
        pass  # admission says so next, and decides what that means


def weight_per_minute(context: ExecutionContext, venue: Venue) -> int:
    """Return how much request weight the venue allows per minute, as far as it is known."""
    try:
        known = context.rate.limits(venue)
    except StoreUnavailableError:
        known = None
    rates = [one.most * 60_000 // one.window_ms for one in known or DEFAULTS[venue] if one.kind == "weight"]
    return max(min(rates, default=1), 1)


def hold_back(context: ExecutionContext, venue: Venue, endpoint: str, parameters: Mapping[str, str]) -> Failure | None:
    """Count a question, and return why it must not be asked now; None if it may.

    Without Redis it may: a question opens no risk, and the exchange's own answer closes the gate again.
    """
    if not context.rate.is_on:
        return None
    if endpoint not in _LIMITS_QUESTIONS:
        ensure_known(context, venue)
    try:
        told = context.rate.spend(venue, weight_of(venue, endpoint, parameters))
    except StoreUnavailableError:
        return None
    if not isinstance(told, RateBlocked):
        if told:
            context.record.event("would_block", gate=told.partition(":")[0], reason=told, venue=venue.value)
        return None
    gate = told.why.partition(":")[0]
    context.record.event("question_held_back", gate=gate, reason=told.why, venue=venue.value, endpoint=endpoint)
    return Failure(
        failure_class=FailureClass.RATE_LIMITED,
        certainty=Certainty.UNKNOWN,
        advice=Advice.RETRY_AT,
        counts_for_breaker=False,
        alert=AlertLevel.NONE,
        rule=RULE,
        message=told.why,
        retry_after_s=None if told.for_ms is None else -(-told.for_ms // 1000),
    )


def _limit(told: RateLimit) -> Limit:
    return Limit(kind=_KINDS[told.kind], window_ms=told.interval_s * 1000, most=told.limit)
