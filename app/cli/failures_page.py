"""The page docs/reference/failures.md, made from the failure table.

`python -m app.cli.failures_page > docs/reference/failures.md` writes it anew.
"""

import sys

from app.job_safety.failure_row import ALL_METHODS, ANY_STATUS, BOTH_VENUES, SENDER_ERROR, Code, Row
from app.job_safety.failure_table import TABLE, TRANSPORT

_HEAD = """\
# Failures: what every answer means

Made from `app/job_safety/failure_table.py` by `python -m app.cli.failures_page`; a test compares the two. Ask for one
answer with `fillonce explain CODE --venue … --status … --message …`.

An answer is recognized by venue, method, HTTP status, code and the exact text of `msg` (or its beginning, shown with
`…`). The table is searched from the top and the first row that matches counts. What no row lists is UNKNOWN for an
order or a cancel: it may have been executed, so nothing is sent again before its absence is proven. A query changes
nothing; whatever row it meets, its certainty is UNKNOWN in the sense of "no information", and instead of
`resend_after_proof` it is simply asked again.

- **certainty**: NOT_SENT (it never left), REFUSED (certainly not executed), UNKNOWN (it may have been executed).
- **advice**: `resend_after_proof`, `retry_after_delay`, `retry_at` (not before the time that the exchange named),
  `never` (a new decision is needed), `person` (configuration or credentials).
- **breaker**: whether the failure counts against the circuit breaker. **closes**: what it closes for everybody.
- "4xx" stands for 400 to 499 without 408, 409, 418 and 429, which have rows of their own.

## Answers

| rule | venue | method | HTTP | code | text | class | certainty | advice | breaker | alert | closes | meaning |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""
_TRANSPORT_HEAD = """
## No answer

| fault | rule | class | certainty | advice | breaker | alert | meaning |
| --- | --- | --- | --- | --- | --- | --- | --- |
"""


def failures_page() -> str:
    """Return the whole page, as Markdown."""
    answers = "".join(f"| {' | '.join(_answer_cells(row))} |\n" for row in TABLE)
    faults = "".join(f"| {' | '.join((f'`{fault}`', *_fault_cells(row)))} |\n" for fault, row in TRANSPORT.items())
    return _HEAD + answers + _TRANSPORT_HEAD + faults


def _answer_cells(row: Row) -> tuple[str, ...]:
    return (
        f"`{row.rule}`",
        "both" if row.venues == BOTH_VENUES else _joined(row.venues),
        "all" if row.methods == ALL_METHODS else _joined(row.methods),
        _statuses(row.statuses),
        "any" if row.codes is None else _codes(row.codes),
        "; ".join([*row.messages, *(f"{prefix}…" for prefix in row.prefixes)]) or "any",
        *_verdict_cells(row),
        row.gate.value,
        row.meaning,
    )


def _fault_cells(row: Row) -> tuple[str, ...]:
    return (f"`{row.rule}`", *_verdict_cells(row), row.meaning)


def _verdict_cells(row: Row) -> tuple[str, ...]:
    breaker = "yes" if row.counts_for_breaker else "no"
    return (row.failure_class.value, row.certainty.value, row.advice.value, breaker, row.alert.value)


def _joined(words: frozenset[str]) -> str:
    return ", ".join(sorted(words))


def _statuses(statuses: frozenset[int]) -> str:
    if statuses == ANY_STATUS:
        return "any"
    rest, parts = set(statuses), []
    if rest >= SENDER_ERROR:
        parts.append("4xx")
        rest -= SENDER_ERROR
    return ", ".join([*parts, *_spans(rest)])


def _codes(codes: frozenset[int | Code]) -> str:
    words = ["none"] if Code.ABSENT in codes else []
    return ", ".join([*words, *_spans({-code for code in codes if isinstance(code, int)}, sign="-")])


def _spans(numbers: set[int], sign: str = "") -> list[str]:
    """Return `numbers` in order, three or more neighbors as one span."""
    spans: list[list[int]] = []
    for number in sorted(numbers):
        if spans and spans[-1][-1] == number - 1:
            spans[-1].append(number)
        else:
            spans.append([number])
    parts = []
    for span in spans:
        if len(span) > 2:
            parts.append(f"{sign}{span[0]} to {sign}{span[-1]}")
        else:
            parts.extend(f"{sign}{number}" for number in span)
    return parts


if __name__ == "__main__":
    sys.stdout.write(failures_page())
