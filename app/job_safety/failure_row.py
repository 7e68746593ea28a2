"""The shape of a row of the failure table, and what each class of failure means unless its row says otherwise."""

from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Literal, TypeAlias

from app.job_safety.outcome import Advice, AlertLevel, Certainty, FailureClass, Venue

Method: TypeAlias = Literal["order", "cancel", "query"]
"""What the request was for. An order and a cancel change something (a mutation); a query only reads."""

BOTH_VENUES = frozenset(Venue)
ALL_METHODS: frozenset[Method] = frozenset({"order", "cancel", "query"})
MUTATIONS: frozenset[Method] = frozenset({"order", "cancel"})
ORDER: frozenset[Method] = frozenset({"order"})
CANCEL: frozenset[Method] = frozenset({"cancel"})
QUERY: frozenset[Method] = frozenset({"query"})

ANY_STATUS = frozenset(range(100, 600))
SUCCESS = frozenset(range(200, 300))
REDIRECT = frozenset(range(300, 400))
SERVER_ERROR = frozenset(range(500, 600))
SENDER_ERROR = frozenset(range(400, 500)) - {408, 409, 418, 429}
"""Where a code means what it says. 408 is a timeout, 409 a half success; 418 and 429 outrank every code."""


class Code(StrEnum):
    """What an answer may hold in place of a code."""

    ABSENT = "absent"
    UNREADABLE = "unreadable"
    """There is a code, but not one that can be a Binance code. No row lists it."""


class Gate(StrEnum):
    """What a failure closes for everybody, not only for the intent that met it."""

    NONE = "none"
    ORDERS = "orders"
    """New orders of this account: the exchange counts orders per account."""
    VENUE = "venue"
    """Every request to this venue, queries too: the exchange counts requests, and bans, per IP address."""
    ACCOUNT = "account"
    """Every order of this account until a person has looked."""


class TransportFault(StrEnum):
    """How a request failed without an answer. The gateway maps its library's exceptions to these, and to nothing else.

    Only the first five prove that no byte of the request was read by the exchange (BINANCE.md section 6). In doubt
    take OTHER: a TLS error may come after the request was sent, a reset or a timeout usually does.
    """

    CONNECTION_REFUSED = "connection_refused"
    DNS = "dns"
    CONNECT_TIMEOUT = "connect_timeout"
    PROXY_REFUSED = "proxy_refused"
    """The proxy could not be connected to. A proxy that answers with an error is OTHER."""
    CERTIFICATE = "certificate"
    """The server's certificate was not accepted; any other TLS error is OTHER."""
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One kind of answer: the key by which it is recognized, and the verdict.

    An answer matches if its venue, method, status and code are in the row's, and, where the row names texts, if the
    exchange's `msg` is one of `messages` or begins with one of `prefixes`. `codes` None takes any code, or none at
    all. Of the matching rows the first counts.
    """

    rule: str
    meaning: str
    venues: frozenset[Venue]
    methods: frozenset[Method]
    statuses: frozenset[int]
    codes: frozenset[int | Code] | None
    messages: tuple[str, ...]
    prefixes: tuple[str, ...]
    failure_class: FailureClass
    certainty: Certainty
    advice: Advice
    counts_for_breaker: bool
    alert: AlertLevel
    gate: Gate

    def __post_init__(self) -> None:
        sends_again = self.advice in {Advice.RETRY_AFTER_DELAY, Advice.RETRY_AT}
        if self.certainty is Certainty.UNKNOWN and sends_again and self.methods & MUTATIONS:
            raise ValueError(f"{self.rule}: what may have been executed must not be sent again without proof")
        if self.certainty is Certainty.ACCEPTED:
            raise ValueError(f"{self.rule}: a failure is never an acceptance")

    def matches(self, *, venue: Venue, method: Method, http_status: int, code: int | Code, message: str) -> bool:
        """Return whether an answer is of this row's kind."""
        if venue not in self.venues or method not in self.methods or http_status not in self.statuses:
            return False
        if self.codes is not None and code not in self.codes:
            return False
        if self.messages or self.prefixes:
            return message in self.messages or message.startswith(self.prefixes)
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class _Verdict:
    certainty: Certainty
    advice: Advice
    counts_for_breaker: bool
    alert: AlertLevel
    gate: Gate = Gate.NONE


def _verdict(
    certainty: Certainty, advice: Advice, alert: AlertLevel, *, breaker: bool = False, gate: Gate = Gate.NONE
) -> _Verdict:
    return _Verdict(certainty=certainty, advice=advice, counts_for_breaker=breaker, alert=alert, gate=gate)


_REFUSED, _UNKNOWN = Certainty.REFUSED, Certainty.UNKNOWN
_BY_CLASS = MappingProxyType(
    {
        FailureClass.NOT_EXECUTED_RETRYABLE: _verdict(
            _REFUSED, Advice.RETRY_AFTER_DELAY, AlertLevel.WARNING, breaker=True
        ),
        FailureClass.RATE_LIMITED: _verdict(_REFUSED, Advice.RETRY_AT, AlertLevel.WARNING, gate=Gate.VENUE),
        FailureClass.BANNED: _verdict(_REFUSED, Advice.RETRY_AT, AlertLevel.CRITICAL, gate=Gate.VENUE),
        FailureClass.CLOCK_SKEW: _verdict(_REFUSED, Advice.RETRY_AFTER_DELAY, AlertLevel.HIGH),
        FailureClass.OUTCOME_UNKNOWN: _verdict(_UNKNOWN, Advice.RESEND_AFTER_PROOF, AlertLevel.HIGH, breaker=True),
        FailureClass.DUPLICATE_ID: _verdict(_UNKNOWN, Advice.RESEND_AFTER_PROOF, AlertLevel.WARNING),
        FailureClass.REJECTED_BUSINESS: _verdict(_REFUSED, Advice.NEVER, AlertLevel.INFO),
        FailureClass.INVALID_REQUEST: _verdict(_REFUSED, Advice.NEVER, AlertLevel.HIGH),
        FailureClass.AUTH: _verdict(_REFUSED, Advice.PERSON, AlertLevel.CRITICAL, gate=Gate.ACCOUNT),
        FailureClass.EXCHANGE_DOWN: _verdict(_REFUSED, Advice.RETRY_AFTER_DELAY, AlertLevel.HIGH, breaker=True),
    }
)


def row(
    failure_class: FailureClass,
    rule: str,
    meaning: str,
    *,
    venues: frozenset[Venue] = BOTH_VENUES,
    methods: frozenset[Method] = ALL_METHODS,
    statuses: frozenset[int] = SENDER_ERROR,
    codes: frozenset[int | Code] | None = None,
    messages: tuple[str, ...] = (),
    prefixes: tuple[str, ...] = (),
    certainty: Certainty | None = None,
    advice: Advice | None = None,
    counts_for_breaker: bool | None = None,
    alert: AlertLevel | None = None,
    gate: Gate | None = None,
) -> Row:
    """Return a row with its class's verdict (BINANCE.md section 7), except where an argument says otherwise."""
    usual = _BY_CLASS[failure_class]
    return Row(
        rule=rule,
        meaning=meaning,
        venues=venues,
        methods=methods,
        statuses=statuses,
        codes=codes,
        messages=messages,
        prefixes=prefixes,
        failure_class=failure_class,
        certainty=usual.certainty if certainty is None else certainty,
        advice=usual.advice if advice is None else advice,
        counts_for_breaker=usual.counts_for_breaker if counts_for_breaker is None else counts_for_breaker,
        alert=usual.alert if alert is None else alert,
        gate=usual.gate if gate is None else gate,
    )
