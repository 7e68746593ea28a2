"""The life of one intent as spans, made from its dossier: where the time went, and why.

Times are those of the journal. A fill begins at the exchange's time, by the exchange's clock; all else is ours.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from app.clock import to_ms
from app.job_safety.state import TERMINAL_STATES

OWN: Final = frozenset({"dispatch", "own_answer", "own"})
"""Who settles an attempt by its own answer; whoever else does so ends a doubt."""

_FINAL: Final = frozenset(state.value for state in TERMINAL_STATES)
_BAD_ENDS: Final = frozenset({"REJECTED", "EXPIRED", "QUARANTINED"})
_OF_AN_ATTEMPT: Final = (
    "owner", "fence", "timestamp_ms", "recv_window_ms", "outcome", "settled_by", "failure_class", "rule",
    "http_status", "code", "retry_delay_ms", "seal",
)  # fmt: skip
_TRACE_BYTES: Final = 16
_SPAN_BYTES: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A stretch of an intent's life, in milliseconds since the epoch. `path` names it uniquely, parents first."""

    path: str
    name: str
    start_ms: int
    end_ms: int
    cause: str
    is_open: bool = False
    """It goes on: `end_ms` is the present."""
    is_bad: bool = False
    """It ended with a no, or in a way that somebody should look at."""
    attributes: Mapping[str, str | int] = field(default_factory=dict)

    @property
    def parent(self) -> str | None:
        """The path of the span around it; None: there is none."""
        return self.path.rpartition("/")[0] or None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """All spans of an intent, in the order in which they began, the root first."""

    key: str
    namespace: tuple[str, str]
    """Account label and mode: the same key in another installation is another trace."""
    spans: Sequence[Span]

    @property
    def trace_id(self) -> str:
        """32 hex digits that follow from namespace and key."""
        return _hash(_TRACE_BYTES, *self.namespace, self.key)

    def span_id(self, path: str) -> str:
        """Return 16 hex digits that follow from namespace, key and path."""
        return _hash(_SPAN_BYTES, *self.namespace, self.key, path)


def trace_of(dossier: Mapping[str, Any], *, namespace: tuple[str, str], now_ms: int) -> Trace:
    """Return the trace of a dossier (`app.cli.dossier.collect`) as of `now_ms`."""
    found = sorted(
        [*_waits(dossier, now_ms), *_attempts(dossier, now_ms), *_fills(dossier), *_work(dossier, now_ms),
         *_acts(dossier), *_rest(dossier, now_ms)],
        key=lambda span: span.start_ms,
    )  # fmt: skip
    root = _root(dossier, now_ms)
    return Trace(key=str(dossier["key"]), namespace=namespace, spans=[root, *_nested(found)])


def _root(dossier: Mapping[str, Any], now_ms: int) -> Span:
    end_ms = _ms(dossier["booked_at"]) or _ms(dossier["finished_at"])
    state = str(dossier["state"])
    attributes: dict[str, str | int] = {
        f"fillonce.{name}": str(dossier[name])
        for name in ("key", "state", "queue", "venue", "symbol", "client_order_id", "exchange_order_id", "reason")
        if dossier[name] is not None
    }
    intent_type, attempts = str(dossier["type"]), int(dossier["attempts"])
    return Span(
        path="intent", name=f"{intent_type} {dossier['key']}", start_ms=_at(dossier["created_at"]),
        end_ms=now_ms if end_ms is None else end_ms, cause=_joined(state, dossier["reason"]), is_open=end_ms is None,
        is_bad=state in _BAD_ENDS,
        attributes={**attributes, "fillonce.type": intent_type, "fillonce.attempts": attempts},
    )  # fmt: skip


def _waits(dossier: Mapping[str, Any], now_ms: int) -> Iterator[Span]:
    """Yield what lies before, between and after attempts: in a queue, or until the next try is due."""
    since_ms, why = _at(dossier["created_at"]), f"queue {dossier['queue']}"
    if dossier["snoozes"] and not dossier["dispatches"]:
        why = _joined(why, dossier["reason"])
    for attempt in dossier["dispatches"]:
        at_ms = _at(attempt["dispatched_at"])
        yield _wait(since_ms, at_ms, why, number=attempt["attempt"])
        settled_ms = _ms(attempt["settled_at"])
        if settled_ms is None or attempt["outcome"] == "ACCEPTED":
            return
        since_ms, why = settled_ms, _why_again(attempt)
    end_ms = _ms(dossier["finished_at"])
    if end_ms is None and dossier["state"] not in {"RECEIVED", "RETRY_WAIT"}:
        return
    if end_ms is None or end_ms > since_ms:
        yield _wait(since_ms, end_ms or now_ms, why, number=len(dossier["dispatches"]) + 1, is_open=end_ms is None)


def _wait(start_ms: int, end_ms: int, why: str, *, number: int, is_open: bool = False) -> Span:
    return Span(
        path=f"intent/wait-{number}", name="waiting", start_ms=start_ms, end_ms=max(end_ms, start_ms), cause=why,
        is_open=is_open,
    )  # fmt: skip


def _why_again(attempt: Mapping[str, Any]) -> str:
    why = str(attempt["rule"] or attempt["answer"] or attempt["outcome"])
    if attempt["outcome"] == "ABSENT":
        why = "proven absent, to be sent again"
    delay_ms = attempt["retry_delay_ms"]
    return why if delay_ms is None else f"{why}, delay {delay_ms} ms"


def _attempts(dossier: Mapping[str, Any], now_ms: int) -> Iterator[Span]:
    """Yield each attempt, and in it the request and the doubt that followed."""
    over_ms = _ms(dossier["finished_at"]) if dossier["state"] in _FINAL else None
    for attempt in dossier["dispatches"]:
        path, start_ms = f"intent/attempt-{attempt['attempt']}", _at(attempt["dispatched_at"])
        settled_ms, unknown_ms, outcome = _ms(attempt["settled_at"]), _ms(attempt["unknown_at"]), attempt["outcome"]
        end_ms = settled_ms or over_ms
        is_open, by = end_ms is None, attempt["settled_by"]
        last_ms = max(now_ms if end_ms is None else end_ms, start_ms)
        ended = f"{outcome} by {by}" if outcome else "nobody knows yet" if is_open else "never settled"
        yield Span(
            path=path, name=f"attempt {attempt['attempt']}", start_ms=start_ms, end_ms=last_ms, is_open=is_open,
            cause=_joined(ended, attempt["rule"]), is_bad=outcome in {"REFUSED", "ABSENT"},
            attributes={
                f"fillonce.attempt.{name}": attempt[name]
                for name in _OF_AN_ATTEMPT
                if attempt[name] is not None
            },
        )  # fmt: skip
        answered = by in OWN and unknown_ms is None
        if answered:
            yield _part(path, "request", start_ms, last_ms, attempt["answer"] or ended)
            continue
        if unknown_ms is not None:
            yield _part(path, "request", start_ms, unknown_ms, f"unknown: {attempt['rule'] or 'no answer settles it'}")
        why = f"ended by {by}" if by else "waits for proof"
        if unknown_ms is None:
            why = f"no answer was journaled, {why}"
        yield _part(path, "doubt", unknown_ms or start_ms, last_ms, why, is_open=is_open)


def _part(path: str, name: str, start_ms: int, end_ms: int, cause: str, *, is_open: bool = False) -> Span:
    return Span(
        path=f"{path}/{name}", name=name, start_ms=start_ms, end_ms=max(end_ms, start_ms), cause=cause, is_open=is_open
    )


def _rest(dossier: Mapping[str, Any], now_ms: int) -> Iterator[Span]:
    """Yield the time that an order stood at the exchange, and the booking after its end."""
    finished_ms, booked_ms = _ms(dossier["finished_at"]), _ms(dossier["booked_at"])
    taken = [_ms(one["settled_at"]) for one in dossier["dispatches"] if one["outcome"] == "ACCEPTED"]
    since_ms = next((ms for ms in taken if ms is not None), None)
    if since_ms is not None and dossier["type"] == "order" and (finished_ms is None or finished_ms > since_ms):
        yield Span(
            path="intent/at-the-exchange", name="at the exchange", start_ms=since_ms,
            end_ms=max(finished_ms or now_ms, since_ms), is_open=finished_ms is None,
            cause=str(dossier["exchange_status"] or dossier["state"]),
        )  # fmt: skip
    if finished_ms is not None and (booked_ms is None or booked_ms > finished_ms):
        yield Span(
            path="intent/booking", name="booking", start_ms=finished_ms, end_ms=booked_ms or max(now_ms, finished_ms),
            is_open=booked_ms is None, cause=f"{len(dossier['fills'])} fills",
        )  # fmt: skip


def _fills(dossier: Mapping[str, Any]) -> Iterator[Span]:
    for fill in dossier["fills"]:
        at_ms, known_ms = _at(fill["time"]), _at(fill["recorded_at"])
        what = f"{fill['side']} {fill['quantity']} at {fill['price']}"
        yield Span(
            path=f"intent/fill-{fill['trade_id']}", name=f"fill {fill['trade_id']}", start_ms=at_ms,
            end_ms=max(known_ms, at_ms), cause=f"{what}, until it was booked",
            attributes={
                "fillonce.fill.trade_id": int(fill["trade_id"]),
                **{f"fillonce.fill.{name}": str(fill[name]) for name in ("side", "price", "quantity", "commission")},
            },
        )  # fmt: skip


def _work(dossier: Mapping[str, Any], now_ms: int) -> Iterator[Span]:
    """Yield the follow-ups: what had to be done because of something that was done."""
    for number, item in enumerate(dossier["followups"], start=1):
        start_ms, done_ms = _at(item["created_at"]), _ms(item["done_at"])
        yield Span(
            path=f"intent/followup-{number}", name=str(item["kind"]), start_ms=start_ms,
            end_ms=max(now_ms if done_ms is None else done_ms, start_ms), is_open=done_ms is None,
            cause=_joined(f"follow-up, tried {item['tries']} times before" if item["tries"] else "follow-up",
                          item["last_error"]),
            attributes={"fillonce.followup.key": str(item["key"])},
        )  # fmt: skip


def _acts(dossier: Mapping[str, Any]) -> Iterator[Span]:
    """Yield what people, and reopenings, did to it: moments."""
    for entry in dossier["audit"]:
        at_ms, detail = _at(entry["at"]), entry["detail"]
        why = detail.get("why") or detail.get("reason")
        yield Span(
            path=f"intent/audit-{entry['seq']}", name=str(entry["action"]), start_ms=at_ms, end_ms=at_ms,
            cause=_joined(f"by {entry['actor']}", why),
        )  # fmt: skip


def _nested(spans: Sequence[Span]) -> Iterator[Span]:
    """Yield spans in their order, each followed by its parts."""
    for span in spans:
        if span.parent == "intent":
            yield span
            yield from (part for part in spans if part.parent == span.path)


def _joined(first: str, second: object) -> str:
    return first if second is None or second == "" else f"{first}: {second}"


def _ms(text: str | None) -> int | None:
    return None if text is None else _at(text)


def _at(text: str) -> int:
    return to_ms(datetime.fromisoformat(text))


def _hash(size: int, *parts: str) -> str:
    sha = hashlib.sha256()
    for part in parts:
        raw = part.encode()
        sha.update(len(raw).to_bytes(4, "big") + raw)
    return sha.digest()[:size].hex()
