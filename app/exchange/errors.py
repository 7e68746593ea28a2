"""What the exchange edge raises. Placements and cancels raise nothing: every outcome there is a value.

RetryableError
├── ExchangeQueryError          a read was not answered usably; it proves nothing
└── ExchangeClockUnknownError   no trustworthy estimate of the exchange's time: nothing may be pinned
"""

from app.job_safety.errors import RetryableError
from app.job_safety.outcome import Advice, AlertLevel, Certainty, Failure, FailureClass


class ExchangeQueryError(RetryableError):
    """A query failed. A failed query is never evidence, neither for nor against an order.

    `failure` is the classified answer (a closed gate or a ban is told by its class and its times).
    """

    def __init__(self, failure: Failure, query: str = "") -> None:
        super().__init__(failure, query)
        self.failure = failure
        self.query = query

    def __str__(self) -> str:
        """Return the query and the rule that its answer matched."""
        told = f"HTTP {self.failure.http_status}, code {self.failure.code}, {self.failure.message[:200]!r}"
        return f"{self.query or 'query'}: {self.failure.rule} ({told})"


class ExchangeClockUnknownError(RetryableError):
    """The exchange's clock cannot be estimated well enough to pin a timestamp (fail closed)."""


class AnswerShapeError(ValueError):
    """A body is not what the documentation says: a field is missing, of another type, or not ours."""


def unreadable(
    *, rule: str, message: str, http_status: int | None = None, advice: Advice = Advice.RESEND_AFTER_PROOF
) -> Failure:
    """Return the failure of an answer that came but cannot be relied on."""
    return Failure(
        failure_class=FailureClass.OUTCOME_UNKNOWN,
        certainty=Certainty.UNKNOWN,
        advice=advice,
        counts_for_breaker=True,
        alert=AlertLevel.HIGH,
        rule=rule,
        http_status=http_status,
        message=message[:500],
    )
