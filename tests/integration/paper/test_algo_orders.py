from __future__ import annotations

from typing import Any

import pytest
from binance.exceptions import BinanceAPIException

STOP = {"symbol": "BTCUSDT", "side": "SELL", "type": "STOP_MARKET", "triggerPrice": "19500", "quantity": "0.010"}


def code_of(call: Any, **params: Any) -> int:
    with pytest.raises(BinanceAPIException) as caught:
        call(**params)
    return int(caught.value.code)


def test_stop_market_places_a_real_order_when_its_trigger_is_reached(start) -> None:
    exchange = start()
    client = exchange.client()
    client.futures_create_order(**exchange.market_order("open"))
    algo = client.futures_create_order(**STOP, reduceOnly="true", clientAlgoId="stop-1")
    assert (algo["algoStatus"], algo["clientAlgoId"]) == ("NEW", "stop-1")
    exchange.price("BTCUSDT", "19600")
    assert client.futures_get_order(symbol="BTCUSDT", clientAlgoId="stop-1")["algoStatus"] == "NEW"
    exchange.price("BTCUSDT", "19480")
    after = client.futures_get_order(symbol="BTCUSDT", clientAlgoId="stop-1")
    assert after["algoStatus"] == "FINISHED"
    order = client.futures_get_order(symbol="BTCUSDT", orderId=int(after["actualOrderId"]))
    assert (order["status"], order["type"], order["origType"]) == ("FILLED", "MARKET", "STOP_MARKET")
    assert exchange.truth()["summary"]["positions"] == {}


def test_take_profit_limit_rests_as_triggered_until_it_fills(start) -> None:
    exchange = start()
    client = exchange.client()
    client.futures_create_order(
        symbol="BTCUSDT",
        side="SELL",
        type="TAKE_PROFIT",
        triggerPrice="20100",
        price="20200",
        quantity="0.01",
        clientAlgoId="tp",
    )
    states = []
    for price in ("20050", "20150", "20200"):
        exchange.price("BTCUSDT", price)
        states.append(client.futures_get_order(symbol="BTCUSDT", clientAlgoId="tp")["algoStatus"])
    assert states == ["NEW", "TRIGGERED", "FINISHED"]


def test_close_position_closes_all_or_expires_with_nothing_to_close(start) -> None:
    exchange = start()
    client = exchange.client()
    client.futures_create_order(**exchange.market_order("open", quantity="0.033"))
    stop = {"symbol": "BTCUSDT", "side": "SELL", "type": "STOP_MARKET", "closePosition": "true"}
    client.futures_create_order(**stop, triggerPrice="19500", clientAlgoId="c-1")
    client.futures_create_order(**stop, triggerPrice="19400", clientAlgoId="c-2")
    exchange.price("BTCUSDT", "19300")
    assert exchange.truth()["positions"]["BTCUSDT"]["amount"] == "0.000"
    states = {row["client_algo_id"]: row["status"] for row in exchange.truth()["algo_orders"]}
    assert states == {"c-1": "FINISHED", "c-2": "EXPIRED"}


def test_algo_that_the_engine_refuses_at_its_trigger_is_rejected(start) -> None:
    exchange = start()
    client = exchange.client()
    client.futures_create_order(**STOP, reduceOnly="true", clientAlgoId="lonely")
    exchange.price("BTCUSDT", "19000")
    assert client.futures_get_order(symbol="BTCUSDT", clientAlgoId="lonely")["algoStatus"] == "REJECTED"


def test_algo_ids_are_unique_among_open_ones_and_cancel_answers_with_a_string_code(start) -> None:
    exchange = start()
    client = exchange.client()
    client.futures_create_order(**STOP, clientAlgoId="same")
    assert code_of(client.futures_create_order, **STOP, clientAlgoId="same") == -4116
    assert client.futures_cancel_order(symbol="BTCUSDT", clientAlgoId="same")["code"] == "200"
    assert client.futures_get_open_orders(symbol="BTCUSDT", conditional=True) == []
    client.futures_create_order(**STOP, clientAlgoId="same")
    every = client.futures_get_all_orders(symbol="BTCUSDT", conditional=True)
    assert [row["algoStatus"] for row in every] == ["CANCELED", "NEW"]
    assert exchange.truth()["accepted_by_client_algo_id"] == {"same": 2}


def test_trigger_that_is_already_reached_is_refused(paper) -> None:
    client = paper.client()
    assert code_of(client.futures_create_order, **{**STOP, "triggerPrice": "20500"}, clientAlgoId="now") == -2021
    assert code_of(client.futures_get_order, symbol="BTCUSDT", clientAlgoId="now") == -2013
