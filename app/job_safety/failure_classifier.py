"""What an answer of the exchange, or the lack of one, means: which row of the failure table it is.

The key is (venue, method, HTTP status, code, exact text or its beginning), read from the answer's own fields: never a
search through a traceback, where a quantity of 0.503 looks like a status. What no row lists is UNKNOWN for a
mutation. A query changes nothing, so its failure says nothing about any attempt: its certainty is always UNKNOWN, read
as "no information", and its advice says when to ask again.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final

from app.clock import to_ms
from app.job_safety.failure_row import SUCCESS, Code, Gate, Method, Row, TransportFault
from app.job_safety.failure_table import BY_RULE, TABLE, TRANSPORT, UNLISTED
from app.job_safety.outcome import Advice, AlertLevel, Certainty, Failure, FailureClass, Venue

__all__ = [
    "Gate",
    "Method",
    "TransportFault",
    "classify_answer",
    "classify_transport",
    "counts_for_breaker",
    "describe",
    "gate_of",
]

MAX_PAUSE_S: Final = 7 * 24 * 3600
"""Longest pause that we believe an answer: the longest documented ban is 3 days."""
_MAX_MESSAGE_CHARS: Final = 300
_EXCERPT_BYTES: Final = 4 * _MAX_MESSAGE_CHARS
_DECODER: Final = json.JSONDecoder(parse_float=str)
"""Only code and msg are read here, and no number ever becomes a float."""
_CODE: Final = re.compile(r"-?[0-9]{1,6}")
_SECONDS: Final = re.compile(r"[0-9]{1,9}")
_BANNED_UNTIL: Final = re.compile(r"IP(?:\([0-9A-Fa-f:.]{1,45}\))? banned until ([0-9]{13})(?![0-9])")
"""Within the one text that says so: `Way too many requests; IP(192.0.2.1) banned until 1700000000000. Please …`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """`message` is the exchange's own `msg` and decides; `excerpt` is for people."""

    is_json: bool
    code: int | Code
    message: str = ""
    excerpt: str = ""


def classify_answer(
    *,
    venue: Venue,
    method: Method,
    http_status: int,
    body: bytes | str,
    headers: Mapping[str, str],
    now_ms: int,
) -> Failure | None:
    """Return what a failed answer means, or None if it is a success as far as status and code can tell.

    None is not yet proof: a caller checks for the order id and its own client order id before it believes in an order.
    Never raises, whatever the answer holds.

    Args:
        venue: Which exchange answered; the same code can mean two things.
        method: What was asked for.
        http_status: The status of the answer itself; redirects must not have been followed.
        body: As it came.
        headers: In any case; only `Retry-After` is read.
        now_ms: The exchange's time as we estimate it, epoch milliseconds.
    """
    answer = _read(body)
    if http_status in SUCCESS and answer.is_json and answer.code is Code.ABSENT:
        return None
    row = _find(venue=venue, method=method, http_status=http_status, answer=answer)
    return _failure(
        row,
        method,
        http_status=http_status,
        code=answer.code if isinstance(answer.code, int) else None,
        message=_printable(answer.message or answer.excerpt),
        retry_after_s=_retry_after_s(headers, now_ms),
        retry_at_ms=_banned_until_ms(answer.message, now_ms) if row.failure_class is FailureClass.BANNED else None,
    )


def classify_transport(*, fault: TransportFault, method: Method, detail: str = "") -> Failure:
    """Return what the lack of an answer means. `detail` is kept for people and decides nothing."""
    return _failure(TRANSPORT[fault], method, message=_printable(detail))


def gate_of(failure: Failure) -> Gate:
    """Return what `failure` closes for everybody."""
    row = BY_RULE.get(failure.rule)
    return Gate.NONE if row is None else row.gate


def counts_for_breaker(rule: str) -> bool:
    """Return whether a failure of this rule says that the exchange is in trouble; what is not listed does."""
    return BY_RULE.get(rule, UNLISTED).counts_for_breaker


def describe(failure: Failure) -> str:
    """Return what `failure` means and what the system does about it, in two or three sentences for people."""
    row = BY_RULE.get(failure.rule, UNLISTED)
    return f"{row.meaning} {_what_we_do(failure)}"


def _find(*, venue: Venue, method: Method, http_status: int, answer: _Answer) -> Row:
    for row in TABLE:
        if row.matches(venue=venue, method=method, http_status=http_status, code=answer.code, message=answer.message):
            return row
    return UNLISTED  # a status that is not an HTTP status


def _failure(
    row: Row,
    method: Method,
    *,
    http_status: int | None = None,
    code: int | None = None,
    message: str = "",
    retry_after_s: int | None = None,
    retry_at_ms: int | None = None,
) -> Failure:
    failure_class, certainty, advice, alert = row.failure_class, row.certainty, row.advice, row.alert
    if method == "query":
        certainty = Certainty.UNKNOWN
        if advice is Advice.RESEND_AFTER_PROOF:
            failure_class, advice = FailureClass.NOT_EXECUTED_RETRYABLE, Advice.RETRY_AFTER_DELAY
            alert = AlertLevel.WARNING if alert in {AlertLevel.HIGH, AlertLevel.CRITICAL} else alert
    return Failure(
        failure_class=failure_class,
        certainty=certainty,
        advice=advice,
        counts_for_breaker=row.counts_for_breaker,
        alert=alert,
        rule=row.rule,
        http_status=http_status,
        code=code,
        message=message,
        retry_after_s=retry_after_s,
        retry_at_ms=retry_at_ms,
    )


def _read(body: bytes | str) -> _Answer:
    excerpt = body if isinstance(body, str) else body[:_EXCERPT_BYTES].decode("utf-8", errors="replace")
    try:
        text = body if isinstance(body, str) else body.decode("utf-8")
        data = _DECODER.decode(text)
    except (ValueError, RecursionError):
        return _Answer(is_json=False, code=Code.ABSENT, excerpt=excerpt)
    if isinstance(data, list):
        return _Answer(is_json=True, code=Code.ABSENT)
    if not isinstance(data, dict):
        return _Answer(is_json=False, code=Code.ABSENT, excerpt=excerpt)
    message = data.get("msg")
    code = _code(data["code"]) if "code" in data else Code.ABSENT
    return _Answer(
        is_json=True,
        code=code,
        message=message if isinstance(message, str) else "",
        excerpt=excerpt if code is Code.UNREADABLE else "",
    )


def _code(value: object) -> int | Code:
    """Read a code. Some endpoints send it as text, and some send 200 for "done", which is no error."""
    if not isinstance(value, int | str):
        return Code.UNREADABLE
    if not _CODE.fullmatch(text := str(value)):
        return Code.UNREADABLE
    return Code.ABSENT if int(text) == 200 else int(text)


def _retry_after_s(headers: Mapping[str, str], now_ms: int) -> int | None:
    """Read Retry-After: seconds, or a date (RFC 9110, 10.2.3)."""
    value = next((value for name, value in headers.items() if name.lower() == "retry-after"), "").strip()
    if _SECONDS.fullmatch(value):
        return min(int(value), MAX_PAUSE_S)
    try:
        until_ms = to_ms(parsedate_to_datetime(value))
    except (ValueError, OverflowError):
        return None
    return max(0, min(-((now_ms - until_ms) // 1000), MAX_PAUSE_S))


def _banned_until_ms(message: str, now_ms: int) -> int | None:
    found = _BANNED_UNTIL.search(message)
    return min(int(found.group(1)), now_ms + MAX_PAUSE_S * 1000) if found else None


def _printable(text: str) -> str:
    """Shorten `text` to one line that every log and database takes: no control characters, no half surrogates."""
    short = text[:_EXCERPT_BYTES]
    clean = "".join(character if character.isprintable() else " " for character in short)
    return " ".join(clean.split())[:_MAX_MESSAGE_CHARS]


def _what_we_do(failure: Failure) -> str:
    if failure.rule == "no_such_order":
        return "That is one piece of evidence and no proof: an order may be executed and not yet visible."
    if failure.advice is Advice.RESEND_AFTER_PROOF:
        return (
            "The intent is in doubt and nothing is sent again: the exchange is asked until it shows the order, or "
            "until its absence is proven."
        )
    if failure.certainty is Certainty.UNKNOWN:
        return f"Nothing was learned about any order. {_for_a_query(failure)}"
    return f"It was not executed. {_for_what_was_not_executed(failure)}"


def _for_a_query(failure: Failure) -> str:
    match failure.advice:
        case Advice.RETRY_AT:
            return _pause(failure)
        case Advice.NEVER | Advice.PERSON:
            return "The question is not asked again before a person has looked."
        case Advice.RETRY_AFTER_DELAY | Advice.RESEND_AFTER_PROOF:
            return "The question is asked again after a short pause."


def _for_what_was_not_executed(failure: Failure) -> str:
    match failure.advice:
        case Advice.RETRY_AT:
            return f"{_pause(failure)} Then the same intent is sent again, if it is still valid."
        case Advice.RETRY_AFTER_DELAY if failure.failure_class is FailureClass.CLOCK_SKEW:
            return "The exchange's clock is read again, then the same intent is sent again while it is still valid."
        case Advice.RETRY_AFTER_DELAY | Advice.RESEND_AFTER_PROOF:
            return (
                "The same intent is sent again with the same client order id after a short, growing pause, while it "
                "is still valid."
            )
        case Advice.NEVER:
            return "It is not sent again: the intent ends as REJECTED once no earlier attempt is in doubt."
        case Advice.PERSON:
            return "Nothing like it is sent again before a person has looked."


def _pause(failure: Failure) -> str:
    who = {
        Gate.ORDERS: "No worker sends a new order of this account",
        Gate.VENUE: "No worker sends anything to this venue, not even a question,",
    }.get(gate_of(failure), "Nothing is sent")
    if failure.retry_at_ms is not None:
        return f"{who} before {failure.retry_at_ms} (exchange time, ms), as the exchange said."
    if failure.retry_after_s is not None:
        return f"{who} for {failure.retry_after_s} s, as the exchange asked."
    return f"{who} until the usual pause is over: the exchange named none."
