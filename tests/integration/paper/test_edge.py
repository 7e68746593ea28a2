"""Authentication, public data, HTTP behavior."""

from __future__ import annotations

import gzip
import hashlib
import hmac
import re
import socket
import time
from decimal import Decimal

import pytest
import requests
from binance.exceptions import BinanceAPIException

ORDER = "/fapi/v1/order"


def test_signature_and_key_are_checked(paper) -> None:
    order = paper.market_order("auth")
    assert paper.raw("POST", ORDER, order, secret="wrong").json()["code"] == -1022
    url = f"{paper.url}{ORDER}"
    assert requests.post(url, data=order, timeout=5).json()["code"] == -2014
    wrong = requests.post(url, data=order, headers={"X-MBX-APIKEY": "nobody"}, timeout=5)
    assert (wrong.status_code, wrong.json()["code"]) == (401, -2015)
    unsigned = requests.post(url, data=order, headers={"X-MBX-APIKEY": "paper"}, timeout=5)
    assert (unsigned.status_code, unsigned.json()["code"]) == (400, -1102)
    assert "auth" not in paper.truth()["accepted_by_client_order_id"]["futures"]["BTCUSDT"]


def test_signature_covers_query_string_and_body_together(paper) -> None:
    query = f"symbol=BTCUSDT&side=BUY&type=MARKET&timestamp={paper.now_ms()}"
    body = "quantity=0.010&newClientOrderId=mixed"
    signature = hmac.new(b"paper-secret", (query + body).encode(), hashlib.sha256).hexdigest()
    headers = {"X-MBX-APIKEY": "paper", "Content-Type": "application/x-www-form-urlencoded"}
    url = f"{paper.url}{ORDER}?{query}"
    assert requests.post(url, data=f"{body}&signature={signature}", headers=headers, timeout=5).status_code == 200


def test_python_binance_fails_on_ids_it_signs_wrongly(paper) -> None:
    """python-binance signs unencoded values and sends encoded ones: ':' and '/' break its signature on POST."""
    with pytest.raises(BinanceAPIException) as caught:
        paper.client().futures_create_order(**paper.market_order("a:b"))
    assert caught.value.code == -1022


def test_exchange_info_names_the_filters_that_are_enforced(paper) -> None:
    client = paper.client()
    for info in (client.futures_exchange_info(), client.get_exchange_info()):
        symbols = {row["symbol"]: {one["filterType"]: one for one in row["filters"]} for row in info["symbols"]}
        assert {"BTCUSDT", "ETHUSDT", "BNBUSDT", "SOLUSDT", "XRPUSDT"} <= set(symbols)
        assert {rule["rateLimitType"] for rule in info["rateLimits"]} == {"REQUEST_WEIGHT", "ORDERS"}
        assert Decimal(symbols["BTCUSDT"]["LOT_SIZE"]["stepSize"]) > 0


def test_public_data_agree_with_one_another(paper) -> None:
    client = paper.client()
    assert (
        client.futures_mark_price(symbol="ETHUSDT")["markPrice"]
        == client.futures_symbol_ticker(symbol="ETHUSDT")["price"]
    )
    best = client.futures_orderbook_ticker(symbol="ETHUSDT")
    book = client.futures_order_book(symbol="ETHUSDT", limit=5)
    assert [book["bids"][0][0], book["asks"][0][0]] == [best["bidPrice"], best["askPrice"]]
    assert client.get_symbol_ticker(symbol="ETHUSDT")["symbol"] == "ETHUSDT"
    assert len(client.get_klines(symbol="ETHUSDT", interval="1m")) == 5
    assert client.futures_get_position_mode() == {"dualSidePosition": False}


def test_real_kline_file_drives_the_price(start, tmp_path) -> None:
    rows = [
        "open_time,open,high,low,close,volume",
        *(f"2023-03-01 00:0{n}:00+00:00,2{n}000,2{n}500,2{n}000,2{n}100.5,1.5" for n in range(9)),
    ]
    path = tmp_path / "klines.csv.gz"
    path.write_bytes(gzip.compress("\n".join(rows).encode()))
    exchange = start("--klines", str(path))
    assert exchange.control("POST", "step")["prices"]["BTCUSDT"] == "25100.5"
    candle = exchange.client().futures_klines(symbol="BTCUSDT", interval="1m")[-1]
    assert (candle[0], candle[2]) == (1677628800000 + 5 * 60_000, "25500")


def test_market_moves_by_itself_at_the_given_speed(start) -> None:
    exchange = start("--speed", "50")
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and exchange.control("GET", "truth/summary")["steps"] < 15:
        time.sleep(0.02)
    assert exchange.control("GET", "truth/summary")["steps"] >= 15


def test_idle_connection_is_closed(start) -> None:
    exchange = start("--idle-timeout-s", "0.4")
    host, port = exchange.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as raw:
        raw.sendall(b"GET /fapi/v1/ping HTTP/1.1\r\nHost: x\r\n\r\n")
        assert raw.recv(4096).startswith(b"HTTP/1.1 200")
        assert raw.recv(4096) == b""


def test_pipelined_and_fragmented_requests_are_answered_in_order(paper) -> None:
    host, port = paper.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as raw:
        one = b"GET /fapi/v1/ping HTTP/1.1\r\nHost: x\r\n\r\n"
        two = b"GET /nowhere HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        raw.sendall(one + two[:20])
        raw.sendall(two[20:])
        data = b""
        while piece := raw.recv(4096):
            data += piece
    assert re.findall(rb"HTTP/1.1 (\d+)", data) == [b"200", b"404"]


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"POST /fapi/v1/order HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
        (b"POST /fapi/v1/order HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", 413),
        (b"GET /" + b"x" * 40_000, 413),
    ],
)
def test_malformed_requests_are_refused_and_closed(paper, request_bytes: bytes, status: int) -> None:
    host, port = paper.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as raw:
        raw.sendall(request_bytes)
        assert raw.recv(4096).startswith(f"HTTP/1.1 {status}".encode())


def test_unknown_control_endpoint_and_bad_body_are_errors(paper) -> None:
    assert requests.get(f"{paper.url}/paper/nothing", timeout=5).status_code == 404
    for path, body in (("price", {"symbol": "NOPE", "price": "1"}), ("clock", {}), ("deposit", {"venue": "moon"})):
        assert requests.post(f"{paper.url}/paper/{path}", json=body, timeout=5).status_code == 400


def test_deposit_and_market_settings_take_effect(start) -> None:
    exchange = start()
    summary = exchange.control("POST", "deposit", {"venue": "futures", "asset": "USDT", "amount": "5.5"})
    assert summary["futures_wallet"] == "100005.5"
    exchange.control("POST", "market", {"level_notional": "2000"})
    order = exchange.raw("POST", ORDER, exchange.market_order("deep", quantity="0.250"))
    assert order.status_code == 200
    assert exchange.truth()["summary"]["futures"]["trades"] == 3
