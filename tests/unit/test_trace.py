"""The trace of an intent: where its time went, and why; and its OTLP form."""

import json
from typing import Any

import pytest

from app.cli.output import as_json, iso
from app.cli.trace import Span, Trace, trace_of
from app.cli.trace_view import as_fields, as_otlp, as_text

T0 = 1_795_725_870_000
NOW_MS = T0 + 60_000
HERE = ("main", "paper")


def dossier(**changes: Any) -> dict[str, Any]:
    return {
        "key": "k1", "type": "order", "state": "FILLED", "attempts": 1, "queue": "orders", "venue": "usdm",
        "symbol": "BTCUSDT", "client_order_id": "fo-x", "exchange_order_id": 7, "reason": None, "snoozes": 0,
        "exchange_status": "FILLED", "created_at": iso(T0), "finished_at": iso(T0 + 300), "booked_at": iso(T0 + 350),
        "dispatches": [attempt(1, at=100, settled=300)], "fills": [], "followups": [], "audit": [], **changes,
    }  # fmt: skip


def attempt(number: int, *, at: int, settled: int | None, unknown: int | None = None, **changes: Any) -> dict[str, Any]:
    return {
        "attempt": number, "owner": f"w{number}", "fence": number, "timestamp_ms": T0, "recv_window_ms": 3_000,
        "dispatched_at": iso(T0 + at), "settled_at": None if settled is None else iso(T0 + settled),
        "unknown_at": None if unknown is None else iso(T0 + unknown),
        "outcome": None if settled is None else "ACCEPTED", "settled_by": None if settled is None else "dispatch",
        "failure_class": None, "rule": None, "http_status": None, "code": None, "retry_delay_ms": None, "seal": None,
        "answer": None, **changes,
    }  # fmt: skip


def told(**changes: Any) -> list[tuple[str, int, int, str]]:
    """Return each span as path, begin and end after the intent's, and cause."""
    found = trace_of(dossier(**changes), namespace=HERE, now_ms=NOW_MS)
    return [(span.path, span.start_ms - T0, span.end_ms - T0, span.cause) for span in found.spans]


def test_order_that_is_filled_at_once() -> None:
    assert told() == [
        ("intent", 0, 350, "FILLED"),
        ("intent/wait-1", 0, 100, "queue orders"),
        ("intent/attempt-1", 100, 300, "ACCEPTED by dispatch"),
        ("intent/attempt-1/request", 100, 300, "ACCEPTED by dispatch"),
        ("intent/booking", 300, 350, "0 fills"),
    ]


def test_refused_attempt_waits_for_its_delay_and_is_tried_again() -> None:
    first = attempt(
        1, at=100, settled=200, outcome="REFUSED", settled_by="own_answer", rule="-1003", retry_delay_ms=1_000,
        answer="Too many requests",
    )  # fmt: skip
    found = told(dispatches=[first, attempt(2, at=1_200, settled=1_300)], finished_at=iso(T0 + 1_300), booked_at=None)
    assert found[1:] == [
        ("intent/wait-1", 0, 100, "queue orders"),
        ("intent/attempt-1", 100, 200, "REFUSED by own_answer: -1003"),
        ("intent/attempt-1/request", 100, 200, "Too many requests"),
        ("intent/wait-2", 200, 1_200, "-1003, delay 1000 ms"),
        ("intent/attempt-2", 1_200, 1_300, "ACCEPTED by dispatch"),
        ("intent/attempt-2/request", 1_200, 1_300, "ACCEPTED by dispatch"),
        ("intent/booking", 1_300, 60_000, "0 fills"),
    ]


def test_attempt_whose_answer_was_lost_has_a_request_and_a_doubt() -> None:
    lost = attempt(1, at=100, settled=900, unknown=400, settled_by="reconcile", rule="timeout")
    assert told(dispatches=[lost], finished_at=iso(T0 + 900), booked_at=iso(T0 + 900))[2:] == [
        ("intent/attempt-1", 100, 900, "ACCEPTED by reconcile: timeout"),
        ("intent/attempt-1/request", 100, 400, "unknown: timeout"),
        ("intent/attempt-1/doubt", 400, 900, "ended by reconcile"),
    ]


def test_attempt_of_a_worker_that_died_is_a_doubt_from_its_dispatch_on() -> None:
    died = attempt(1, at=100, settled=5_000, outcome="ABSENT", settled_by="reconcile")
    waits = told(dispatches=[died], state="RETRY_WAIT", finished_at=None, booked_at=None)
    assert waits[2:] == [
        ("intent/attempt-1", 100, 5_000, "ABSENT by reconcile"),
        ("intent/attempt-1/doubt", 100, 5_000, "no answer was journaled, ended by reconcile"),
        ("intent/wait-2", 5_000, 60_000, "proven absent, to be sent again"),
    ]


def test_what_goes_on_ends_now_and_says_that_it_is_open() -> None:
    open_ = dossier(
        state="IN_DOUBT", dispatches=[attempt(1, at=100, settled=None, unknown=200)], finished_at=None, booked_at=None
    )
    spans = trace_of(open_, namespace=HERE, now_ms=NOW_MS).spans
    assert {span.path for span in spans if span.is_open} == {
        "intent", "intent/attempt-1", "intent/attempt-1/doubt",
    }  # fmt: skip
    assert {span.end_ms for span in spans if span.is_open} == {NOW_MS}
    assert [field["end"] for field in as_fields(trace_of(open_, namespace=HERE, now_ms=NOW_MS))["spans"]].count(
        None
    ) == 3


def test_attempt_that_nobody_settled_ends_with_its_intent() -> None:
    found = told(type="cancel", state="DONE", dispatches=[attempt(1, at=100, settled=None, unknown=150)])
    assert ("intent/attempt-1", 100, 300, "never settled") in found


def test_order_that_rests_stands_at_the_exchange_until_it_is_finished() -> None:
    found = told(finished_at=iso(T0 + 9_000), booked_at=iso(T0 + 9_000), exchange_status="CANCELED")
    assert found[-1] == ("intent/at-the-exchange", 300, 9_000, "CANCELED")


def test_intent_that_expired_in_the_queue_has_waited_and_nothing_else() -> None:
    found = told(state="EXPIRED", dispatches=[], snoozes=3, reason="snoozed: breaker", booked_at=iso(T0 + 300))
    assert found == [
        ("intent", 0, 300, "EXPIRED: snoozed: breaker"),
        ("intent/wait-1", 0, 300, "queue orders: snoozed: breaker"),
    ]


def test_fills_follow_ups_and_acts_have_their_spans() -> None:
    fill = {
        "trade_id": 5, "side": "BUY", "price": "20000.5", "quantity": "0.010", "commission": "0.08",
        "time": iso(T0 + 290), "recorded_at": iso(T0 + 340),
    }  # fmt: skip
    work = {
        "key": "fetch:k1", "kind": "fetch_fills", "created_at": iso(T0 + 300), "done_at": iso(T0 + 340), "tries": 0,
        "last_error": None,
    }  # fmt: skip
    detail = {"reason": "seen at the exchange"}
    act = {"seq": 9, "at": iso(T0 + 320), "actor": "anna", "action": "resolve", "detail": detail}
    found = told(fills=[fill], followups=[work], audit=[act])
    assert ("intent/fill-5", 290, 340, "BUY 0.010 at 20000.5, until it was booked") in found
    assert ("intent/followup-1", 300, 340, "follow-up") in found
    assert ("intent/audit-9", 320, 320, "by anna: seen at the exchange") in found


def test_no_span_ends_before_it_begins_whatever_the_clocks_say() -> None:
    back = attempt(1, at=100, settled=50, unknown=20)
    early = {"trade_id": 5, "side": "BUY", "price": "1", "quantity": "1", "commission": "0", "time": iso(T0 + 99_000),
             "recorded_at": iso(T0 + 340)}  # fmt: skip
    found = told(dispatches=[back], fills=[early], created_at=iso(T0 + 400))
    assert [path for path, start, end, _ in found if end < start and path != "intent"] == []


def test_ids_follow_from_account_mode_and_key_for_ever() -> None:
    one = trace_of(dossier(), namespace=HERE, now_ms=NOW_MS)
    again = trace_of(dossier(state="IN_DOUBT"), namespace=HERE, now_ms=NOW_MS + 1)
    other = trace_of(dossier(), namespace=("main", "testnet"), now_ms=NOW_MS)
    assert one.trace_id == again.trace_id == "31500d14b5ccc962770b08322aa6c755"
    assert one.span_id("intent") == "7713634c94fc059f"
    assert other.trace_id != one.trace_id
    assert len({one.span_id(span.path) for span in one.spans}) == len(one.spans)


OTLP_SPAN = {
    "traceId", "spanId", "parentSpanId", "name", "kind", "startTimeUnixNano", "endTimeUnixNano", "attributes", "status",
}  # fmt: skip


def test_otlp_form_is_what_a_collector_reads() -> None:
    trace = trace_of(dossier(), namespace=HERE, now_ms=NOW_MS)
    request = json.loads(as_json(as_otlp(trace)))
    (resource,) = request["resourceSpans"]
    assert {"key": "service.name", "value": {"stringValue": "fillonce"}} in resource["resource"]["attributes"]
    (scope,) = resource["scopeSpans"]
    root, *parts = scope["spans"]
    assert "parentSpanId" not in root
    assert {part["parentSpanId"] for part in parts} <= {span["spanId"] for span in scope["spans"]}
    for span in scope["spans"]:
        assert set(span) <= OTLP_SPAN
        assert (len(span["traceId"]), len(span["spanId"])) == (32, 16)
        assert (int(span["traceId"], 16) > 0, int(span["spanId"], 16) > 0) == (True, True)
        assert [type(span[name]) for name in ("startTimeUnixNano", "endTimeUnixNano", "kind")] == [str, str, int]
    assert root["startTimeUnixNano"] == f"{T0}000000"
    values = {one["key"]: one["value"] for one in parts[1]["attributes"]}
    assert values["fillonce.attempt.fence"] == {"intValue": "1"}, "64-bit numbers are text in OTLP's JSON"
    assert values["fillonce.open"] == {"boolValue": False}
    assert [span["kind"] for span in scope["spans"] if span["name"] == "request"] == [3]


@pytest.mark.parametrize(("state", "code"), [("FILLED", 1), ("REJECTED", 2), ("EXPIRED", 2)])
def test_bad_end_is_an_error_in_otlp(state: str, code: int) -> None:
    request = as_otlp(trace_of(dossier(state=state), namespace=HERE, now_ms=NOW_MS))
    assert request["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["status"]["code"] == code


def test_parts_stand_indented_below_what_they_are_part_of() -> None:
    spans = [
        Span(path="intent", name="order k1", start_ms=T0, end_ms=T0 + 1_234, cause="FILLED"),
        Span(path="intent/wait-1", name="waiting", start_ms=T0, end_ms=T0 + 7, cause="queue", is_open=True),
    ]
    assert [line.partition("Z  ")[2] for line in list(as_text(Trace(key="k1", namespace=HERE, spans=spans)))[1:]] == [
        "1.234 s        order k1   FILLED",
        "0.007 s, open    waiting  queue",
    ]
