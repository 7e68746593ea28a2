from __future__ import annotations

import requests

ORDER = "/fapi/v1/order"


def quiet_second(exchange) -> None:
    """Set the exchange clock to the start of a minute, so that no window ends inside the test."""
    now = exchange.now_ms()
    exchange.control("POST", "clock", {"advance_ms": 60_000 - now % 60_000 + 50})


def test_used_weight_and_order_counts_are_in_the_headers(start) -> None:
    exchange = start("--limits", "binance")
    quiet_second(exchange)
    reply = exchange.raw("POST", ORDER, exchange.market_order("one"))
    counts = {name: reply.headers[name] for name in reply.headers if name.upper().startswith("X-MBX")}
    assert counts == {"X-MBX-USED-WEIGHT-1M": "0", "X-MBX-ORDER-COUNT-10S": "1", "X-MBX-ORDER-COUNT-1M": "1"}
    trades = exchange.raw("GET", "/fapi/v1/userTrades", {"symbol": "BTCUSDT"})
    assert trades.headers["X-MBX-USED-WEIGHT-1M"] == "5"


def test_too_many_orders_are_refused_with_1015_until_the_window_ends(start) -> None:
    exchange = start("--limits", "binance")
    quiet_second(exchange)
    stamp = exchange.now_ms()
    order = {"symbol": "BTCUSDT", "side": "BUY", "type": "LIMIT_MAKER", "price": "19000", "quantity": "0.001"}
    replies = [exchange.raw("POST", "/api/v3/order", order, timestamp=stamp) for _ in range(101)]
    assert [reply.status_code for reply in replies[:100]] == [200] * 100
    assert (replies[100].status_code, replies[100].json()["code"]) == (429, -1015)
    assert 0 < int(replies[100].headers["Retry-After"]) <= 10
    exchange.control("POST", "clock", {"advance_ms": 10_000})
    assert exchange.raw("POST", "/api/v3/order", order).status_code == 200


def test_weight_over_the_limit_is_429_and_ignoring_it_leads_to_growing_bans(start) -> None:
    exchange = start("--limits", "binance")
    bans = []
    for _ in range(2):
        quiet_second(exchange)
        session = requests.Session()
        codes: list[int] = []
        for _ in range(200):
            reply = exchange.raw("GET", "/fapi/v1/openOrders", {}, session=session)
            codes.append(reply.status_code)
            if reply.status_code == 418:
                break
        assert codes == [200] * 60 + [429] * 10 + [418]
        assert reply.json()["code"] == -1003
        until = int(reply.json()["msg"].split("until ")[1].split(".")[0])
        bans.append(round((until - exchange.now_ms()) / 1000))
        assert exchange.raw("GET", "/fapi/v1/time", {}).status_code == 418
        exchange.control("POST", "clock", {"advance_ms": bans[-1] * 1000 + 2000})
        assert exchange.raw("GET", "/fapi/v1/time", {}).status_code == 200
    assert [119 <= bans[0] <= 120, 239 <= bans[1] <= 240] == [True, True]


def test_429_carries_retry_after(start) -> None:
    exchange = start("--limits", "binance")
    quiet_second(exchange)
    for _ in range(61):
        reply = exchange.raw("GET", "/fapi/v1/openOrders", {})
    assert (reply.status_code, reply.json()["code"]) == (429, -1003)
    assert 0 < int(reply.headers["Retry-After"]) <= 60
