from __future__ import annotations

from decimal import Decimal

import pytest

from app.exchange.paper.algo import is_triggered
from app.exchange.paper.commands import PlaceAlgo

D = Decimal


@pytest.mark.parametrize(
    ("side", "kind", "is_below", "is_above"),
    [
        ("BUY", "STOP_MARKET", False, True),
        ("SELL", "STOP_MARKET", True, False),
        ("BUY", "TAKE_PROFIT_MARKET", True, False),
        ("SELL", "TAKE_PROFIT_MARKET", False, True),
        ("BUY", "STOP", False, True),
        ("SELL", "TAKE_PROFIT", False, True),
    ],
)
def test_stops_follow_the_move_and_take_profits_await_it(side: str, kind: str, is_below: bool, is_above: bool) -> None:
    command = PlaceAlgo(
        at=0,
        symbol="BTCUSDT",
        side=side,
        type=kind,
        client_algo_id="a",
        trigger_price=D(100),
        actual_client_order_id="b",
        quantity=D(1),
    )
    assert [is_triggered(command, D(price)) for price in (99, 100, 101)] == [is_below, True, is_above]
