from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from binance.exceptions import BinanceAPIException

D = Decimal
LIMIT = {"symbol": "BTCUSDT", "type": "LIMIT", "timeInForce": "GTC"}


def refusal(call: Any, **params: Any) -> tuple[int, int, str]:
    with pytest.raises(BinanceAPIException) as caught:
        call(**params)
    return caught.value.status_code, caught.value.code, caught.value.message


def balances(client: Any) -> dict[str, tuple[Decimal, Decimal]]:
    return {row["asset"]: (D(row["free"]), D(row["locked"])) for row in client.get_account()["balances"]}


def test_market_buy_answers_full_with_fills_and_takes_the_fee_from_what_it_received(start) -> None:
    client = start().client()
    order = client.create_order(symbol="BTCUSDT", side="BUY", type="MARKET", quantity="0.01", newClientOrderId="b")
    assert (order["status"], order["clientOrderId"]) == ("FILLED", "b")
    assert order["fills"][0]["price"] == "20000.01"
    assert (D(order["fills"][0]["commission"]), order["fills"][0]["commissionAsset"]) == (D("0.00001"), "BTC")
    assert balances(client)["BTC"] == (D("0.00999"), D(0))
    assert balances(client)["USDT"] == (D(100000) - D("200.0001"), D(0))
    assert [row["orderId"] for row in client.get_my_trades(symbol="BTCUSDT")] == [order["orderId"]]


def test_fee_is_paid_in_bnb_when_switched_on_and_held(start) -> None:
    client = start("--spot-fee-in-bnb", "--deposit", "spot:USDT:1000", "--deposit", "spot:BNB:1").client()
    order = client.create_order(symbol="BTCUSDT", side="BUY", type="MARKET", quantity="0.01")
    assert order["fills"][0]["commissionAsset"] == "BNB"
    assert balances(client)["BTC"] == (D("0.01"), D(0))


def test_market_buy_by_quote_quantity_spends_no_more_than_asked(paper) -> None:
    order = paper.client().create_order(symbol="BTCUSDT", side="BUY", type="MARKET", quoteOrderQty="500")
    spent = D(order["cummulativeQuoteQty"])
    assert D("499") < spent <= D("500")


@pytest.mark.parametrize(("kind", "keys"), [("ACK", 5), ("RESULT", 16), ("FULL", 17)])
def test_reply_has_the_shape_that_was_asked_for(paper, kind: str, keys: int) -> None:
    client = paper.client()
    order = client.create_order(symbol="BTCUSDT", side="BUY", type="MARKET", quantity="0.001", newOrderRespType=kind)
    assert len(order) == keys


def test_cancel_renames_the_order_so_that_its_id_finds_nothing(start) -> None:
    client = start().client()
    client.create_order(**LIMIT, side="BUY", price="19000", quantity="0.01", newClientOrderId="mine")
    assert balances(client)["USDT"] == (D(99810), D(190))
    reply = client.cancel_order(symbol="BTCUSDT", origClientOrderId="mine")
    assert (reply["origClientOrderId"], reply["status"]) == ("mine", "CANCELED")
    assert reply["clientOrderId"] != "mine"
    assert refusal(client.get_order, symbol="BTCUSDT", origClientOrderId="mine")[:2] == (400, -2013)
    assert client.get_order(symbol="BTCUSDT", orderId=reply["orderId"])["clientOrderId"] == reply["clientOrderId"]
    assert balances(client)["USDT"] == (D(100000), D(0))


def test_cancel_that_names_the_original_id_keeps_it(paper) -> None:
    client = paper.client()
    order = client.create_order(**LIMIT, side="BUY", price="19000", quantity="0.01", newClientOrderId="stay")
    client.cancel_order(symbol="BTCUSDT", orderId=order["orderId"], newClientOrderId="stay")
    assert client.get_order(symbol="BTCUSDT", origClientOrderId="stay")["status"] == "CANCELED"


def test_duplicate_of_an_open_order_is_refused_and_free_again_after_the_fill(start) -> None:
    exchange = start()
    client = exchange.client()
    order = {**LIMIT, "side": "BUY", "price": "19900", "quantity": "0.01", "newClientOrderId": "dup"}
    client.create_order(**order)
    assert refusal(client.create_order, **order) == (400, -2010, "Duplicate order sent.")
    exchange.price("BTCUSDT", "19900")
    assert client.get_order(symbol="BTCUSDT", origClientOrderId="dup")["status"] == "FILLED"
    client.create_order(**order)
    assert exchange.truth()["accepted_by_client_order_id"]["spot"]["BTCUSDT"]["dup"] == 2


def test_limit_maker_that_would_take_is_refused_and_fok_expires(paper) -> None:
    client = paper.client()
    text = "Order would immediately match and take."
    maker = {"symbol": "BTCUSDT", "side": "BUY", "type": "LIMIT_MAKER", "price": "20100", "quantity": "0.01"}
    assert refusal(client.create_order, **maker) == (400, -2010, text)
    fok = client.create_order(
        symbol="BTCUSDT", side="BUY", type="LIMIT", timeInForce="FOK", price="19000", quantity="0.01"
    )
    assert (fok["status"], D(fok["executedQty"])) == ("EXPIRED", D(0))


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({"quantity": "0.000001"}, -1013, "Filter failure: LOT_SIZE"),
        ({"price": "19000.001"}, -1013, "Filter failure: PRICE_FILTER"),
        ({"price": "1", "quantity": "0.01"}, -1013, "Filter failure: PERCENT_PRICE_BY_SIDE"),
        ({"quantity": "0.0001"}, -1013, "Filter failure: NOTIONAL"),
        ({"quantity": "0.123456789"}, -1111, "Parameter 'quantity' has too much precision."),
        ({"quantity": "90"}, -2010, "Account has insufficient balance for requested action."),
        (
            {"side": "SELL", "symbol": "ETHUSDT", "price": "1600"},
            -2010,
            "Account has insufficient balance for requested action.",
        ),
        (
            {"newClientOrderId": "a.b"},
            -1100,
            "Illegal characters found in parameter 'newClientOrderId'; legal range is '^[a-zA-Z0-9-_]{1,36}$'.",
        ),
        ({"symbol": "NOPE"}, -1121, "Invalid symbol."),
    ],
)
def test_filters_and_balance_are_enforced_with_binance_texts(paper, changes: dict, code: int, message: str) -> None:
    order = {**LIMIT, "side": "BUY", "price": "19000", "quantity": "0.01", **changes}
    reply = paper.raw("POST", "/api/v3/order", order)
    assert (reply.status_code, reply.json()) == (400, {"code": code, "msg": message})


def test_unfilled_orders_are_archived_after_ninety_days(start) -> None:
    exchange = start()
    order = {**LIMIT, "side": "BUY", "price": "19000", "quantity": "0.01"}
    order_id = exchange.raw("POST", "/api/v3/order", order).json()["orderId"]
    assert exchange.client().cancel_order(symbol="BTCUSDT", orderId=order_id)["status"] == "CANCELED"
    exchange.control("POST", "clock", {"advance_ms": 90 * 86_400_000 + 1000})
    reply = exchange.raw("GET", "/api/v3/order", {"symbol": "BTCUSDT", "orderId": order_id})
    assert (reply.status_code, reply.json()["code"]) == (400, -2026)


def test_windows_longer_than_a_day_are_refused(paper) -> None:
    client = paper.client()
    window = {"symbol": "BTCUSDT", "startTime": 1, "endTime": 86_400_002}
    assert refusal(client.get_all_orders, **window)[1] == -1127
    assert refusal(client.get_my_trades, **window)[1] == -1127


def test_cancel_all_answers_with_each_order(paper) -> None:
    client = paper.client()
    for name in ("x-1", "x-2"):
        client.create_order(
            symbol="ETHUSDT",
            side="BUY",
            type="LIMIT",
            timeInForce="GTC",
            price="1500",
            quantity="0.1",
            newClientOrderId=name,
        )
    reply = paper.raw("DELETE", "/api/v3/openOrders", {"symbol": "ETHUSDT"}).json()
    assert [row["origClientOrderId"] for row in reply] == ["x-1", "x-2"]
    assert client.get_open_orders(symbol="ETHUSDT") == []


def test_selling_all_bnb_pays_the_fee_in_what_it_received(start) -> None:
    """A fee in BNB must not overdraw BNB that the order itself spends."""
    client = start("--spot-fee-in-bnb", "--deposit", "spot:BNB:1").client()
    order = client.create_order(symbol="BNBUSDT", side="SELL", type="MARKET", quantity="1")
    assert order["fills"][0]["commissionAsset"] == "USDT"
    assert balances(client)["BNB"] == (D(0), D(0))
