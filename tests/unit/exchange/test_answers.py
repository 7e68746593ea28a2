"""What the answer to an order proves."""

import json
from decimal import Decimal
from typing import Any

import pytest

from app.exchange.answers import accepted_order, load_object
from app.exchange.errors import AnswerShapeError
from app.exchange.models import PinnedOrder
from app.job_safety.outcome import Accepted, Venue

ORDER = PinnedOrder(
    venue=Venue.SPOT, symbol="BTCUSDT", side="BUY", order_type="LIMIT", quantity=Decimal("0.5"), price=Decimal(20000),
    time_in_force="GTC", client_order_id="fo-a", timestamp_ms=1, recv_window_ms=3000,
)  # fmt: skip
ACKNOWLEDGED = {"symbol": "BTCUSDT", "orderId": 28, "orderListId": -1, "clientOrderId": "fo-a", "transactTime": 7}


def accepted(**changes: Any) -> Accepted:
    body = json.dumps({**ACKNOWLEDGED, **changes}).encode()
    return accepted_order(ORDER, load_object(body), body)


def test_acknowledgment_alone_proves_the_order_and_claims_no_fill() -> None:
    order = accepted().order
    assert (order.order_id, order.client_order_id, order.status) == (28, "fo-a", "NEW")
    assert (order.quantity, order.executed_quantity, order.price) == (Decimal("0.5"), 0, 20000)
    assert (order.side, order.order_type, order.time_ms) == ("BUY", "LIMIT", 7)


@pytest.mark.parametrize(
    "changes",
    [
        {"orderId": None},
        {"orderId": "28"},
        {"clientOrderId": "fo-b"},
        {"symbol": "ETHUSDT"},
        {"status": "NEW"},  # neither an acknowledgment nor a whole answer
        {"executedQty": "0.1"},
    ],
    ids=str,
)
def test_answer_that_is_not_about_our_order_or_not_whole_proves_nothing(changes: dict[str, Any]) -> None:
    with pytest.raises(AnswerShapeError):
        accepted(**changes)
