"""timestamp and recvWindow at the gateway and again at the matching engine: the fence everything rests on."""

from __future__ import annotations

import threading
import time

import pytest
import requests

FUTURES, SPOT = "/fapi/v1/order", "/api/v3/order"
SPOT_ORDER = {"symbol": "BTCUSDT", "side": "BUY", "type": "MARKET", "quantity": "0.001"}


@pytest.mark.parametrize("path", [FUTURES, SPOT])
def test_timestamp_older_than_its_window_is_refused_at_the_gateway(paper, path: str) -> None:
    order = paper.market_order("old", recvWindow=2000, quantity="0.010")
    now = paper.now_ms()
    assert paper.raw("POST", path, order, timestamp=now - 2500).json()["code"] == -1021
    assert paper.raw("POST", path, order, timestamp=now - 1000).status_code == 200


def test_timestamp_a_second_ahead_is_refused_and_just_below_is_taken(paper) -> None:
    now = paper.now_ms()
    reply = paper.raw("POST", FUTURES, paper.market_order("ahead"), timestamp=now + 5000)
    assert reply.json() == {"code": -1021, "msg": "Timestamp for this request was 1000ms ahead of the server's time."}
    assert paper.raw("POST", FUTURES, paper.market_order("ahead"), timestamp=now + 900).status_code == 200


def test_default_window_is_five_seconds(paper) -> None:
    now = paper.now_ms()
    assert paper.raw("POST", FUTURES, paper.market_order("d"), timestamp=now - 6000).json()["code"] == -1021
    assert paper.raw("POST", FUTURES, paper.market_order("d"), timestamp=now - 4000).status_code == 200


def test_spot_window_above_a_minute_is_refused_and_futures_has_no_limit(paper) -> None:
    assert paper.raw("POST", SPOT, {**SPOT_ORDER, "recvWindow": 60001}).json()["code"] == -1131
    assert paper.raw("POST", FUTURES, paper.market_order("w", recvWindow=9999999)).status_code == 200


@pytest.mark.parametrize(("path", "code"), [(FUTURES, -5028), (SPOT, -1021)])
def test_order_that_reaches_the_engine_after_its_window_is_refused_there(paper, path: str, code: int) -> None:
    paper.faults({"action": "delay_before_ms", "ms": 400, "match": {"method": "POST", "path": path}})
    before = paper.truth()["summary"]
    late = paper.raw("POST", path, paper.market_order("late", recvWindow=200))
    assert (late.status_code, late.json()["code"]) == (400, code)
    assert paper.struck() == [1]
    assert paper.truth()["summary"]["commands"] == before["commands"]
    assert paper.raw("POST", path, paper.market_order("in-time", recvWindow=3000)).status_code == 200


def test_delayed_order_is_executed_though_its_sender_has_given_up(start) -> None:
    exchange = start()
    exchange.control("POST", "engine", {"delay_ms": 500})
    with pytest.raises(requests.ReadTimeout):
        exchange.raw("POST", FUTURES, exchange.market_order("ghost"), timeout=0.1, session=requests.Session())
    assert exchange.truth()["summary"]["futures"]["orders"] == 0
    assert exchange.raw("GET", FUTURES, {"symbol": "BTCUSDT", "origClientOrderId": "ghost"}).json()["code"] == -2013
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and exchange.truth()["summary"]["futures"]["orders"] == 0:
        time.sleep(0.02)
    assert exchange.truth()["accepted_by_client_order_id"]["futures"]["BTCUSDT"] == {"ghost": 1}


def test_algo_orders_have_no_engine_check(paper) -> None:
    paper.faults({"action": "delay_before_ms", "ms": 300, "match": {"path": "/fapi/v1/algoOrder"}})
    algo = {
        "algoType": "CONDITIONAL",
        "symbol": "BTCUSDT",
        "side": "SELL",
        "type": "STOP_MARKET",
        "triggerPrice": "10000",
        "quantity": "0.010",
        "recvWindow": 100,
    }
    assert paper.raw("POST", "/fapi/v1/algoOrder", algo).status_code == 200


def test_exchange_clock_can_be_set_and_judges_by_its_own_time(start) -> None:
    exchange = start()
    local = int(time.time() * 1000)
    exchange.control("POST", "clock", {"offset_ms": 60_000})
    assert exchange.client().futures_time()["serverTime"] >= local + 60_000
    assert exchange.raw("POST", FUTURES, exchange.market_order("x"), timestamp=local).json()["code"] == -1021
    assert exchange.raw("POST", FUTURES, exchange.market_order("x")).status_code == 200


def test_requests_are_served_while_another_waits_for_the_engine(paper) -> None:
    paper.faults({"action": "delay_before_ms", "ms": 600, "match": {"method": "POST", "client_order_id": "^slow$"}})
    done: list[int] = []
    slow = threading.Thread(
        target=lambda: done.append(
            paper.raw("POST", FUTURES, paper.market_order("slow"), session=requests.Session()).status_code
        )
    )
    slow.start()
    assert paper.raw("POST", FUTURES, paper.market_order("quick")).status_code == 200
    assert done == []
    slow.join()
    assert done == [200]


def test_orders_of_a_clock_that_was_set_back_are_still_seen(start) -> None:
    exchange = start()
    exchange.control("POST", "clock", {"offset_ms": 3_600_000})
    exchange.raw("POST", FUTURES, exchange.market_order("future"))
    exchange.control("POST", "clock", {"offset_ms": 0})
    exchange.raw("POST", FUTURES, exchange.market_order("present"))
    assert exchange.raw("GET", FUTURES, {"symbol": "BTCUSDT", "origClientOrderId": "future"}).status_code == 200
    rows = exchange.raw("GET", "/fapi/v1/allOrders", {"symbol": "BTCUSDT"}).json()
    assert [row["clientOrderId"] for row in rows] == ["future", "present"]
    assert len(exchange.raw("GET", "/fapi/v1/userTrades", {"symbol": "BTCUSDT"}).json()) == 2
    assert exchange.raw("GET", "/fapi/v3/positionRisk", {}).json()[0]["positionAmt"] == "0.020"
