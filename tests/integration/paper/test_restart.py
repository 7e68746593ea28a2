"""What the exchange answered outlives kill -9, and it goes on with the same ids."""

from __future__ import annotations

import signal
import threading
import time

import pytest
import requests

ORDER = "/fapi/v1/order"


def fill(exchange) -> None:
    client = exchange.client()
    for number in range(10):
        client.futures_create_order(**exchange.market_order(f"f-{number}", side="BUY" if number % 3 else "SELL"))
        client.create_order(
            symbol="BTCUSDT", side="BUY", type="MARKET", quantity="0.002", newClientOrderId=f"s-{number}"
        )
    limit = {"symbol": "BTCUSDT", "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "quantity": "0.01"}
    client.futures_create_order(**limit, price="19800", newClientOrderId="rest")
    client.create_order(**limit, price="19800", newClientOrderId="rest")
    client.futures_create_order(
        symbol="BTCUSDT", side="SELL", type="STOP_MARKET", triggerPrice="19700", quantity="0.01", clientAlgoId="stop"
    )
    client.futures_change_leverage(symbol="BTCUSDT", leverage=7)
    exchange.control("POST", "step", {"candles": 3})
    exchange.control("POST", "clock", {"offset_ms": 1234})
    exchange.control("POST", "funding", {"symbol": "BTCUSDT", "rate": "0.0003"})


def without_counts(truth: dict) -> dict:
    """A start logs its options, so that only the number of commands differs."""
    truth["summary"].pop("commands")
    return truth


def test_killed_exchange_comes_back_with_everything_it_answered(start) -> None:
    exchange = start()
    fill(exchange)
    before = without_counts(exchange.truth())
    exchange.end(signal.SIGKILL)
    exchange.start()
    assert without_counts(exchange.truth()) == before
    exchange.price("BTCUSDT", "19600")
    client = exchange.client()
    assert client.futures_get_order(symbol="BTCUSDT", origClientOrderId="rest")["status"] == "FILLED"
    assert client.get_order(symbol="BTCUSDT", origClientOrderId="rest")["status"] == "FILLED"
    assert client.futures_get_order(symbol="BTCUSDT", clientAlgoId="stop")["algoStatus"] == "FINISHED"
    last = max(row["order_id"] for row in before["orders"])
    assert client.futures_create_order(**exchange.market_order("next"))["orderId"] > last


def test_every_answered_order_survives_a_kill_in_the_middle_of_traffic(start) -> None:
    exchange = start()
    answered: list[str] = []

    def trade(worker: int) -> None:
        session = requests.Session()
        for number in range(10_000):
            name = f"w{worker}-{number}"
            try:
                reply = exchange.raw("POST", ORDER, exchange.market_order(name), session=session)
            except requests.RequestException:
                return
            assert reply.status_code == 200
            answered.append(name)

    workers = [threading.Thread(target=trade, args=(number,)) for number in range(3)]
    for worker in workers:
        worker.start()
    while len(answered) < 100:
        assert any(worker.is_alive() for worker in workers)
        time.sleep(0.005)
    assert exchange.process is not None
    exchange.process.send_signal(signal.SIGKILL)
    for worker in workers:
        worker.join()
    exchange.end(signal.SIGKILL)
    exchange.start()
    accepted = exchange.truth()["accepted_by_client_order_id"]["futures"]["BTCUSDT"]
    assert set(answered) <= set(accepted)
    assert len(accepted) - len(answered) <= 3


def test_torn_last_line_is_cut_off(start) -> None:
    exchange = start()
    exchange.client().futures_create_order(**exchange.market_order("whole"))
    exchange.end(signal.SIGKILL)
    with (exchange.data / "exchange.jsonl").open("ab") as log:
        log.write(b'{"c":"PlaceOrder","at":17')
    exchange.start()
    exchange.client().futures_create_order(**exchange.market_order("after"))
    exchange.end(signal.SIGKILL)
    exchange.start()
    assert list(exchange.truth()["accepted_by_client_order_id"]["futures"]["BTCUSDT"]) == ["whole", "after"]


def test_sigterm_answers_what_runs_and_ends_with_zero(start) -> None:
    exchange = start()
    exchange.faults({"action": "delay_before_ms", "ms": 700, "match": {"method": "POST"}})
    replies: list[int] = []
    order = exchange.market_order("last")
    slow = threading.Thread(
        target=lambda: replies.append(exchange.raw("POST", ORDER, order, session=requests.Session()).status_code)
    )
    slow.start()
    while exchange.struck() != [1]:
        assert slow.is_alive()
        time.sleep(0.005)
    assert exchange.end(signal.SIGTERM) == 0
    slow.join()
    assert replies == [200]
    exchange.start()
    assert exchange.truth()["accepted_by_client_order_id"]["futures"]["BTCUSDT"] == {"last": 1}


def test_fsync_option_serves_as_well(start) -> None:
    exchange = start("--fsync")
    exchange.client().futures_create_order(**exchange.market_order("synced"))
    assert exchange.truth()["summary"]["futures"]["orders"] == 1


def test_same_seed_makes_the_same_market(start) -> None:
    def prices(exchange) -> dict:
        return exchange.control("POST", "step", {"candles": 20})["prices"]

    one, two, other = start(name="a"), start(name="b"), start("--seed", "2", name="c")
    first = prices(one)
    assert first == prices(two)
    assert first != prices(other)
    one.end(signal.SIGKILL)
    assert prices(one.start()) == prices(two)


def test_exchange_that_cannot_write_its_log_stops_instead_of_forgetting(start) -> None:
    exchange = start()
    exchange.end(signal.SIGTERM)
    full = (exchange.data / "exchange.jsonl").stat().st_size // 512 + 2
    exchange.start("sh", "-c", f'ulimit -f {full}; exec "$@"', "sh")
    answered: list[str] = []

    def place_for_ever() -> None:
        for number in range(100):
            reply = exchange.raw("POST", ORDER, exchange.market_order(f"n-{number}"))
            assert reply.status_code == 200
            answered.append(f"n-{number}")

    with pytest.raises(requests.ConnectionError):
        place_for_ever()
    assert exchange.process is not None
    assert exchange.process.wait(timeout=5) == 1
    exchange.end(signal.SIGKILL)
    exchange.start()
    assert list(exchange.truth()["accepted_by_client_order_id"]["futures"]["BTCUSDT"]) == answered
