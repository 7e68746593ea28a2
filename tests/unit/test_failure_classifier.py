"""What answers mean. The lists of codes stand here a second time on purpose: copied from the exchange's documentation,
not from the table that they check."""

import json
import random
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from typer import Typer
from typer.testing import CliRunner

from app.cli.explain import CONTEXT_SETTINGS, explain
from app.cli.failures_page import failures_page
from app.job_safety.failure_classifier import (
    MAX_PAUSE_S,
    Gate,
    TransportFault,
    classify_answer,
    classify_transport,
    describe,
    gate_of,
)
from app.job_safety.failure_row import BOTH_VENUES, ORDER, Code, row
from app.job_safety.failure_table import BY_RULE, TABLE, TRANSPORT
from app.job_safety.outcome import Advice, AlertLevel, Certainty, Failure, FailureClass, Venue

NOW_MS = 1_763_683_200_000
USDM, SPOT = Venue.USDM, Venue.SPOT
METHODS = ("order", "cancel", "query")
UNKNOWN_503 = "Unknown error, please check your request or try again later."
INTERNAL_503 = "Internal error; unable to process your request. Please try again."
THROTTLED_503 = (
    "Request throttled by system-level protection. Reduce-only/close-position orders are exempt. Please try again."
)
OVERLOADED = "Server is currently overloaded with other requests. Please try again in a few minutes."

REFUSED, UNKNOWN = Certainty.REFUSED, Certainty.UNKNOWN
C = FailureClass


def answer(venue, status, body, *, method="order", headers=None):
    return classify_answer(
        venue=venue,
        method=method,
        http_status=status,
        body=body if isinstance(body, bytes | str) else json.dumps(body),
        headers=headers or {},
        now_ms=NOW_MS,
    )


def coded(venue, status, code, msg="", **kwargs) -> Failure:
    failure = answer(venue, status, {"code": code, "msg": msg}, **kwargs)
    assert failure is not None
    return failure


def each(venues, codes, status, certainty, *classes, msg=""):
    return [(venue, code, status, msg, certainty, set(classes)) for venue in venues for code in codes]


BOTH = (USDM, SPOT)
PARAMETER_CODES = [*range(-1108, -1099), -1111, *range(-1121, -1113), -1127, -1128, -1130, -1131, -1134, -1135, -1136]
DOCUMENTED = [
    *each(BOTH, [-1000, -1006, -1007], 400, UNKNOWN, C.OUTCOME_UNKNOWN),
    *each(BOTH, [-1000, -1006, -1007], 503, UNKNOWN, C.OUTCOME_UNKNOWN),
    *each([USDM], [-1001], 503, REFUSED, C.NOT_EXECUTED_RETRYABLE, msg=INTERNAL_503),
    *each([USDM], [-1001], 400, UNKNOWN, C.OUTCOME_UNKNOWN, msg=INTERNAL_503),
    *each([USDM], [-1001], 500, UNKNOWN, C.OUTCOME_UNKNOWN, msg=INTERNAL_503),
    *each([SPOT], [-1001], 503, UNKNOWN, C.OUTCOME_UNKNOWN, msg=INTERNAL_503),
    *each([SPOT], [-1001], 400, UNKNOWN, C.OUTCOME_UNKNOWN, msg=INTERNAL_503),
    *each(BOTH, [-1002], 401, REFUSED, C.AUTH),
    *each(BOTH, [-1003], 429, REFUSED, C.RATE_LIMITED, msg="Too many requests queued."),
    *each(BOTH, [-1003], 418, REFUSED, C.BANNED),
    *each([USDM], [-1008], 503, REFUSED, C.NOT_EXECUTED_RETRYABLE, msg=THROTTLED_503),
    *each([USDM], [-1008], 503, REFUSED, C.NOT_EXECUTED_RETRYABLE, msg=OVERLOADED),
    *each([SPOT], [-1008], 503, UNKNOWN, C.OUTCOME_UNKNOWN, msg=OVERLOADED),
    *each([SPOT], [-1008], 429, UNKNOWN, C.OUTCOME_UNKNOWN, msg=OVERLOADED),
    *each(BOTH, [-1010], 400, REFUSED, C.REJECTED_BUSINESS, msg="Market is closed."),
    *each([USDM], [-1011, -1004, -1005, -1109], 400, REFUSED, C.AUTH),
    *each([SPOT], [-1013], 400, REFUSED, C.REJECTED_BUSINESS, msg="Filter failure: LOT_SIZE"),
    *each(BOTH, [-1014, -1020, -1145, *PARAMETER_CODES], 400, REFUSED, C.INVALID_REQUEST),
    *each(BOTH, [-1015], 429, REFUSED, C.RATE_LIMITED),
    *each(BOTH, [-1016], 400, REFUSED, C.EXCHANGE_DOWN),
    *each(BOTH, [-1021], 400, REFUSED, C.CLOCK_SKEW),
    *each(BOTH, [-1022], 400, REFUSED, C.AUTH),
    *each([USDM], [-1099], 400, REFUSED, C.AUTH),
    *each(BOTH, [-1112, -1122], 400, REFUSED, C.REJECTED_BUSINESS),
    *each(BOTH, [-2010], 400, UNKNOWN, C.DUPLICATE_ID, msg="Duplicate order sent."),
    *each(BOTH, [-2010], 400, REFUSED, C.AUTH, msg="This action is disabled on this account."),
    *each(BOTH, [-2010], 400, REFUSED, C.AUTH, msg="This account may not place or cancel orders."),
    *[
        case
        for msg in (
            "Market is closed.",
            "Account has insufficient balance for requested action.",
            "Order would trigger immediately.",
            "Order would immediately match and take.",
            "Price * QTY is zero or less.",
            "This symbol is not permitted for this account.",
            "Filter failure: MAX_NUM_ORDERS",
        )
        for case in each(BOTH, [-2010], 400, REFUSED, C.REJECTED_BUSINESS, msg=msg)
    ],
    *each(BOTH, [-2011, -2013], 400, UNKNOWN, C.OUTCOME_UNKNOWN),
    *each(BOTH, [-2014, -2015, -2017, -2008], 401, REFUSED, C.AUTH),
    *each([USDM], [-2018, -2019, -2024, -2027, -2028], 400, REFUSED, C.REJECTED_BUSINESS),
    *each([USDM], [-2020, -2021, -2022, -2023, -2025], 400, REFUSED, C.REJECTED_BUSINESS),
    *each([SPOT], [-2021, -2022], 400, UNKNOWN, C.OUTCOME_UNKNOWN),
    *each([USDM], [-2026], 400, REFUSED, C.INVALID_REQUEST),
    *each([SPOT], [-2026, -2038, -2039], 400, UNKNOWN, C.OUTCOME_UNKNOWN),
    *each([USDM], [*range(-4014, -3999), *range(-4031, -4015)], 400, REFUSED, C.REJECTED_BUSINESS),
    *each([USDM], [-4015], 400, REFUSED, C.INVALID_REQUEST),
    *each([USDM], [-4045, -4050, -4051, -4118], 400, REFUSED, C.REJECTED_BUSINESS),
    *each([USDM], [-4060, -4061, -4062, -4137, -4138, -4531], 400, REFUSED, C.INVALID_REQUEST),
    *each([USDM], [-4087, -4088, -4105, -4106, -4107, -4140, -4141], 400, REFUSED, C.REJECTED_BUSINESS),
    *each([USDM], [-4189, -4192, -4400, -4401, -4402], 400, REFUSED, C.REJECTED_BUSINESS),
    *each([USDM], [-4109], 400, REFUSED, C.AUTH),
    *each([USDM], [-4116], 400, UNKNOWN, C.DUPLICATE_ID, msg="ClientOrderId is duplicated."),
    *each(BOTH, [-4115, -3000, -3999], 400, UNKNOWN, C.OUTCOME_UNKNOWN),
    *each([USDM], [-4117], 400, REFUSED, C.NOT_EXECUTED_RETRYABLE),
    *each([USDM], [-4120], 400, REFUSED, C.INVALID_REQUEST),
    *each([USDM], [-4131, -4142, -4164, -4183, -4184, -4210, -4211], 400, REFUSED, C.REJECTED_BUSINESS),
    *each([USDM], [-5021, -5022], 400, REFUSED, C.REJECTED_BUSINESS),
    *each([USDM], [-5028], 400, REFUSED, C.CLOCK_SKEW),
    *each(
        [USDM],
        [*range(-5027, -5023), -5029, *range(-5043, -5036), -5047],
        400,
        REFUSED,
        C.INVALID_REQUEST,
        C.REJECTED_BUSINESS,
    ),
    *each([SPOT], [-4000, -4061, -4116, -4120, -4131, -5021, -5022, -5028], 400, UNKNOWN, C.OUTCOME_UNKNOWN),
    *each([SPOT], [-2019, -2018, -2023, -1099, -1109], 400, UNKNOWN, C.OUTCOME_UNKNOWN),
]


@pytest.mark.parametrize("case", DOCUMENTED, ids=lambda case: f"{case[0]}{case[1]}-http{case[2]}-{case[3][:12]}")
def test_documented_code_has_its_documented_meaning_for_a_new_order(case):
    venue, code, status, msg, certainty, classes = case
    failure = coded(venue, status, code, msg)
    assert failure.certainty is certainty
    assert failure.failure_class in classes
    assert (failure.code, failure.http_status, failure.message) == (code, status, msg)


@pytest.mark.parametrize("status", [200, 302, 408, 409, 500, 502, 504])
@pytest.mark.parametrize("method", ["order", "cancel"])
def test_definite_code_with_a_status_that_contradicts_it_proves_nothing(status, method):
    for venue, code, _, msg, _, _ in DOCUMENTED:
        assert coded(venue, status, code, msg, method=method).certainty is UNKNOWN


@pytest.mark.parametrize("msg", ["", INTERNAL_503, "Service Unavailable.", THROTTLED_503, OVERLOADED])
def test_every_503_of_spot_is_unknown_whatever_its_body_says(msg):
    assert answer(SPOT, 503, {"msg": msg}).certainty is UNKNOWN
    for code in {case[1] for case in DOCUMENTED}:
        assert coded(SPOT, 503, code, msg).certainty is UNKNOWN


@pytest.mark.parametrize(
    ("body", "certainty", "failure_class"),
    [
        ({"timestamp": 1638827401078, "path": "/fapi/v1/order", "msg": UNKNOWN_503}, UNKNOWN, C.OUTCOME_UNKNOWN),
        ({"code": -1000, "msg": UNKNOWN_503}, UNKNOWN, C.OUTCOME_UNKNOWN),
        ({"code": -1001, "msg": UNKNOWN_503}, UNKNOWN, C.OUTCOME_UNKNOWN),
        ({"code": -1008, "msg": UNKNOWN_503}, UNKNOWN, C.OUTCOME_UNKNOWN),
        ({"msg": "Service Unavailable."}, REFUSED, C.EXCHANGE_DOWN),
        ({"code": -1007, "msg": "Service Unavailable."}, UNKNOWN, C.OUTCOME_UNKNOWN),
        ({"code": -9999, "msg": "Service Unavailable."}, UNKNOWN, C.OUTCOME_UNKNOWN),
        ({"msg": "Service Unavailable"}, UNKNOWN, C.OUTCOME_UNKNOWN),
        ({"msg": "Service Unavailable. Please wait"}, UNKNOWN, C.OUTCOME_UNKNOWN),
        ('"Service Unavailable."', UNKNOWN, C.OUTCOME_UNKNOWN),
        ("Service Unavailable.", UNKNOWN, C.OUTCOME_UNKNOWN),
        ("<html><body>503 Service Unavailable.</body></html>", UNKNOWN, C.OUTCOME_UNKNOWN),
        ("", UNKNOWN, C.OUTCOME_UNKNOWN),
        ({}, UNKNOWN, C.OUTCOME_UNKNOWN),
        ([], UNKNOWN, C.OUTCOME_UNKNOWN),
        ({"msg": INTERNAL_503}, REFUSED, C.NOT_EXECUTED_RETRYABLE),
        ({"code": -1001, "msg": INTERNAL_503}, REFUSED, C.NOT_EXECUTED_RETRYABLE),
        ({"code": -1001, "msg": "Internal error."}, UNKNOWN, C.OUTCOME_UNKNOWN),
        ({"code": -1008, "msg": THROTTLED_503}, REFUSED, C.NOT_EXECUTED_RETRYABLE),
        ({"code": -1008, "msg": OVERLOADED}, REFUSED, C.NOT_EXECUTED_RETRYABLE),
        ({"code": -1008}, REFUSED, C.NOT_EXECUTED_RETRYABLE),
        ({"msg": THROTTLED_503}, REFUSED, C.NOT_EXECUTED_RETRYABLE),
        ({"msg": OVERLOADED}, REFUSED, C.NOT_EXECUTED_RETRYABLE),
        ({"code": -2019, "msg": "Margin is insufficient."}, UNKNOWN, C.OUTCOME_UNKNOWN),
        ({"msg": "Request occur unknown error."}, UNKNOWN, C.OUTCOME_UNKNOWN),
    ],
)
@pytest.mark.parametrize("method", ["order", "cancel"])
def test_only_the_three_documented_failures_among_futures_503s_were_not_executed(
    body, certainty, failure_class, method
):
    failure = answer(USDM, 503, body, method=method)
    assert (failure.certainty, failure.failure_class) == (certainty, failure_class)


@pytest.mark.parametrize("status", [500, 501, 502, 504, 520, 599])
@pytest.mark.parametrize("msg", ["Service Unavailable.", INTERNAL_503, THROTTLED_503])
def test_the_documented_503_texts_prove_nothing_with_another_status(status, msg):
    assert answer(USDM, status, {"msg": msg}).certainty is UNKNOWN
    assert coded(USDM, status, -1008, msg).certainty is UNKNOWN


@pytest.mark.parametrize("venue", BOTH)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "body",
    [{"orderId": 1, "clientOrderId": "a"}, {}, [], [{"code": -2013}], {"code": "200"}, {"code": 200, "msg": "done"}],
)
def test_success_without_an_error_code_is_left_to_the_caller(venue, method, body):
    assert answer(venue, 200, body, method=method) is None


@pytest.mark.parametrize(
    "body", ["", " ", "null", "17", '"ok"', "true", "<html>ok</html>", '{"orderId": 1', b"\xff\xfe{}", "[" * 100_000]
)
@pytest.mark.parametrize("venue", BOTH)
def test_success_that_cannot_be_read_is_unknown(venue, body):
    failure = answer(venue, 200, body)
    assert (failure.rule, failure.certainty) == ("unreadable_success", UNKNOWN)


@pytest.mark.parametrize("code", [-1007, -2019, "-2019", -9999, 0, None, "abc", -2010.0, True, [], 10**40, "٢٠٠"])
def test_error_code_inside_a_success_is_unknown(code):
    assert answer(USDM, 200, {"code": code, "orderId": 5}).certainty is UNKNOWN


@pytest.mark.parametrize(
    ("status", "rule", "certainty"),
    [
        (301, "redirect", UNKNOWN),
        (302, "redirect", UNKNOWN),
        (307, "redirect", UNKNOWN),
        (308, "redirect", UNKNOWN),
        (400, "unlisted", UNKNOWN),
        (401, "http_unauthorized", REFUSED),
        (403, "firewall", REFUSED),
        (404, "http_no_such_endpoint", REFUSED),
        (405, "http_no_such_endpoint", REFUSED),
        (408, "backend_timeout", UNKNOWN),
        (409, "partial_success", UNKNOWN),
        (413, "http_no_such_endpoint", REFUSED),
        (418, "http_418", REFUSED),
        (422, "unlisted", UNKNOWN),
        (429, "http_429", REFUSED),
        (451, "http_unauthorized", REFUSED),
        (100, "unlisted", UNKNOWN),
        (0, "unlisted", UNKNOWN),
        (-1, "unlisted", UNKNOWN),
        (999, "unlisted", UNKNOWN),
    ],
)
@pytest.mark.parametrize("venue", BOTH)
@pytest.mark.parametrize("body", ["<html>nginx</html>", "", "{}", '{"message": "Forbidden"}'])
def test_status_without_a_code_has_its_own_row(status, rule, certainty, venue, body):
    failure = answer(venue, status, body)
    assert (failure.rule, failure.certainty, failure.code) == (rule, certainty, None)


@pytest.mark.parametrize("status", [401, 403, 404, 418, 429, 451])
@pytest.mark.parametrize("code", [-1000, -1006, -1007])
def test_exchange_that_does_not_know_outranks_a_status_that_claims_to(status, code):
    for method in ("order", "cancel"):
        assert coded(USDM, status, code, "Market is closed.", method=method).certainty is UNKNOWN


@pytest.mark.parametrize("status", [401, 403, 404, 400, 451])
def test_unlisted_code_is_not_taken_for_the_absence_of_a_code(status):
    for code in (-9999, None, "?", 10**40):
        assert answer(USDM, status, {"code": code}).rule == "unlisted"


def test_ban_names_its_end_in_exchange_time():
    until_ms = NOW_MS + 123_456
    for text in (
        f"Way too many requests; IP(192.0.2.1) banned until {until_ms}. Please use the websocket for live updates.",
        f"Way too many requests; IP(2001:db8::1) banned until {until_ms}",
        f"Way too much request weight used; IP banned until {until_ms}. Please use WebSocket Streams.",
        f"Too many request weights; IP banned until {until_ms}. Please use the WebSocket.",
    ):
        for status in (418, 429):
            failure = coded(USDM, status, -1003, text, headers={"retry-AFTER": "120"})
            assert failure.failure_class is C.BANNED
            assert (failure.retry_at_ms, failure.retry_after_s) == (until_ms, 120)
            assert (failure.advice, failure.alert, gate_of(failure)) == (
                Advice.RETRY_AT,
                AlertLevel.CRITICAL,
                Gate.VENUE,
            )


def test_absurd_end_of_a_ban_is_bounded():
    failure = coded(SPOT, 418, -1003, "Way too many requests; IP(192.0.2.1) banned until 9999999999999.")
    assert failure.retry_at_ms == NOW_MS + MAX_PAUSE_S * 1000
    unreadable = coded(SPOT, 418, -1003, "Way too many requests; IP(192.0.2.1) banned until 99999999999999999.")
    assert (unreadable.failure_class, unreadable.retry_at_ms) == (C.BANNED, None)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        ("30", 30),
        (" 7 ", 7),
        ("999999999", MAX_PAUSE_S),
        ("Fri, 21 Nov 2025 00:00:30 GMT", 30),
        ("Thu, 20 Nov 2025 00:00:00 GMT", 0),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("٣", None),
        ("", None),
        ("Fri, 99 Nov 2025 00:00:30 GMT", None),
        ("Fri, 21 Nov 2025 00:00:30 -0000", None),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(value, seconds):
    assert answer(SPOT, 429, "", headers={"Retry-After": value}).retry_after_s == seconds


def test_order_limit_closes_only_the_gate_for_orders():
    assert gate_of(coded(USDM, 429, -1015)) is Gate.ORDERS
    assert gate_of(coded(USDM, 429, -1003)) is Gate.VENUE
    assert gate_of(coded(USDM, 401, -2015)) is Gate.ACCOUNT
    assert gate_of(coded(USDM, 400, -2019)) is Gate.NONE


@pytest.mark.parametrize("venue", BOTH)
def test_exactly_2013_with_status_400_is_the_only_answer_called_no_such_order(venue):
    exact = coded(venue, 400, -2013, "Order does not exist.", method="query")
    assert (exact.rule, exact.certainty, exact.code, exact.http_status) == ("no_such_order", UNKNOWN, -2013, 400)
    for status in (200, 401, 403, 404, 418, 429, 500, 503):
        assert coded(venue, status, -2013, "Order does not exist.", method="query").rule != "no_such_order"
    for code in (-2011, -2026, -1003, "x"):
        assert coded(venue, 400, code, "Order does not exist.", method="query").rule != "no_such_order"
    for body in ("Order does not exist.", {"msg": "Order does not exist."}, ""):
        assert answer(venue, 400, body, method="query").rule != "no_such_order"
    for method in ("order", "cancel"):
        assert coded(venue, 400, -2013, "Order does not exist.", method=method).certainty is UNKNOWN


def test_archived_order_of_spot_is_not_called_absent():
    archived = coded(SPOT, 400, -2026, method="query")
    assert (archived.rule, archived.advice) == ("spot_order_archived", Advice.PERSON)


@pytest.mark.parametrize("venue", BOTH)
@pytest.mark.parametrize("code", [-2011, -2013])
def test_cancel_that_found_nothing_leaves_the_order_in_doubt(venue, code):
    failure = coded(venue, 400, code, "Unknown order sent.", method="cancel")
    assert (failure.certainty, failure.counts_for_breaker) == (UNKNOWN, False)


def test_cancel_of_a_disabled_account_is_refused():
    failure = coded(SPOT, 400, -2011, "This action is disabled on this account.", method="cancel")
    assert (failure.certainty, failure.advice) == (REFUSED, Advice.PERSON)


@pytest.mark.parametrize("venue", BOTH)
@pytest.mark.parametrize(
    "msg", ["", "Duplicate order sent", "duplicate order sent.", "A text of next year.", "No Filter failure: LOT_SIZE"]
)
@pytest.mark.parametrize("code", [-2010, -1010])
def test_engine_refusal_with_an_unlisted_text_is_unknown(venue, msg, code):
    """It may be a new way of saying that the id is in use, and then an order lives."""
    assert coded(venue, 400, code, msg).rule == "unlisted"


class TestTrapsOfEarlierClassifiers:
    """T8: what a search for words and numbers in a traceback got wrong."""

    def test_duplicate_order_is_not_a_lack_of_balance(self):
        failure = coded(SPOT, 400, -2010, "Duplicate order sent.")
        assert (failure.failure_class, failure.advice) == (C.DUPLICATE_ID, Advice.RESEND_AFTER_PROOF)

    def test_unknown_outcomes_are_never_sent_again_unproven(self):
        for failure in (coded(USDM, 400, -1006), coded(USDM, 408, -1007), answer(USDM, 503, "")):
            assert failure.advice is Advice.RESEND_AFTER_PROOF

    def test_ban_is_not_an_ordinary_rate_limit(self):
        assert answer(SPOT, 418, "").failure_class is C.BANNED

    def test_bad_key_is_not_retried(self):
        assert coded(USDM, 401, -2015).advice is Advice.PERSON

    @pytest.mark.parametrize("msg", ["Filter failure: LOT_SIZE timeout=10", "Filter failure: LOT_SIZE qty=0.503"])
    def test_words_and_numbers_inside_a_text_change_nothing(self, msg):
        assert coded(SPOT, 400, -1013, msg).advice is Advice.NEVER

    def test_too_many_orders_waits_for_the_limit(self):
        assert coded(USDM, 429, -1015).advice is Advice.RETRY_AT

    def test_absent_order_is_a_known_answer(self):
        assert coded(USDM, 400, -2013, method="query").rule == "no_such_order"


@pytest.mark.parametrize("method", ["order", "cancel"])
@pytest.mark.parametrize("fault", TransportFault)
def test_only_a_connection_never_made_counts_as_not_sent(fault, method):
    failure = classify_transport(fault=fault, method=method, detail="no\nroute")
    if fault is TransportFault.OTHER:
        assert (failure.certainty, failure.failure_class) == (UNKNOWN, C.OUTCOME_UNKNOWN)
    else:
        assert failure.certainty is Certainty.NOT_SENT
        assert failure.advice is Advice.RETRY_AFTER_DELAY
    assert (failure.http_status, failure.code, failure.message) == (None, None, "no route")


def test_refused_certificate_counts_as_exchange_down():
    assert classify_transport(fault=TransportFault.CERTIFICATE, method="order").failure_class is C.EXCHANGE_DOWN


def test_failed_query_tells_nothing_and_is_asked_again():
    for failure in (
        answer(SPOT, 500, "", method="query"),
        answer(USDM, 200, "<html>", method="query"),
        coded(USDM, 400, -9999, method="query"),
        classify_transport(fault=TransportFault.OTHER, method="query"),
        classify_transport(fault=TransportFault.DNS, method="query"),
    ):
        assert (failure.certainty, failure.advice) == (UNKNOWN, Advice.RETRY_AFTER_DELAY)
        assert failure.failure_class is C.NOT_EXECUTED_RETRYABLE


def test_message_is_one_printable_line_of_bounded_length():
    """Half surrogates and NULs would break the log or the journal later."""
    failure = coded(USDM, 400, -2019, "a\x00b\ud800\r\nc" + "d" * 5000)
    assert failure.message.startswith("a b c")
    assert len(failure.message) == 300
    failure.message.encode()
    assert answer(USDM, 502, b"\xff<html>\n bad\x00gateway").message.endswith("<html> bad gateway")


# ---- any answer at all -------------------------------------------------------------------------------------------

MAY_BE_REFUSED = {
    venue: {
        "order": {code for v, code, _, _, certainty, _ in DOCUMENTED if v is venue and certainty is REFUSED},
    }
    for venue in BOTH
}
REFUSED_BY_STATUS = {401, 403, 404, 405, 413, 418, 429, 451}
codes = st.one_of(
    st.integers(-6000, 300), st.sampled_from(sorted({case[1] for case in DOCUMENTED})), st.integers(), st.none(),
    st.text(max_size=6), st.booleans(), st.floats(allow_nan=False), st.integers(-6000, 300).map(str),
)  # fmt: skip
texts = st.one_of(
    st.text(max_size=40),
    st.sampled_from(sorted({case[3] for case in DOCUMENTED} | {UNKNOWN_503, "Service Unavailable."})),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda x: st.lists(x) | st.dictionaries(st.text(), x),
    max_leaves=8,  # every shape and nesting; large ones cost their making and meet no other line
)
bodies = st.one_of(
    st.fixed_dictionaries({}, optional={"code": codes, "msg": texts | json_values, "orderId": st.integers()}).map(
        json.dumps
    ),
    json_values.map(json.dumps),
    st.binary(),
    st.text(),
)
statuses = st.one_of(
    st.sampled_from([200, 202, 307, 400, 401, 403, 404, 408, 409, 418, 429, 500, 502, 503, 504]), st.integers(-1, 1000)
)
header_values = st.one_of(
    st.text(max_size=40),
    st.integers().map(str),
    st.from_regex(r"[A-Z][a-z]{2}, \d{1,9} Nov \d{1,9} \d\d:\d\d:\d\d \S{0,6}"),
)


@settings(max_examples=500, deadline=None)
@given(
    venue=st.sampled_from(BOTH),
    method=st.sampled_from(METHODS),
    status=statuses,
    body=bodies,
    headers=st.dictionaries(st.sampled_from(["Retry-After", "retry-after", "X"]), header_values, max_size=2),
)
@example(venue=USDM, method="order", status=503, body="Service Unavailable.", headers={})
@example(venue=USDM, method="order", status=400, body='{"code": -2019' + " " * 9, headers={"Retry-After": ","})
def test_no_answer_at_all_is_called_not_executed_unless_a_row_lists_it(venue, method, status, body, headers):
    failure = classify_answer(venue=venue, method=method, http_status=status, body=body, headers=headers, now_ms=NOW_MS)
    if failure is None:
        assert 200 <= status <= 299
        assert isinstance(json.loads(body), dict | list)
        return
    assert describe(failure)
    assert failure.certainty in {REFUSED, UNKNOWN}
    if method == "query":
        assert failure.certainty is UNKNOWN
        return
    if failure.certainty is UNKNOWN:
        assert failure.advice is Advice.RESEND_AFTER_PROOF
        return
    # Called not executed: then the documentation, as copied above, must say so.
    assert failure.rule != "unlisted"
    if status == 503:
        assert venue is USDM
        said = json.loads(body)
        assert said.get("code", -1008) in {-1001, -1008, -1016, "-1001", "-1008", "-1016"}
        assert said.get("msg") != UNKNOWN_503
        return
    assert 400 <= status <= 499
    assert status not in {408, 409}
    if failure.code is None:
        assert status in REFUSED_BY_STATUS
    elif status not in {418, 429}:
        assert failure.code in MAY_BE_REFUSED[venue]["order"] | {-2011, -1003, -1008, -1015}


# ---- the table itself --------------------------------------------------------------------------------------------


def test_every_row_wins_for_some_answer():
    """A row that another one hides would never be used, and nobody would notice."""
    dice = random.Random(7)
    winners = set()
    for one in TABLE:
        for _ in range(60):
            code = (
                dice.choice(sorted(one.codes, key=str)) if one.codes is not None else dice.choice([Code.ABSENT, -9999])
            )
            body = {} if code is Code.ABSENT else {"code": code}
            if one.messages or one.prefixes:
                body["msg"] = dice.choice([*one.messages, *one.prefixes])
            status = dice.choice(sorted(one.statuses))
            text = "not json" if 200 <= status <= 299 and not body else json.dumps(body)
            venue, method = dice.choice(sorted(one.venues)), dice.choice(sorted(one.methods))
            failure = answer(venue, status, text, method=method)
            winners.add(failure.rule)
    assert {one.rule for one in TABLE} - winners == set()


def test_rules_are_unique_and_in_snake_case():
    rules = [one.rule for one in (*TABLE, *TRANSPORT.values())]
    assert len(rules) == len(set(rules)) == len(BY_RULE)
    assert all(rule.replace("_", "a").isalnum() and rule == rule.lower() for rule in rules)


def test_every_fault_of_the_transport_has_a_row():
    assert set(TRANSPORT) == set(TransportFault)


def test_row_that_would_resend_what_may_have_been_executed_cannot_be_written():
    with pytest.raises(ValueError, match="without proof"):
        row(C.OUTCOME_UNKNOWN, "bad", "Bad.", methods=ORDER, advice=Advice.RETRY_AFTER_DELAY)
    with pytest.raises(ValueError, match="never an acceptance"):
        row(C.OUTCOME_UNKNOWN, "bad", "Bad.", venues=BOTH_VENUES, certainty=Certainty.ACCEPTED)


def test_rate_limits_bans_and_refusals_of_the_market_do_not_count_for_the_breaker():
    innocent = {C.RATE_LIMITED, C.BANNED, C.DUPLICATE_ID, C.REJECTED_BUSINESS, C.INVALID_REQUEST, C.AUTH}
    assert [one.rule for one in TABLE if one.failure_class in innocent and one.counts_for_breaker] == []


def test_page_of_the_documentation_shows_the_table_as_it_is():
    page = Path(__file__).parents[2] / "docs" / "reference" / "failures.md"
    assert page.read_text(encoding="utf-8") == failures_page(), (
        "run python -m app.cli.failures_page > docs/reference/failures.md"
    )
    for rule in BY_RULE:
        assert f"`{rule}`" in failures_page()


def test_description_says_what_happens_next():
    assert "nothing is sent again" in describe(coded(USDM, 400, -4116))
    assert "no proof" in describe(coded(USDM, 400, -2013, method="query"))
    assert "before 1763683201000 (exchange time" in describe(
        coded(USDM, 418, -1003, "Way too many requests; IP(192.0.2.1) banned until 1763683201000.")
    )
    assert "for 30 s" in describe(answer(SPOT, 429, "", headers={"Retry-After": "30"}))
    assert "clock is read again" in describe(coded(USDM, 400, -1021))
    assert "REJECTED" in describe(coded(USDM, 400, -2019))
    assert "person" in describe(coded(USDM, 401, -2015))
    assert "asked again" in describe(answer(SPOT, 502, "", method="query"))
    assert describe(
        Failure(**{f.name: getattr(answer(SPOT, 502, ""), f.name) for f in fields(Failure)} | {"rule": "old"})
    )


# ---- fillonce explain --------------------------------------------------------------------------------------------


def run_explain(*arguments):
    cli = Typer()
    cli.command("explain", context_settings=dict(CONTEXT_SETTINGS))(explain)
    cli.command("other")(lambda: None)
    return CliRunner().invoke(cli, ["explain", *arguments])


def test_explain_shows_row_and_consequence():
    result = run_explain("-2010", "--venue", "spot", "--message", "Duplicate order sent.")
    assert result.exit_code == 0
    assert "duplicate_order_sent" in result.stdout
    assert "UNKNOWN (it may have been executed)" in result.stdout
    assert "nothing is sent again" in " ".join(result.stdout.split())
    assert "USD-M" not in result.stdout


def test_explain_does_not_take_an_http_status_for_a_code():
    result = run_explain("503", "--venue", "usdm")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--status" in result.stderr
    assert run_explain("--status", "503", "--venue", "usdm").exit_code == 0


def test_explain_lists_every_meaning_of_what_was_left_open():
    found = [json.loads(line) for line in run_explain("-2021", "--json").stdout.splitlines()]
    assert [(one["venue"], one["certainty"]) for one in found] == [("usdm", "REFUSED"), ("spot", "UNKNOWN")]
    statuses_of_1001 = {
        (one["http_status"], one["rule"])
        for one in map(json.loads, run_explain("1001", "--venue", "usdm", "--json").stdout.splitlines())
    }
    assert statuses_of_1001 == {
        (503, "usdm_503_unavailable"),
        (503, "usdm_503_internal_error"),
        (400, "unlisted"),
    }


def test_explain_takes_a_status_without_a_code():
    result = run_explain("--status", "503", "--message", "Service Unavailable.", "--json")
    assert [json.loads(line)["rule"] for line in result.stdout.splitlines()] == ["usdm_503_unavailable", "spot_5xx"]


@pytest.mark.parametrize("arguments", [[], ["--status", "200"], ["-2010", "--method", "pray"], ["abc"]])
def test_explain_refuses_what_it_cannot_answer(arguments):
    assert run_explain(*arguments).exit_code == 2
