"""What follows from an intent when it is taken."""

from typing import Any

import pytest

from app.execution.parcels import parcel_of
from app.intents import OrderIntent, describe, from_canonical, parse_intent
from app.producer import Terms, queue_of
from app.producer.terms import SWEEP_AFTER_MS
from tests.unit.test_intents import EVERY_TYPE

TERMS = Terms(account="main", mode="paper", default_valid_for_s=30)
NOW_MS = 1_700_000_000_000
STOP: dict[str, Any] = {"order_type": "STOP_MARKET", "stop_price": "1"}


def order(**fields: object) -> OrderIntent:
    base = {"type": "order", "key": "a", "symbol": "BTCUSDT", "side": "BUY", "quantity": "1"}
    intent = parse_intent({**base, **fields})
    assert isinstance(intent, OrderIntent)
    return intent


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ({}, 30),
        ({"valid_for_s": 5}, 5),
        ({"reduce_only": True}, None),
        ({"reduce_only": True, "valid_for_s": 5}, 5),
        (STOP, 30),
        ({**STOP, "reduce_only": True}, None),
        ({**STOP, "venue": "spot", "side": "SELL"}, None),
        ({**STOP, "venue": "spot"}, 30),
    ],
)
def test_what_opens_risk_has_a_validity_and_what_protects_has_none(
    fields: dict[str, object], seconds: int | None
) -> None:
    expected = None if seconds is None else NOW_MS + seconds * 1000
    assert TERMS.row(order(**fields), NOW_MS).valid_until_ms == expected


@pytest.mark.parametrize(("fields", "seconds"), [({}, 30), ({"reduce_only": True}, None), ({"valid_for_s": 9}, 9)])
def test_a_signal_has_the_validity_of_its_order(fields: dict[str, object], seconds: int | None) -> None:
    base = {"type": "signal", "key": "s", "strategy": "x", "symbol": "BTCUSDT", "side": "BUY", "quantity": "1"}
    row = TERMS.row(parse_intent({**base, **fields}), NOW_MS)
    assert row.valid_until_ms == (None if seconds is None else NOW_MS + seconds * 1000)
    assert row.opens_risk is (not fields.get("reduce_only", False))


@pytest.mark.parametrize(
    ("fields", "queue", "is_algo"),
    [
        ({}, "orders", False),
        ({"reduce_only": True}, "urgent", False),
        (STOP, "orders", True),
        ({**STOP, "reduce_only": True}, "urgent", True),
        ({**STOP, "venue": "spot", "side": "SELL"}, "urgent", False),
    ],
)
def test_protective_orders_do_not_wait_behind_opens(fields: dict[str, object], queue: str, is_algo: bool) -> None:
    row = TERMS.row(order(**fields), NOW_MS)
    assert (row.queue, row.is_algo) == (queue, is_algo)


def test_the_row_of_an_order_holds_what_the_worker_needs() -> None:
    intent = order()
    row = TERMS.row(intent, NOW_MS)
    assert from_canonical(row.content) == intent
    assert row.client_order_id is not None
    assert row.client_order_id.startswith("fo-")
    assert (row.venue, row.symbol, row.opens_risk, row.run_at_ms) == ("usdm", "BTCUSDT", True, NOW_MS + SWEEP_AFTER_MS)


@pytest.mark.parametrize("other", [{"account": "second"}, {"mode": "testnet"}])
def test_another_account_or_mode_has_other_client_order_ids(other: dict[str, str]) -> None:
    terms = Terms(**{"account": "main", "mode": "paper", **other}, default_valid_for_s=30)
    assert terms.row(order(), NOW_MS).client_order_id != TERMS.row(order(), NOW_MS).client_order_id


def test_a_cancel_is_urgent_and_belongs_to_its_order() -> None:
    row = TERMS.row(parse_intent({"type": "cancel", "key": "c", "order_key": "a"}), NOW_MS)
    assert (row.queue, row.parent_key, row.client_order_id, row.opens_risk) == ("urgent", "a", None, False)
    assert (row.valid_until_ms, row.venue, row.symbol) == (None, None, None)


@pytest.mark.parametrize(("kind", "queue"), [("position", "positions"), ("pnl", "pnl")])
def test_book_jobs_go_to_the_queue_of_their_book(kind: str, queue: str) -> None:
    trade = {
        "id": 1,
        "orderId": 2,
        "side": "BUY",
        "price": "1",
        "qty": "1",
        "commission": "0",
        "commissionAsset": "USDT",
        "time": 1,
    }
    intent = parse_intent({"type": kind, "key": "p", "venue": "spot", "symbol": "BTCUSDT", "trade": trade})
    row = TERMS.row(intent, NOW_MS)
    assert (row.queue, row.opens_risk, row.valid_until_ms, row.venue) == (queue, False, None, "spot")
    assert queue_of(intent) == parcel_of(TERMS.row(intent, NOW_MS)).queue


@pytest.mark.parametrize("data", EVERY_TYPE, ids=lambda data: data["type"])
def test_the_producer_describes_a_job_as_the_sweeper_does(data: dict[str, Any]) -> None:
    """The one from the intent at hand, the other from the text in the journal."""
    row = TERMS.row(parse_intent(data), NOW_MS)
    assert parcel_of(row).description == row.description == describe(row.content)
