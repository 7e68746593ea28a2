"""Answers that mean the same on both venues. Source: BINANCE.md sections 1, 2 and 7, which cite Binance's pages."""

from typing import Final

from app.job_safety.failure_row import (
    ANY_STATUS,
    CANCEL,
    MUTATIONS,
    ORDER,
    QUERY,
    REDIRECT,
    SENDER_ERROR,
    SUCCESS,
    Code,
    Gate,
    Row,
    TransportFault,
    row,
)
from app.job_safety.outcome import AlertLevel, Certainty, FailureClass

_ENGINE_CODES = frozenset({-1010, -2010})
"""One list of texts serves both (errors.md). A text that is not on it is left to `unlisted`: it could be a new way of
saying that the id is in use, and then the order lives."""
_ACCOUNT_TEXTS = (
    "This action is disabled on this account.",
    "This account may not place or cancel orders.",
    "Rest API trading is not enabled.",
)

IN_DOUBT_ROWS: Final[tuple[Row, ...]] = (
    # First, whatever the status: an answer that contradicts itself is as uncertain as its most uncertain part.
    row(
        FailureClass.OUTCOME_UNKNOWN,
        "execution_status_unknown",
        "The exchange itself does not know what became of the request.",
        statuses=ANY_STATUS,
        codes=frozenset({-1000, -1006, -1007}),
    ),
)

SHARED_ROWS: Final[tuple[Row, ...]] = (
    row(
        FailureClass.OUTCOME_UNKNOWN,
        "unreadable_success",
        "The exchange answered with success, but the answer is empty, cut off or not JSON.",
        statuses=SUCCESS,
        codes=frozenset({Code.ABSENT}),
    ),
    row(
        FailureClass.OUTCOME_UNKNOWN,
        "error_in_success",
        "An error code inside an answer with a success status: the two contradict each other.",
        statuses=SUCCESS,
    ),
    row(
        FailureClass.OUTCOME_UNKNOWN,
        "redirect",
        "Something on the way redirected the request. Redirects are not followed: that would send it twice.",
        statuses=REDIRECT,
    ),
    row(
        FailureClass.OUTCOME_UNKNOWN,
        "backend_timeout",
        "The exchange's front timed out waiting for what is behind it.",
        statuses=frozenset({408}),
    ),
    row(
        FailureClass.OUTCOME_UNKNOWN,
        "partial_success",
        "A request that did two things succeeded in one of them.",
        statuses=frozenset({409}),
    ),
    row(
        FailureClass.BANNED,
        "ip_banned",
        "The exchange has banned our address for sending too much. Every further request makes the ban longer.",
        statuses=SENDER_ERROR | {418, 429},
        codes=frozenset({-1003}),
        prefixes=(
            "Way too many requests; IP",
            "Way too much request weight used; IP",
            "Too many request weights; IP",
        ),
    ),
    row(
        FailureClass.BANNED,
        "http_418",
        "The exchange has banned our address for sending too much. Every further request makes the ban longer.",
        statuses=frozenset({418}),
    ),
    row(
        FailureClass.RATE_LIMITED,
        "too_many_orders",
        "The account has placed too many orders in a short time.",
        statuses=SENDER_ERROR | {429},
        codes=frozenset({-1015}),
        gate=Gate.ORDERS,
    ),
    row(
        FailureClass.RATE_LIMITED,
        "too_many_requests",
        "Our address has sent too many requests in a short time.",
        statuses=SENDER_ERROR | {429},
        codes=frozenset({-1003}),
    ),
    row(
        FailureClass.RATE_LIMITED,
        "http_429",
        "A limit on requests or orders was reached.",
        statuses=frozenset({429}),
    ),
    row(
        FailureClass.CLOCK_SKEW,
        "timestamp_outside_window",
        "The request's timestamp does not fit the exchange's clock: ours is off, or the request took too long.",
        codes=frozenset({-1021}),
    ),
    row(
        FailureClass.AUTH,
        "not_authorized",
        "The API key, its rights, or the signature is not accepted. (After earlier success, -2015 can be a short ban.)",
        codes=frozenset({-1002, -1022, -2008, -2014, -2015, -2017}),
    ),
    row(
        FailureClass.EXCHANGE_DOWN,
        "service_shutting_down",
        "The exchange says that this service is no longer available.",
        codes=frozenset({-1016}),
    ),
    row(
        FailureClass.INVALID_REQUEST,
        "invalid_parameter",
        "The request is malformed: a bug of ours, or a change at the exchange.",
        codes=frozenset(
            {-1014, -1020, -1111, -1127, -1128, -1130, -1131, -1134, -1135, -1136, -1145}
            | set(range(-1108, -1099))
            | set(range(-1121, -1113))
        ),
    ),
    row(
        FailureClass.REJECTED_BUSINESS,
        "no_depth",
        "There is nothing on the book to trade against, or the symbol is in no state to be traded.",
        methods=ORDER,
        codes=frozenset({-1112, -1122}),
    ),
    row(
        FailureClass.DUPLICATE_ID,
        "duplicate_order_sent",
        "An open order with this client order id exists: this attempt was turned away, an earlier one may live.",
        methods=ORDER,
        codes=_ENGINE_CODES,
        messages=("Duplicate order sent.",),
    ),
    row(
        FailureClass.AUTH,
        "account_disabled",
        "The exchange has disabled trading on this account.",
        methods=MUTATIONS,
        codes=_ENGINE_CODES | {-2011},
        messages=_ACCOUNT_TEXTS,
    ),
    row(
        FailureClass.REJECTED_BUSINESS,
        "insufficient_balance",
        "The account does not hold enough for this order.",
        methods=ORDER,
        codes=_ENGINE_CODES,
        messages=("Account has insufficient balance for requested action.",),
    ),
    row(
        FailureClass.REJECTED_BUSINESS,
        "market_closed",
        "The symbol is not trading.",
        methods=ORDER,
        codes=_ENGINE_CODES,
        messages=("Market is closed.",),
    ),
    row(
        FailureClass.REJECTED_BUSINESS,
        "would_trigger_or_match",
        "The order would have triggered or traded at once, which it was not allowed to do.",
        methods=ORDER,
        codes=_ENGINE_CODES,
        messages=("Order would trigger immediately.", "Order would immediately match and take."),
    ),
    row(
        FailureClass.REJECTED_BUSINESS,
        "filter_failure",
        "Price or quantity breaks one of the symbol's filters.",
        methods=ORDER,
        codes=_ENGINE_CODES,
        messages=("Price * QTY is zero or less.", "IcebergQty exceeds QTY."),
        prefixes=("Filter failure: ", "Order book liquidity is less than "),
    ),
    row(
        FailureClass.REJECTED_BUSINESS,
        "symbol_restricted",
        "This account may not trade this symbol.",
        methods=ORDER,
        codes=_ENGINE_CODES,
        messages=("This symbol is not permitted for this account.", "This symbol is restricted for this account."),
        alert=AlertLevel.HIGH,
    ),
    row(
        FailureClass.INVALID_REQUEST,
        "unsupported_order",
        "The symbol does not take this kind of order, or its parts do not go together.",
        methods=ORDER,
        codes=_ENGINE_CODES,
        messages=(
            "Market orders are not supported for this symbol.",
            "Iceberg orders are not supported for this symbol.",
            "Stop loss orders are not supported for this symbol.",
            "Stop loss limit orders are not supported for this symbol.",
            "Take profit orders are not supported for this symbol.",
            "Take profit limit orders are not supported for this symbol.",
            "Trailing stop orders are not supported for this symbol.",
            "Quote order qty market orders are not support for this symbol.",
            "Unsupported order combination",
            "Unsupported order combination.",
        ),
    ),
    row(
        FailureClass.OUTCOME_UNKNOWN,
        "cancel_found_no_order",
        "There was nothing to cancel: the order is filled, canceled, or not visible yet. Only a query can tell.",
        methods=CANCEL,
        codes=frozenset({-2011, -2013}),
        counts_for_breaker=False,
        alert=AlertLevel.INFO,
    ),
    row(
        FailureClass.OUTCOME_UNKNOWN,
        "no_such_order_on_placement",
        "A new order was answered as if it were a question about an old one: most likely a wrong address or path.",
        methods=ORDER,
        codes=frozenset({-2011, -2013}),
        alert=AlertLevel.CRITICAL,
    ),
    row(
        FailureClass.NOT_EXECUTED_RETRYABLE,
        "no_such_order",
        "The exchange knows no order with this id, or does not show it yet.",
        methods=QUERY,
        statuses=frozenset({400}),
        codes=frozenset({-2013}),
        certainty=Certainty.UNKNOWN,
        counts_for_breaker=False,
        alert=AlertLevel.NONE,
    ),
    row(
        FailureClass.BANNED,
        "firewall",
        "The exchange's firewall turned the request away: too many requests, or a request that looks like an attack.",
        statuses=frozenset({403}),
        codes=frozenset({Code.ABSENT}),
    ),
    row(
        FailureClass.AUTH,
        "http_unauthorized",
        "The exchange does not serve this key, or this place.",
        statuses=frozenset({401, 451}),
        codes=frozenset({Code.ABSENT}),
    ),
    row(
        FailureClass.INVALID_REQUEST,
        "http_no_such_endpoint",
        "There is no such endpoint, or it does not take this kind of request.",
        statuses=frozenset({404, 405, 413}),
        codes=frozenset({Code.ABSENT}),
    ),
)

UNLISTED: Final[Row] = row(
    FailureClass.OUTCOME_UNKNOWN,
    "unlisted",
    "No row of the table knows this answer, so the request may have been executed.",
    statuses=ANY_STATUS,
)

_NOT_SENT = "The connection was never made, so no byte of the request was read."


def _not_sent(rule: str, failure_class: FailureClass = FailureClass.NOT_EXECUTED_RETRYABLE) -> Row:
    return row(failure_class, rule, _NOT_SENT, statuses=frozenset(), certainty=Certainty.NOT_SENT)


TRANSPORT_ROWS: Final[tuple[tuple[TransportFault, Row], ...]] = (
    (TransportFault.CONNECTION_REFUSED, _not_sent("transport_connection_refused")),
    (TransportFault.DNS, _not_sent("transport_dns")),
    (TransportFault.CONNECT_TIMEOUT, _not_sent("transport_connect_timeout")),
    (TransportFault.PROXY_REFUSED, _not_sent("transport_proxy_refused")),
    (TransportFault.CERTIFICATE, _not_sent("transport_certificate", FailureClass.EXCHANGE_DOWN)),
    (
        TransportFault.OTHER,
        row(
            FailureClass.OUTCOME_UNKNOWN,
            "transport_other",
            "No answer came back, and the request may have arrived.",
            statuses=frozenset(),
        ),
    ),
)
