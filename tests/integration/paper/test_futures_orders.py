from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from binance.exceptions import BinanceAPIException

D = Decimal


def refusal(call: Any, **params: Any) -> tuple[int, int]:
    with pytest.raises(BinanceAPIException) as caught:
        call(**params)
    return caught.value.status_code, caught.value.code


def test_market_order_fills_at_the_best_ask_and_moves_position_wallet_and_trades(start) -> None:
    client = start().client()
    order = client.futures_create_order(
        symbol="BTCUSDT", side="BUY", type="MARKET", quantity="0.010", newClientOrderId="m-1", newOrderRespType="RESULT"
    )
    assert (order["status"], order["executedQty"], order["clientOrderId"]) == ("FILLED", "0.010", "m-1")
    assert D(order["avgPrice"]) == D("20000.10")
    trades = client.futures_account_trades(symbol="BTCUSDT", orderId=order["orderId"])
    fee = D("20000.10") * D("0.010") * D("0.0005")
    assert [(D(row["qty"]), D(row["commission"]), row["maker"]) for row in trades] == [(D("0.010"), fee, False)]
    assert "clientOrderId" not in trades[0]
    position = client.futures_position_information(symbol="BTCUSDT")[0]
    assert (D(position["positionAmt"]), D(position["entryPrice"])) == (D("0.010"), D("20000.10"))
    assert D(client.futures_account_balance()[0]["balance"]) == D(100000) - fee
    assert D(client.futures_account()["totalWalletBalance"]) == D(100000) - fee


def test_ack_is_the_default_and_shows_nothing_executed(paper) -> None:
    order = paper.client().futures_create_order(**paper.market_order("ack-1"))
    assert (order["status"], order["executedQty"]) == ("NEW", "0")
    assert paper.client().futures_get_order(symbol="BTCUSDT", origClientOrderId="ack-1")["status"] == "FILLED"


def test_market_order_larger_than_a_level_trades_in_pieces_at_worse_prices(start) -> None:
    client = start("--level-notional", "2000").client()
    order = client.futures_create_order(
        symbol="BTCUSDT", side="SELL", type="MARKET", quantity="0.250", newOrderRespType="RESULT"
    )
    rows = client.futures_account_trades(symbol="BTCUSDT", orderId=order["orderId"])
    assert [row["qty"] for row in rows] == ["0.100", "0.100", "0.050"]
    assert [row["price"] for row in rows] == ["20000.00", "19999.90", "19999.80"]
    assert [row["id"] for row in rows] == sorted({row["id"] for row in rows})


def test_resting_order_fills_in_parts_when_the_price_reaches_it(start) -> None:
    exchange = start("--level-notional", "2000")
    client = exchange.client()
    client.futures_create_order(
        symbol="BTCUSDT",
        side="BUY",
        type="LIMIT",
        timeInForce="GTC",
        price="19900",
        quantity="0.150",
        newClientOrderId="r",
    )
    seen = []
    for price in ("19950", "19900", "19890"):
        exchange.price("BTCUSDT", price)
        order = client.futures_get_order(symbol="BTCUSDT", origClientOrderId="r")
        seen.append((order["status"], D(order["executedQty"])))
    assert seen == [("NEW", D(0)), ("PARTIALLY_FILLED", D("0.1")), ("FILLED", D("0.15"))]
    trades = client.futures_account_trades(symbol="BTCUSDT")
    assert {(row["price"], row["maker"]) for row in trades} == {("19900", True)}


def test_client_order_id_is_unique_among_open_orders_only(paper) -> None:
    client = paper.client()
    resting = {
        "symbol": "ETHUSDT",
        "side": "BUY",
        "type": "LIMIT",
        "timeInForce": "GTC",
        "price": "1550",
        "quantity": "0.1",
    }
    first = client.futures_create_order(**resting, newClientOrderId="same")
    assert refusal(client.futures_create_order, **resting, newClientOrderId="same") == (400, -4116)
    client.futures_cancel_order(symbol="ETHUSDT", orderId=first["orderId"])
    second = client.futures_create_order(**resting, newClientOrderId="same")
    assert second["orderId"] == first["orderId"] + 1
    client.futures_cancel_order(symbol="ETHUSDT", origClientOrderId="same")
    assert paper.truth()["accepted_by_client_order_id"]["futures"]["ETHUSDT"]["same"] == 2


def test_filled_market_order_buys_again_under_the_same_id(paper) -> None:
    """The trap the project exists for: the id is no idempotency key."""
    client = paper.client()
    ids = {client.futures_create_order(**paper.market_order("again"))["orderId"] for _ in range(2)}
    assert len(ids) == 2
    assert client.futures_get_order(symbol="BTCUSDT", origClientOrderId="again")["orderId"] == max(ids)


def test_canceled_futures_order_keeps_its_client_order_id(paper) -> None:
    client = paper.client()
    client.futures_create_order(
        symbol="BTCUSDT",
        side="BUY",
        type="LIMIT",
        timeInForce="GTC",
        price="19500",
        quantity="0.01",
        newClientOrderId="keep",
    )
    assert client.futures_cancel_order(symbol="BTCUSDT", origClientOrderId="keep")["status"] == "CANCELED"
    assert client.futures_get_order(symbol="BTCUSDT", origClientOrderId="keep")["status"] == "CANCELED"
    assert refusal(client.futures_cancel_order, symbol="BTCUSDT", origClientOrderId="keep") == (400, -2011)
    reply = paper.raw("GET", "/fapi/v1/openOrder", {"symbol": "BTCUSDT", "origClientOrderId": "keep"})
    assert (reply.status_code, reply.json()["code"]) == (400, -2013)


@pytest.mark.parametrize(("time_in_force", "price", "code"), [("FOK", "19000", -5021), ("GTX", "20100", -5022)])
def test_fok_and_post_only_rejects_leave_no_record(paper, time_in_force: str, price: str, code: int) -> None:
    client = paper.client()
    order = {"symbol": "BTCUSDT", "side": "BUY", "type": "LIMIT", "quantity": "0.01", "price": price}
    name = f"no-record-{time_in_force}"
    assert refusal(client.futures_create_order, **order, timeInForce=time_in_force, newClientOrderId=name) == (
        400,
        code,
    )
    assert refusal(client.futures_get_order, symbol="BTCUSDT", origClientOrderId=name) == (400, -2013)
    assert name not in {row["clientOrderId"] for row in client.futures_get_all_orders(symbol="BTCUSDT")}


def test_ioc_expires_with_what_it_got(start) -> None:
    client = start("--level-notional", "2000").client()
    order = client.futures_create_order(
        symbol="BTCUSDT",
        side="BUY",
        type="LIMIT",
        timeInForce="IOC",
        price="20000.10",
        quantity="0.300",
        newOrderRespType="RESULT",
    )
    assert (order["status"], D(order["executedQty"])) == ("EXPIRED", D("0.099"))


def test_reduce_only_is_refused_without_a_position_and_clipped_to_one(start) -> None:
    exchange = start()
    client = exchange.client()
    reduce = exchange.market_order("red", side="SELL", quantity="0.050", reduceOnly="true", newOrderRespType="RESULT")
    assert refusal(client.futures_create_order, **reduce) == (400, -2022)
    client.futures_create_order(**exchange.market_order("open", quantity="0.020"))
    order = client.futures_create_order(**reduce)
    assert (order["status"], D(order["executedQty"])) == ("EXPIRED", D("0.020"))
    assert exchange.truth()["positions"]["BTCUSDT"]["amount"] == "0.000"


def test_order_beyond_the_margin_is_refused_and_changes_nothing(start) -> None:
    exchange = start("--deposit", "futures:USDT:100")
    client = exchange.client()
    assert refusal(client.futures_create_order, **exchange.market_order("big", quantity="0.200")) == (400, -2019)
    assert client.futures_change_leverage(symbol="BTCUSDT", leverage=50)["leverage"] == 50
    client.futures_create_order(**exchange.market_order("big", quantity="0.200"))
    assert exchange.truth()["summary"]["futures"]["orders"] == 1


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"quantity": "0.0105"}, -1111),
        ({"quantity": "0"}, -4003),
        ({"quantity": "121"}, -4005),
        ({"quantity": "0.001"}, -4164),
        ({"symbol": "NOPEUSDT"}, -1121),
        ({"side": "HOLD"}, -1117),
        ({"type": "STOP_LOSS"}, -1116),
        ({"positionSide": "LONG"}, -4061),
        ({"newClientOrderId": "x" * 37}, -4015),
        ({"newClientOrderId": "a b"}, -1100),
        ({"quantity": "1e-2"}, -1100),
        ({"quantity": ""}, -1102),
        ({"type": "LIMIT", "price": "20000.05", "timeInForce": "GTC"}, -4014),
        ({"type": "LIMIT", "price": "21000.2", "timeInForce": "GTC"}, -4016),
        ({"type": "LIMIT", "side": "SELL", "price": "18999.9", "timeInForce": "GTC"}, -4024),
        ({"type": "LIMIT", "price": "20000"}, -1102),
        ({"type": "STOP_MARKET", "stopPrice": "19000"}, -4120),
    ],
)
def test_filters_and_parameters_are_enforced_with_their_codes(paper, changes: dict[str, str], code: int) -> None:
    reply = paper.raw("POST", "/fapi/v1/order", paper.market_order("never", **changes))
    assert (reply.status_code, reply.json()["code"]) == (400, code)


def test_all_orders_and_trades_page_by_id_and_time(start) -> None:
    exchange = start()
    client = exchange.client()
    for number in range(5):
        client.futures_create_order(**exchange.market_order(f"p-{number}"))
    orders = client.futures_get_all_orders(symbol="BTCUSDT")
    ids = [row["orderId"] for row in orders]
    assert ids == sorted(ids)
    assert len(ids) == 5
    page = client.futures_get_all_orders(symbol="BTCUSDT", orderId=ids[2], limit=2)
    assert [row["orderId"] for row in page] == ids[2:4]
    assert len(client.futures_get_all_orders(symbol="BTCUSDT", startTime=orders[0]["time"], limit=1)) == 1
    trades = client.futures_account_trades(symbol="BTCUSDT", fromId=500000003)
    assert [row["id"] for row in trades] == [500000003, 500000004, 500000005]
    too_long = {"symbol": "BTCUSDT", "startTime": 1, "endTime": 8 * 86_400_000}
    assert refusal(client.futures_get_all_orders, **too_long)[0] == 400


def test_funding_and_realized_profit_appear_in_income_and_add_up_to_the_wallet(start) -> None:
    exchange = start()
    client = exchange.client()
    client.futures_create_order(**exchange.market_order("o", quantity="0.100"))
    exchange.control("POST", "funding", {"symbol": "BTCUSDT", "rate": "0.0001"})
    exchange.price("BTCUSDT", "20500")
    client.futures_create_order(**exchange.market_order("c", side="SELL", quantity="0.100"))
    rows = client.futures_income_history(limit=1000)
    by_type = {row["incomeType"]: D(row["income"]) for row in rows}
    assert by_type["FUNDING_FEE"] == D("-0.200000")
    assert by_type["REALIZED_PNL"] == (D("20500.00") - D("20000.10")) * D("0.100")
    assert sum(D(row["income"]) for row in rows) == D(exchange.truth()["summary"]["futures_wallet"])
    assert len({row["tranId"] for row in rows}) == len(rows)


def test_unfilled_ends_are_forgotten_after_three_days_and_everything_after_ninety(start) -> None:
    exchange = start()
    client = exchange.client()
    client.futures_create_order(
        symbol="BTCUSDT",
        side="BUY",
        type="LIMIT",
        timeInForce="GTC",
        price="19500",
        quantity="0.01",
        newClientOrderId="un",
    )
    client.futures_cancel_order(symbol="BTCUSDT", origClientOrderId="un")
    client.futures_create_order(**exchange.market_order("filled"))

    def found(name: str) -> int:
        query = {"symbol": "BTCUSDT", "origClientOrderId": name}
        return exchange.raw("GET", "/fapi/v1/order", query).status_code

    assert (found("un"), found("filled")) == (200, 200)
    exchange.control("POST", "clock", {"advance_ms": 3 * 86_400_000 + 1000})
    assert (found("un"), found("filled")) == (400, 200)
    exchange.control("POST", "clock", {"advance_ms": 87 * 86_400_000})
    assert (found("un"), found("filled")) == (400, 400)
