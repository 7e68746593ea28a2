"""Answers that mean something of their own on USD-M futures.

Source: developers.binance.com, USD-M futures, general information ("HTTP 503 Status: Message Variants & Handling")
and error codes. Whoever adds a code: only what the documentation calls not executed may be REFUSED.
"""

from typing import Final

from app.job_safety.failure_row import (
    CANCEL,
    ORDER,
    SENDER_ERROR,
    SERVER_ERROR,
    Code,
    Row,
    row,
)
from app.job_safety.outcome import Advice, AlertLevel, FailureClass, Venue

_USDM = frozenset({Venue.USDM})
_503 = frozenset({503})


def _codes(*parts: int | range) -> frozenset[int]:
    """Return error codes, given without their minus sign."""
    return frozenset(-code for part in parts for code in (part if isinstance(part, range) else (part,)))


_THROTTLED = (
    "Request throttled by system-level protection. Reduce-only/close-position orders are exempt. Please try again."
)
_CONFIG_CODES = _codes(4060, 4061, 4062, 4137, 4138, 4531)

USDM_ROWS: Final[tuple[Row, ...]] = (
    # The four documented 503 texts. Only an exact text in JSON counts: a proxy's own 503 page proves nothing. Codes
    # that contradict the text (-1000, -1006, -1007) never come this far, and others fall through to `usdm_5xx`.
    row(
        FailureClass.OUTCOME_UNKNOWN,
        "usdm_503_unknown",
        "The exchange passed the request on and got no reply in time; it may have been executed.",
        venues=_USDM,
        statuses=_503,
        messages=("Unknown error, please check your request or try again later.",),
    ),
    row(
        FailureClass.EXCHANGE_DOWN,
        "usdm_503_unavailable",
        "The service is unavailable; the exchange documents this text as certainly not executed.",
        venues=_USDM,
        statuses=_503,
        codes=_codes(1001, 1008, 1016) | {Code.ABSENT},
        messages=("Service Unavailable.",),
    ),
    row(
        FailureClass.NOT_EXECUTED_RETRYABLE,
        "usdm_503_internal_error",
        "An internal error that the exchange documents as a failed operation, free to be sent again.",
        venues=_USDM,
        statuses=_503,
        codes=_codes(1001) | {Code.ABSENT},
        messages=("Internal error; unable to process your request. Please try again.",),
    ),
    row(
        FailureClass.NOT_EXECUTED_RETRYABLE,
        "usdm_503_overloaded_no_code",
        "The exchange is overloaded and turned the request away; send less at a time.",
        venues=_USDM,
        statuses=_503,
        codes=frozenset({Code.ABSENT}),
        messages=(_THROTTLED, "Server is currently overloaded with other requests. Please try again in a few minutes."),
    ),
    row(
        FailureClass.NOT_EXECUTED_RETRYABLE,
        "usdm_overloaded",
        "The exchange is overloaded and turned the request away; send less at a time.",
        venues=_USDM,
        statuses=SENDER_ERROR | _503,
        codes=_codes(1008),
    ),
    row(
        FailureClass.OUTCOME_UNKNOWN,
        "usdm_5xx",
        "An error inside the exchange that is none of the documented failures; the request may have been executed.",
        venues=_USDM,
        statuses=SERVER_ERROR,
    ),
    row(
        FailureClass.DUPLICATE_ID,
        "usdm_duplicate_client_order_id",
        "An open order with this client order id exists: this attempt was turned away, an earlier one may live.",
        venues=_USDM,
        methods=ORDER,
        codes=_codes(4116),
    ),
    row(
        FailureClass.CLOCK_SKEW,
        "matching_engine_recv_window",
        "The request reached the matching engine after its recvWindow, too late to be executed.",
        venues=_USDM,
        methods=ORDER,
        codes=_codes(5028),
        # With a good clock this is latency: the exchange, or the way to it, is slow.
        counts_for_breaker=True,
    ),
    row(
        FailureClass.NOT_EXECUTED_RETRYABLE,
        "stop_order_triggering",
        "The stop order is triggering at this moment; the exchange asks to try again later.",
        venues=_USDM,
        methods=ORDER | CANCEL,
        codes=_codes(4117),
        counts_for_breaker=False,
        alert=AlertLevel.INFO,
    ),
    row(
        FailureClass.AUTH,
        "usdm_account_or_address",
        "The account, or the address that we call from, is not allowed to do this.",
        venues=_USDM,
        codes=_codes(1004, 1005, 1011, 1099, 1109, 4109),
    ),
    row(
        FailureClass.REJECTED_BUSINESS,
        "usdm_no_funds",
        "Balance, margin, position or leverage does not allow this order.",
        venues=_USDM,
        methods=ORDER,
        codes=_codes(2018, 2019, 2024, 2027, 2028, 4050, 4051),
    ),
    row(
        FailureClass.REJECTED_BUSINESS,
        "usdm_cannot_fill",
        "The order cannot be filled.",
        venues=_USDM,
        methods=ORDER,
        codes=_codes(2020),
    ),
    row(
        FailureClass.REJECTED_BUSINESS,
        "usdm_would_trigger",
        "The order would trigger at once.",
        venues=_USDM,
        methods=ORDER,
        codes=_codes(2021),
    ),
    row(
        FailureClass.REJECTED_BUSINESS,
        "usdm_reduce_only",
        "A reduce-only order was refused: the position is not what we believe, and the books must be compared.",
        venues=_USDM,
        methods=ORDER,
        codes=_codes(2022, 4118),
        alert=AlertLevel.HIGH,
    ),
    row(
        FailureClass.REJECTED_BUSINESS,
        "usdm_liquidation",
        "The account is being liquidated.",
        venues=_USDM,
        methods=ORDER,
        codes=_codes(2023),
        alert=AlertLevel.CRITICAL,
    ),
    row(
        FailureClass.REJECTED_BUSINESS,
        "usdm_too_many_open_orders",
        "The account holds as many open orders as it may.",
        venues=_USDM,
        methods=ORDER,
        codes=_codes(2025, 4045),
    ),
    row(
        FailureClass.INVALID_REQUEST,
        "usdm_unsupported_order",
        "This endpoint does not take this kind of order; conditional orders go to the algo endpoint.",
        venues=_USDM,
        methods=ORDER,
        codes=_codes(2026, 4120),
    ),
    row(
        FailureClass.INVALID_REQUEST,
        "usdm_client_order_id",
        "The client order id is not one that the exchange accepts.",
        venues=_USDM,
        methods=ORDER,
        codes=_codes(4015),
    ),
    row(
        FailureClass.REJECTED_BUSINESS,
        "usdm_filter",
        "Price or quantity breaks one of the symbol's filters.",
        venues=_USDM,
        methods=ORDER,
        codes=_codes(range(4000, 4015), range(4016, 4032), 4131, 4142, 4164, 4183, 4184, 4210, 4211),
    ),
    row(
        FailureClass.INVALID_REQUEST,
        "usdm_position_mode",
        "The account's position mode is not the one that we are configured for.",
        venues=_USDM,
        methods=ORDER,
        codes=_CONFIG_CODES,
        advice=Advice.PERSON,
    ),
    row(
        FailureClass.REJECTED_BUSINESS,
        "usdm_restricted",
        "The account or the symbol may not be traded this way now.",
        venues=_USDM,
        methods=ORDER,
        codes=_codes(4087, 4088, 4105, 4106, 4107, 4140, 4141, 4189, 4192, 4400, 4401, 4402),
        alert=AlertLevel.HIGH,
    ),
    row(
        FailureClass.REJECTED_BUSINESS,
        "usdm_fok_or_post_only",
        "A fill-or-kill order could not fill, or a post-only order would have; the exchange keeps no record of it.",
        venues=_USDM,
        methods=ORDER,
        codes=_codes(5021, 5022),
    ),
    row(
        FailureClass.INVALID_REQUEST,
        "usdm_order_options",
        "The order's options (amendment, price match, self-trade prevention, good-till-date) do not fit together.",
        venues=_USDM,
        methods=ORDER,
        codes=_codes(range(5024, 5028), 5029, range(5037, 5044), 5047),
    ),
)
