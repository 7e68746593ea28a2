"""`fillonce explain`: what an answer of the exchange means, and what the system does about it."""

import json
import textwrap
from collections.abc import Iterator
from types import MappingProxyType
from typing import Annotated, Final, cast

import typer

from app.job_safety.failure_classifier import classify_answer, describe, gate_of
from app.job_safety.failure_row import Method, Row
from app.job_safety.failure_table import TABLE
from app.job_safety.outcome import Advice, Certainty, Failure, FailureClass, Venue

CONTEXT_SETTINGS: Final = MappingProxyType({"ignore_unknown_options": True})
"""Mount the command with these: a code such as -2010 must not be taken for an option."""

_USUAL_STATUS: Final = 400
_HIGHEST_STATUS: Final = 599
_STATUS_OF_CLASS: Final = MappingProxyType({FailureClass.RATE_LIMITED: 429, FailureClass.BANNED: 418})
_TEXT_WIDTH: Final = 96
_CERTAINTY: Final = MappingProxyType(
    {
        Certainty.NOT_SENT: "it never left",
        Certainty.REFUSED: "it was certainly not executed",
        Certainty.ACCEPTED: "it was executed",
        Certainty.UNKNOWN: "it may have been executed",
    }
)
_ADVICE: Final = MappingProxyType(
    {
        Advice.RESEND_AFTER_PROOF: "not again without proof that nothing happened",
        Advice.RETRY_AFTER_DELAY: "again after a pause",
        Advice.RETRY_AT: "again when the exchange allows it",
        Advice.NEVER: "never again",
        Advice.PERSON: "a person must look",
    }
)


def explain(
    code: Annotated[
        int | None, typer.Argument(help="Binance's error code, e.g. -2010. Leave it out if the answer had none.")
    ] = None,
    venue: Annotated[Venue | None, typer.Option("--venue", help="usdm or spot; both if not given.")] = None,
    status: Annotated[int | None, typer.Option("--status", min=100, max=599, help="The HTTP status.")] = None,
    message: Annotated[str | None, typer.Option("--message", help="The exact text of `msg`.")] = None,
    method: Annotated[str, typer.Option("--method", help="What was asked for: order, cancel or query.")] = "order",
    *,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
) -> None:
    """Say what an answer of the exchange means, and what the system does about it.

    Example: fillonce explain -2010 --venue spot --message "Duplicate order sent."
    """
    if method not in {"order", "cancel", "query"}:
        raise typer.BadParameter("must be order, cancel or query", param_hint="--method")
    if code is None and status is None:
        raise typer.BadParameter("give a code, or --status for an answer without one", param_hint="CODE")
    if code is not None and abs(code) <= _HIGHEST_STATUS:
        raise typer.BadParameter(f"{code} is no code of Binance's; for an HTTP status give --status", param_hint="CODE")
    asked = cast("Method", method)
    signed = -abs(code) if code is not None else None
    for at in [venue] if venue else list(Venue):
        for failure in _failures(venue=at, method=asked, code=signed, status=status, message=message):
            typer.echo(json.dumps(_as_json(failure, at, asked)) if as_json else _as_text(failure, at, asked))


def _failures(
    *, venue: Venue, method: Method, code: int | None, status: int | None, message: str | None
) -> Iterator[Failure]:
    """Classify what is known; where status or text is not given, one answer for each row that they could lead to."""
    rows = [
        row
        for row in TABLE
        if venue in row.venues
        and method in row.methods
        and row.codes is not None
        and code in row.codes
        and (status is None or status in row.statuses)
    ]
    seen = set()
    # The last round has no row to go by: it shows what any other status or text would mean.
    for row in [*(rows if code is not None else []), None]:
        said = message if message is not None else _example_text(row)
        failure = _classify(venue, method, code, status or _usual_status(row), said)
        if failure is not None and failure.rule not in seen:
            seen.add(failure.rule)
            yield failure
    if status is not None and not seen:
        raise typer.BadParameter(f"{status} without a code is a success", param_hint="--status")


def _classify(venue: Venue, method: Method, code: int | None, status: int, message: str) -> Failure | None:
    body: dict[str, object] = {} if code is None else {"code": code}
    if message:
        body["msg"] = message
    return classify_answer(venue=venue, method=method, http_status=status, body=json.dumps(body), headers={}, now_ms=0)


def _usual_status(row: Row | None) -> int:
    """Return the status with which such an answer usually comes: mostly 400, where codes are at home."""
    if row is None:
        return _USUAL_STATUS
    usual = _STATUS_OF_CLASS.get(row.failure_class, _USUAL_STATUS)
    if usual in row.statuses:
        return usual
    return min(status for status in row.statuses if status >= _USUAL_STATUS)


def _example_text(row: Row | None) -> str:
    return next(iter((*row.messages, *row.prefixes)), "") if row is not None else ""


def _as_json(failure: Failure, venue: Venue, method: Method) -> dict[str, object]:
    return {
        "venue": venue.value,
        "method": method,
        "http_status": failure.http_status,
        "code": failure.code,
        "message": failure.message,
        "rule": failure.rule,
        "class": failure.failure_class.value,
        "certainty": failure.certainty.value,
        "advice": failure.advice.value,
        "counts_for_breaker": failure.counts_for_breaker,
        "alert": failure.alert.value,
        "closes": gate_of(failure).value,
        "retry_at_ms": failure.retry_at_ms,
        "description": describe(failure),
    }


def _as_text(failure: Failure, venue: Venue, method: Method) -> str:
    names = {Venue.USDM: "USD-M futures", Venue.SPOT: "Spot"}
    what = {"order": "a new order", "cancel": "a cancel", "query": "a query"}[method]
    code = "no code" if failure.code is None else f"code {failure.code}"
    head = f"{names[venue]}, {what}, answered by HTTP {failure.http_status}, {code}"
    said = f'\n  "{failure.message}"' if failure.message and failure.code is not None else ""
    certain = "says nothing about any order" if method == "query" else _CERTAINTY[failure.certainty]
    lines = (
        ("rule", failure.rule),
        ("class", failure.failure_class.value),
        ("certainty", f"{failure.certainty.value} ({certain})"),
        ("advice", f"{failure.advice.value} ({_ADVICE[failure.advice]})"),
        ("breaker", "counts" if failure.counts_for_breaker else "does not count"),
        ("alert", failure.alert.value),
        ("closes", gate_of(failure).value),
    )
    table = "\n".join(f"  {name:<10} {value}" for name, value in lines)
    text = textwrap.fill(describe(failure), width=_TEXT_WIDTH, initial_indent="  ", subsequent_indent="  ")
    return f"{head}{said}\n\n{table}\n\n{text}\n"
