"""Answers that mean something of their own on Spot.

Source: binance-spot-api-docs, rest-api.md ("HTTP Return Codes") and errors.md. Spot says of every 5xx that its
execution status is unknown; no text in the body changes that.
"""

from typing import Final

from app.job_safety.failure_row import (
    ANY_STATUS,
    MUTATIONS,
    ORDER,
    QUERY,
    SERVER_ERROR,
    Row,
    row,
)
from app.job_safety.outcome import Advice, AlertLevel, Certainty, FailureClass, Venue

_SPOT = frozenset({Venue.SPOT})

SPOT_ROWS: Final[tuple[Row, ...]] = (
    row(
        FailureClass.OUTCOME_UNKNOWN,
        "spot_overloaded",
        "Spot is overloaded, and does not say whether the request was executed.",
        venues=_SPOT,
        statuses=ANY_STATUS,
        codes=frozenset({-1008}),
    ),
    row(
        FailureClass.OUTCOME_UNKNOWN,
        "spot_5xx",
        "An error inside the exchange. Spot says of every one that the request may have been executed.",
        venues=_SPOT,
        statuses=SERVER_ERROR,
    ),
    row(
        FailureClass.REJECTED_BUSINESS,
        "spot_invalid_message",
        "The order breaks a filter or a rule of the symbol; it did not reach the matching engine.",
        venues=_SPOT,
        methods=ORDER,
        codes=frozenset({-1013}),
    ),
    row(
        FailureClass.OUTCOME_UNKNOWN,
        "spot_cancel_replace",
        "A cancel-replace or an amendment failed, perhaps in part. We send neither: something else speaks for us.",
        venues=_SPOT,
        methods=MUTATIONS,
        codes=frozenset({-2021, -2022, -2038}),
        alert=AlertLevel.CRITICAL,
    ),
    row(
        FailureClass.OUTCOME_UNKNOWN,
        "spot_id_mismatch",
        "The client order id does not belong to this order id; a cancel renames an order on Spot.",
        venues=_SPOT,
        codes=frozenset({-2039}),
        counts_for_breaker=False,
    ),
    row(
        FailureClass.REJECTED_BUSINESS,
        "spot_order_archived",
        "The order did exist: it ended without a fill more than 90 days ago.",
        venues=_SPOT,
        methods=QUERY,
        codes=frozenset({-2026}),
        certainty=Certainty.UNKNOWN,
        advice=Advice.PERSON,
        alert=AlertLevel.HIGH,
    ),
)
