"""Every fault action and every canned reply does what it says, and is counted."""

from __future__ import annotations

import json
import re
import socket
import time
from decimal import Decimal

import pytest
import requests

from app.exchange.paper.canned import CannedReply
from app.exchange.paper.faults import FaultAction

ORDER = "/fapi/v1/order"
LOST = (requests.ConnectionError, requests.exceptions.ChunkedEncodingError)


def accepted(paper, client_id: str) -> int:
    return int(paper.truth()["accepted_by_client_order_id"]["futures"]["BTCUSDT"].get(client_id, 0))


def send(paper, client_id: str, **changes):
    return paper.raw("POST", ORDER, paper.market_order(client_id, **changes), session=requests.Session(), timeout=5)


@pytest.mark.parametrize(
    ("action", "executions"),
    [
        (FaultAction.ANSWER_LOST_AFTER_EXECUTION, 1),
        (FaultAction.RESET_BEFORE, 0),
        (FaultAction.RESET_AFTER, 1),
        (FaultAction.CUT_BODY, 1),
    ],
)
def test_lost_answers_differ_only_in_whether_the_order_was_executed(
    paper, action: FaultAction, executions: int
) -> None:
    paper.faults({"action": action.value, "match": {"method": "POST", "path": ORDER}})
    with pytest.raises(LOST):
        send(paper, f"lost-{action}")
    assert paper.struck() == [1]
    assert accepted(paper, f"lost-{action}") == executions


@pytest.mark.parametrize("name", list(CannedReply))
@pytest.mark.parametrize(("action", "executions"), [("reply_instead", 0), ("reply_after_execution", 1)])
def test_canned_replies_come_with_and_without_execution(paper, name: CannedReply, action: str, executions: int) -> None:
    paper.faults({"action": action, "canned": name.value, "match": {"method": "POST", "path": ORDER}})
    reply = send(paper, f"{name}-{executions}")
    prefix = name.value.split("_")[0]
    if named := re.search(r"(?<!\d)\d{3}(?!\d)", name.value):
        assert str(reply.status_code) == named[0]
    if name is CannedReply.UNKNOWN_503_NO_CODE:
        assert "code" not in reply.json()
    if name in {CannedReply.BANNED_418, CannedReply.RATE_LIMITED_429}:
        assert int(reply.headers["Retry-After"]) > 0
    if prefix == "html":
        assert reply.text.startswith("<html>")
    assert paper.struck() == [1]
    assert accepted(paper, f"{name}-{executions}") == executions


def test_reply_of_ones_own_is_sent_with_its_headers(paper) -> None:
    rule = {
        "action": "reply_instead",
        "status": 429,
        "body": {"code": -1003, "msg": "x"},
        "headers": {"Retry-After": "7"},
    }
    paper.faults({**rule, "match": {"path": ORDER}})
    reply = send(paper, "own")
    assert (reply.status_code, reply.json(), reply.headers["Retry-After"]) == (429, {"code": -1003, "msg": "x"}, "7")


def test_truncated_json_is_a_whole_reply_that_does_not_parse(paper) -> None:
    paper.faults({"action": "truncate_json", "match": {"method": "POST"}})
    reply = send(paper, "cut-json")
    assert reply.status_code == 200
    with pytest.raises(json.JSONDecodeError):
        json.loads(reply.text)
    assert accepted(paper, "cut-json") == 1


def test_delayed_reply_is_late_but_the_order_was_executed_at_once(paper) -> None:
    paper.faults({"action": "delay_reply_ms", "ms": 400, "match": {"method": "POST"}})
    began = time.monotonic()
    assert send(paper, "late-reply", recvWindow=100).status_code == 200
    assert time.monotonic() - began >= 0.4


def test_dripped_reply_outlasts_the_per_read_timeout(paper) -> None:
    paper.faults({"action": "drip", "ms": 2, "match": {"method": "POST"}})
    began = time.monotonic()
    reply = paper.raw("POST", ORDER, paper.market_order("drip"), timeout=0.5, session=requests.Session())
    assert reply.json()["clientOrderId"] == "drip"
    assert time.monotonic() - began > 0.6


def test_duplicate_ack_is_two_replies_to_one_execution(paper) -> None:
    paper.faults({"action": "duplicate_ack", "match": {"method": "POST"}, "ms": 0})
    session = requests.Session()
    first = paper.raw("POST", ORDER, paper.market_order("twice"), session=session)
    assert first.json()["clientOrderId"] == "twice"
    assert accepted(paper, "twice") == 1


@pytest.mark.parametrize(
    "path", ["/fapi/v1/order", "/fapi/v1/allOrders", "/fapi/v1/userTrades", "/fapi/v3/positionRisk", "/fapi/v3/balance"]
)
def test_lagging_read_shows_the_past_of_its_own_endpoint_only(start, path: str) -> None:
    exchange = start()
    send(exchange, "first")
    exchange.control("POST", "clock", {"advance_ms": 10_000})
    query = {"symbol": "BTCUSDT", "origClientOrderId": "second"} if path == ORDER else {"symbol": "BTCUSDT"}
    before = exchange.raw("GET", path, query)
    exchange.faults({"action": "read_lag_ms", "ms": 5000, "match": {"method": "GET", "path": path}})
    send(exchange, "second")
    lagging = exchange.raw("GET", path, query)

    def shown(reply: requests.Response):
        rows = reply.json()
        keep = ("orderId", "id", "positionAmt", "entryPrice", "balance")
        return [{k: row[k] for k in keep if k in row} for row in rows] if isinstance(rows, list) else rows

    assert (lagging.status_code, shown(lagging)) == (before.status_code, shown(before))
    assert exchange.struck() == [1]
    exchange.control("POST", "clock", {"advance_ms": 6000})
    assert shown(exchange.raw("GET", path, query)) != shown(before)


def test_lagging_income_lacks_the_newest_line_and_nothing_else(start) -> None:
    exchange = start()
    exchange.control("POST", "deposit", {"venue": "futures", "asset": "USDT", "amount": "5"})
    exchange.control("POST", "clock", {"advance_ms": 10_000})
    before = exchange.raw("GET", "/fapi/v1/income", {}).json()
    exchange.control("POST", "deposit", {"venue": "futures", "asset": "USDT", "amount": "7"})
    exchange.faults({"action": "read_lag_ms", "ms": 5000, "match": {"method": "GET", "path": "/fapi/v1/income"}})
    assert exchange.raw("GET", "/fapi/v1/income", {}).json() == before
    assert [Decimal(line["income"]) for line in before][-1] == 5
    exchange.faults()
    assert [Decimal(line["income"]) for line in exchange.raw("GET", "/fapi/v1/income", {}).json()][-2:] == [5, 7]


def test_lagging_spot_account_and_trades_show_the_past_whatever_is_locked_now(start) -> None:
    exchange = start()
    exchange.control("POST", "clock", {"advance_ms": 10_000})
    lag = {"action": "read_lag_ms", "ms": 5000, "match": {"method": "GET", "path": "/api/v3/*"}}

    def held() -> dict[str, Decimal]:
        rows = exchange.raw("GET", "/api/v3/account", {}).json()["balances"]
        return {row["asset"]: total for row in rows if (total := Decimal(row["free"]) + Decimal(row["locked"]))}

    before = held()
    exchange.control("POST", "deposit", {"venue": "spot", "asset": "BTC", "amount": "3"})
    order = {"symbol": "BTCUSDT", "side": "SELL", "quantity": "2.5"}
    rest = {**order, "type": "LIMIT", "timeInForce": "GTC", "price": "21000", "newClientOrderId": "rest"}
    trade = {**order, "type": "MARKET", "quantity": "0.1", "newClientOrderId": "trade"}
    assert [exchange.raw("POST", "/api/v3/order", one).status_code for one in (rest, trade)] == [200, 200]
    after = held()
    exchange.faults(lag)
    assert held() == before
    assert exchange.raw("GET", "/api/v3/myTrades", {"symbol": "BTCUSDT"}).json() == []
    exchange.control("POST", "clock", {"advance_ms": 6000})
    assert held() == after
    assert len(exchange.raw("GET", "/api/v3/myTrades", {"symbol": "BTCUSDT"}).json()) == 1


def test_lagging_read_shows_an_order_as_it_was(start) -> None:
    exchange = start()
    limit = {"type": "LIMIT", "timeInForce": "GTC", "price": "19900"}
    send(exchange, "rest", **limit)
    exchange.control("POST", "clock", {"advance_ms": 10_000})
    exchange.price("BTCUSDT", "19900")
    query = {"symbol": "BTCUSDT", "origClientOrderId": "rest"}
    exchange.faults({"action": "read_lag_ms", "ms": 5000, "match": {"method": "GET"}})
    assert exchange.raw("GET", ORDER, query).json()["status"] == "NEW"
    exchange.faults()
    assert exchange.raw("GET", ORDER, query).json()["status"] == "FILLED"


def test_partial_fill_leaves_the_rest_of_the_order(paper) -> None:
    paper.faults({"action": "partial_fill", "fraction": "0.3", "match": {"method": "POST"}})
    market = send(paper, "part-m", quantity="0.100", newOrderRespType="RESULT").json()
    limit = {"type": "LIMIT", "timeInForce": "GTC", "price": "20100", "newOrderRespType": "RESULT"}
    resting = send(paper, "part-l", quantity="0.100", **limit).json()
    assert (market["status"], market["executedQty"]) == ("EXPIRED", "0.030")
    assert (resting["status"], resting["executedQty"]) == ("PARTIALLY_FILLED", "0.030")


def test_throttling_exempts_orders_that_reduce_risk(paper) -> None:
    send(paper, "some-position", quantity="0.050")
    paper.faults({"action": "reply_instead", "canned": "503_throttled_1008", "match": {"method": "POST"}})
    assert send(paper, "opens").json()["code"] == -1008
    assert send(paper, "reduces", side="SELL", reduceOnly="true").status_code == 200


def test_rules_match_by_symbol_id_and_count(paper) -> None:
    paper.faults(
        {"name": "second", "action": "reset_before", "match": {"client_order_id": "^only-", "nth": 2}},
        {"name": "other", "action": "reset_before", "match": {"symbol": "XRPUSDT"}},
        {"name": "twice", "action": "delay_reply_ms", "ms": 1, "match": {"client_order_id": "^only-", "times": 2}},
    )
    assert send(paper, "only-1").status_code == 200
    with pytest.raises(LOST):
        send(paper, "only-2")
    assert send(paper, "only-3").status_code == 200
    rules = {rule["name"]: (rule["seen"], rule["struck"]) for rule in paper.control("GET", "faults")["rules"]}
    assert rules == {"second": (3, 1), "other": (0, 0), "twice": (3, 2)}


def test_random_faults_repeat_with_their_seed(paper) -> None:
    def run() -> list[int]:
        rule = {
            "action": "reply_instead",
            "canned": "503_unknown",
            "match": {"path": "/fapi/v1/time", "probability": "0.5"},
        }
        paper.faults(rule, seed=7)
        return [requests.get(f"{paper.url}/fapi/v1/time", timeout=5).status_code for _ in range(20)]

    first = run()
    assert first == run()
    assert set(first) == {200, 503}


def test_rule_that_is_none_is_refused_and_the_old_schedule_stays(paper) -> None:
    paper.faults({"action": "reset_before", "match": {"path": "/nowhere"}})
    for bad in (
        {"action": "explode"},
        {"action": "reply_instead"},
        {"action": "drip", "match": {"pth": "x"}},
        {"actin": "drip"},
    ):
        reply = requests.post(f"{paper.url}/paper/faults", json={"rules": [bad]}, timeout=5)
        assert reply.status_code == 400
    assert paper.struck() == [0]


@pytest.mark.parametrize(("action", "is_reset"), [("reset_after", True), ("answer_lost_after_execution", False)])
def test_reset_is_a_real_one_and_a_lost_answer_a_closed_connection(paper, action: str, is_reset: bool) -> None:
    paper.faults({"action": action, "match": {"path": "/fapi/v1/time"}})
    host, port = paper.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as raw:
        raw.sendall(b"GET /fapi/v1/time HTTP/1.1\r\nHost: x\r\n\r\n")
        try:
            outcome = raw.recv(100)
        except ConnectionResetError:
            outcome = b"reset"
    assert outcome == (b"reset" if is_reset else b"")


def test_duplicated_reply_lies_in_wait_on_the_connection(paper) -> None:
    paper.faults({"action": "duplicate_ack", "match": {"path": "/fapi/v1/time"}})
    host, port = paper.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as raw:
        raw.sendall(b"GET /fapi/v1/time HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        data = b""
        while piece := raw.recv(4096):
            data += piece
    assert data.count(b"serverTime") == 2
