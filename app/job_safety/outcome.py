"""What became of one request, told by certainty. At the venue port every outcome is normal and none is an exception.

NotSent   the request certainly never left           the same intent may be sent again
Refused   it arrived and was certainly not executed  this attempt is over; earlier ones may not be
Accepted  it was executed (or rests on the book)     proof: welcome from anyone, in any state
Unknown   nobody knows                               reconcile; never send again on the strength of this
"""

from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import NamedTuple, TypeAlias


class Venue(StrEnum):
    """Where an order goes. Values are stored: never rename."""

    USDM = "usdm"
    """USD-M futures (`/fapi`)."""
    SPOT = "spot"
    """Spot (`/api`)."""


class Certainty(StrEnum):
    """How sure we are that a request was, or was not, executed. Values are stored: never rename."""

    NOT_SENT = "NOT_SENT"
    REFUSED = "REFUSED"
    ACCEPTED = "ACCEPTED"
    UNKNOWN = "UNKNOWN"


class FailureClass(StrEnum):
    """What kind of failure an answer is (BINANCE.md section 7). Values are stored: never rename."""

    NOT_EXECUTED_RETRYABLE = "not_executed_retryable"
    RATE_LIMITED = "rate_limited"
    BANNED = "banned"
    CLOCK_SKEW = "clock_skew"
    OUTCOME_UNKNOWN = "outcome_unknown"
    DUPLICATE_ID = "duplicate_id"
    REJECTED_BUSINESS = "rejected_business"
    INVALID_REQUEST = "invalid_request"
    AUTH = "auth"
    EXCHANGE_DOWN = "exchange_down"


class Advice(StrEnum):
    """What may be done next with the same intent. Values are stored: never rename."""

    RESEND_AFTER_PROOF = "resend_after_proof"
    """The same client order id, once reconcile has proven the attempt absent."""
    RETRY_AFTER_DELAY = "retry_after_delay"
    """Certainly not executed: again after backoff, within validity."""
    RETRY_AT = "retry_at"
    """Certainly not executed: not before the time the exchange named; the gate is closed for everybody until then."""
    NEVER = "never"
    """A new decision of the producer is needed."""
    PERSON = "person"
    """Configuration or credentials: a person must look."""


class AlertLevel(StrEnum):
    """How loudly a failure is told."""

    NONE = "none"
    INFO = "info"
    WARNING = "warning"
    HIGH = "high"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A classified answer: the row of the table that matched, with what the exchange said.

    `retry_at_ms` is exchange time (epoch ms) if the answer named one (a ban); `retry_after_s` is a delay in seconds.
    """

    failure_class: FailureClass
    certainty: Certainty
    advice: Advice
    counts_for_breaker: bool
    alert: AlertLevel
    rule: str
    http_status: int | None = None
    code: int | None = None
    message: str = ""
    retry_after_s: int | None = None
    retry_at_ms: int | None = None


class ExchangeOrder(NamedTuple):
    """An order as the exchange tells of it. Quantities and prices are exact; times are exchange milliseconds.

    `status` is Binance's word (NEW, PARTIALLY_FILLED, FILLED, CANCELED, EXPIRED, EXPIRED_IN_MATCH, REJECTED; algo:
    NEW, TRIGGERING, TRIGGERED, FINISHED, CANCELED, REJECTED, EXPIRED). For an algo order `order_id` is the algoId and
    `actual_order_id` the real order it became. A tuple, as `IntentRow`: every answer makes one.
    """

    venue: Venue
    symbol: str
    order_id: int
    client_order_id: str
    side: str
    order_type: str
    status: str
    quantity: Decimal
    executed_quantity: Decimal
    price: Decimal = Decimal(0)
    average_price: Decimal = Decimal(0)
    time_in_force: str = ""
    reduce_only: bool = False
    time_ms: int = 0
    update_time_ms: int = 0
    is_algo: bool = False
    actual_order_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NotSent:
    """No byte of the request reached the exchange, with certainty."""

    failure: Failure | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The exchange answered, and the answer means: this request was not executed."""

    failure: Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """The exchange took the order: an integer order id and our own client order id were in the reply."""

    order: ExchangeOrder
    raw: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown:
    """The request may have been executed. Only reconcile may say more."""

    failure: Failure


Outcome: TypeAlias = NotSent | Refused | Accepted | Unknown
