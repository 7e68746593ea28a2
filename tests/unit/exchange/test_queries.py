"""Queries against a server that misbehaves: only a usable answer is an answer, and only exact evidence is evidence."""

from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal

import pytest

from app.clock import SystemClock
from app.exchange.config import GatewayConfig
from app.exchange.errors import ExchangeQueryError
from app.exchange.gateway import ExchangeGateway
from app.exchange.models import OrderAbsent, OrderArchived
from app.job_safety.outcome import ExchangeOrder, FailureClass, Venue
from tests.support.fault_server import (
    Behavior,
    FaultServer,
    SeenRequest,
    answer,
    close_before_reply,
    closed_port,
    fault_server,
    truncated,
)

TIME_MS = 1_763_500_000_000
FUTURES_ORDER = {
    "symbol": "BTCUSDT",
    "orderId": 42,
    "clientOrderId": "fo-1",
    "side": "BUY",
    "type": "LIMIT",
    "status": "PARTIALLY_FILLED",
    "origQty": "1.50",
    "executedQty": "0.5",
    "avgPrice": "20000.1",
    "price": "20000.1",
    "timeInForce": "GTC",
    "reduceOnly": True,
    "time": 5,
    "updateTime": 6,
}
ABSENT = answer(400, {"code": -2013, "msg": "Order does not exist."})


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with fault_server() as running:
        yield running


@pytest.fixture
def gateway(server: FaultServer) -> Iterator[ExchangeGateway]:
    made = gateway_to(server.url)
    yield made
    made.close()


def gateway_to(url: str, **changes: object) -> ExchangeGateway:
    config = GatewayConfig(
        futures_url=f"{url}/fapi", spot_url=f"{url}/api", api_key=lambda: "k", api_secret=lambda: "s"
    )
    return ExchangeGateway(replace(config, **changes), SystemClock())


def serve(server: FaultServer, *behaviors: Behavior) -> list[SeenRequest]:
    """Answer time requests well, and the others by `behaviors` in turn (the last one for ever); collect the others."""
    seen: list[SeenRequest] = []

    def behave(request: SeenRequest, connection: object) -> bool:
        if request.path.endswith("/time"):
            return answer(200, {"serverTime": TIME_MS})(request, connection)
        seen.append(request)
        return behaviors[min(len(seen), len(behaviors)) - 1](request, connection)

    server.default = behave
    return seen


def test_order_is_found_by_client_id_with_the_exchanges_time(server: FaultServer, gateway: ExchangeGateway) -> None:
    seen = serve(server, answer(200, FUTURES_ORDER))
    found = gateway.get_order(Venue.USDM, "BTCUSDT", client_order_id="fo-1")
    assert found == ExchangeOrder(
        venue=Venue.USDM,
        symbol="BTCUSDT",
        order_id=42,
        client_order_id="fo-1",
        side="BUY",
        order_type="LIMIT",
        status="PARTIALLY_FILLED",
        quantity=Decimal("1.50"),
        executed_quantity=Decimal("0.5"),
        price=Decimal("20000.1"),
        average_price=Decimal("20000.1"),
        time_in_force="GTC",
        reduce_only=True,
        time_ms=5,
        update_time_ms=6,
    )
    (request,) = seen
    assert (request.method, request.path) == ("GET", "/fapi/v1/order")
    assert request.parameters["origClientOrderId"] == "fo-1"
    # The wall clock of this machine is years away from the server's: it must play no part.
    assert 0 <= int(request.parameters["timestamp"]) - TIME_MS < 10_000


def test_exactly_minus_2013_with_400_is_absent(server: FaultServer, gateway: ExchangeGateway) -> None:
    seen = serve(server, ABSENT)
    found = gateway.get_order(Venue.USDM, "BTCUSDT", client_order_id="fo-1")
    assert found == OrderAbsent(venue=Venue.USDM, symbol="BTCUSDT", client_order_id="fo-1")
    assert len(seen) == 1


@pytest.mark.parametrize(
    "behavior",
    [
        answer(200, {"code": -2013, "msg": "Order does not exist."}),
        answer(404, {"code": -2013, "msg": "Order does not exist."}),
        answer(503, {"code": -2013, "msg": "Order does not exist."}),
        answer(400, {"code": "-2013", "msg": "Order does not exist."}),
        answer(400, {"code": -2011, "msg": "Unknown order sent."}),
        answer(400, {"code": -2026, "msg": "?"}),
        answer(400, "Order does not exist. -2013"),
        answer(200, "{}"),
        answer(200, "null"),
        answer(200, ""),
        answer(200, {**FUTURES_ORDER, "clientOrderId": "fo-2"}),
        answer(200, {**FUTURES_ORDER, "symbol": "ETHUSDT"}),
        answer(200, {**FUTURES_ORDER, "orderId": "42"}),
        answer(200, {**FUTURES_ORDER, "executedQty": None}),
        answer(200, {**FUTURES_ORDER, "executedQty": "1e3"}),
        answer(307, "", {"Location": "/fapi/v1/order"}),
        answer(502, "<html></html>"),
        truncated(FUTURES_ORDER),
        close_before_reply,
    ],
)
def test_anything_else_is_an_error_and_never_evidence(
    server: FaultServer, gateway: ExchangeGateway, behavior: Behavior
) -> None:
    serve(server, behavior)
    with pytest.raises(ExchangeQueryError):
        gateway.get_order(Venue.USDM, "BTCUSDT", client_order_id="fo-1")


def test_spot_archived_order_did_exist(server: FaultServer, gateway: ExchangeGateway) -> None:
    serve(server, answer(400, {"code": -2026, "msg": "Order was canceled or expired with no executed qty"}))
    found = gateway.get_order(Venue.SPOT, "BTCUSDT", client_order_id="fo-1")
    assert found == OrderArchived(venue=Venue.SPOT, symbol="BTCUSDT", client_order_id="fo-1")


def test_spot_order_renamed_by_a_cancel_is_found_by_number(server: FaultServer, gateway: ExchangeGateway) -> None:
    told = {**FUTURES_ORDER, "clientOrderId": "renamed", "cummulativeQuoteQty": "10000.05"}
    serve(server, answer(200, told))
    found = gateway.get_order(Venue.SPOT, "BTCUSDT", order_id=42)
    assert isinstance(found, ExchangeOrder)
    assert found.average_price == Decimal("20000.1")


def test_algo_order_tells_the_order_that_it_became(server: FaultServer, gateway: ExchangeGateway) -> None:
    told = {
        "algoId": 7,
        "clientAlgoId": "fo-1",
        "orderType": "STOP_MARKET",
        "symbol": "BTCUSDT",
        "side": "SELL",
        "quantity": "0.5",
        "algoStatus": "FINISHED",
        "actualOrderId": "99",
        "reduceOnly": True,
    }
    seen = serve(server, answer(200, told), answer(200, {**told, "actualOrderId": ""}))
    first = gateway.get_order(Venue.USDM, "BTCUSDT", client_order_id="fo-1", is_algo=True)
    second = gateway.get_order(Venue.USDM, "BTCUSDT", client_order_id="fo-1", is_algo=True)
    assert isinstance(first, ExchangeOrder)
    assert isinstance(second, ExchangeOrder)
    assert (first.actual_order_id, second.actual_order_id, first.is_algo) == (99, None, True)
    assert seen[0].path == "/fapi/v1/algoOrder"
    assert seen[0].parameters["clientAlgoId"] == "fo-1"


def test_query_is_asked_again_with_a_fresh_timestamp(server: FaultServer, gateway: ExchangeGateway) -> None:
    seen = serve(server, close_before_reply, answer(502, "x"), answer(200, FUTURES_ORDER))
    assert isinstance(gateway.get_order(Venue.USDM, "BTCUSDT", order_id=42), ExchangeOrder)
    assert len(seen) == 3
    assert len({request.parameters["timestamp"] for request in seen}) == 3


def test_query_gives_up_after_its_tries(server: FaultServer, gateway: ExchangeGateway) -> None:
    seen = serve(server, answer(502, "x"))
    with pytest.raises(ExchangeQueryError):
        gateway.get_order(Venue.USDM, "BTCUSDT", order_id=42)
    assert len(seen) == 3


@pytest.mark.parametrize(
    ("behavior", "expected"),
    [
        (answer(429, {"code": -1003, "msg": "?"}, {"Retry-After": "3"}), FailureClass.RATE_LIMITED),
        (answer(418, {"code": -1003, "msg": "?"}, {"Retry-After": "3"}), FailureClass.BANNED),
        (answer(401, {"code": -2015, "msg": "Invalid API-key, IP, or permissions for action."}), FailureClass.AUTH),
    ],
)
def test_limit_ban_and_bad_key_are_told_at_once(
    server: FaultServer, gateway: ExchangeGateway, behavior: Behavior, expected: FailureClass
) -> None:
    """Asking again would make a ban longer."""
    seen = serve(server, behavior)
    with pytest.raises(ExchangeQueryError) as raised:
        gateway.open_orders(Venue.USDM, "BTCUSDT")
    assert raised.value.failure.failure_class is expected
    assert len(seen) == 1


def test_wrong_timestamp_makes_the_clock_be_measured_again(server: FaultServer, gateway: ExchangeGateway) -> None:
    seen = serve(
        server,
        answer(400, {"code": -1021, "msg": "Timestamp for this request is outside of the recvWindow."}),
        answer(200, FUTURES_ORDER),
    )
    gateway.get_order(Venue.USDM, "BTCUSDT", order_id=42)
    assert len(seen) == 2
    assert len([request for request in server.requests if request.path.endswith("/time")]) == 2


def test_exchange_that_is_down_is_told_by_its_failure() -> None:
    gateway = gateway_to(f"http://127.0.0.1:{closed_port()}", query_tries=1)
    with pytest.raises(ExchangeQueryError) as raised:
        gateway.balances(Venue.USDM)
    assert raised.value.failure.rule != "exchange_clock_unknown"
    gateway.close()


def history(items: list[dict[str, object]], time_field: str, limit: int) -> Behavior:
    """Serve `items` as Binance does: the span asked for, newest page if there are too many."""

    def behave(request: SeenRequest, connection: object) -> bool:
        asked = request.parameters
        start, end = int(asked.get("startTime", "0")), int(asked.get("endTime", str(10**15)))
        from_id = int(asked.get("fromId", "-1"))
        found = [one for one in items if start <= int(str(one[time_field])) <= end and int(str(one["id"])) >= from_id]
        found = found[:limit] if from_id >= 0 else found[-limit:]
        return answer(200, found)(request, connection)

    return behave


def futures_trade(number: int, time_ms: int, order_id: int = 42) -> dict[str, object]:
    return {
        "id": number,
        "orderId": order_id,
        "symbol": "BTCUSDT",
        "side": "BUY",
        "price": "20000.1",
        "qty": "0.001",
        "quoteQty": "20.0001",
        "commission": "0.01",
        "commissionAsset": "USDT",
        "realizedPnl": "0",
        "maker": False,
        "buyer": True,
        "time": time_ms,
    }


def test_trades_of_an_order_are_read_to_the_last_page(server: FaultServer, gateway: ExchangeGateway) -> None:
    items = [futures_trade(number, TIME_MS - 5000 + number) for number in range(1, 2501)]
    serve(server, history(items, "time", 1000))
    found = gateway.trades_of_order(Venue.USDM, "BTCUSDT", 42)
    assert [trade.trade_id for trade in found] == list(range(1, 2501))


def test_trades_of_an_order_hold_no_other_orders_trades(server: FaultServer, gateway: ExchangeGateway) -> None:
    serve(server, answer(200, [futures_trade(1, TIME_MS), futures_trade(2, TIME_MS, order_id=43)]))
    assert [trade.trade_id for trade in gateway.trades_of_order(Venue.USDM, "BTCUSDT", 42)] == [1]


def test_all_orders_are_read_whatever_end_a_full_page_keeps(server: FaultServer, gateway: ExchangeGateway) -> None:
    items = [
        {**FUTURES_ORDER, "id": number, "orderId": number, "time": TIME_MS - 30 * 24 * 3600 * 1000 + number * 900_000}
        for number in range(1, 2600)
    ]
    seen = serve(server, history(items, "time", 1000))
    found = gateway.all_orders(Venue.USDM, "BTCUSDT", TIME_MS - 31 * 24 * 3600 * 1000)
    assert sorted(order.order_id for order in found) == list(range(1, 2600))
    spans = [request.parameters for request in seen if "endTime" in request.parameters]
    assert max(int(span["endTime"]) - int(span["startTime"]) for span in spans) < 7 * 24 * 3600 * 1000


def test_recent_orders_come_in_one_answer(server: FaultServer, gateway: ExchangeGateway) -> None:
    """The witness of absence must stand in the same answer: no needless second page."""
    seen = serve(server, answer(200, [FUTURES_ORDER]))
    assert len(gateway.all_orders(Venue.USDM, "BTCUSDT", TIME_MS - 60_000)) == 1
    assert len(seen) == 1


def test_spot_history_is_asked_for_in_days(server: FaultServer, gateway: ExchangeGateway) -> None:
    seen = serve(server, answer(200, []))
    gateway.trades_since(Venue.SPOT, "BTCUSDT", start_ms=TIME_MS - 5 * 24 * 3600 * 1000)
    assert len(seen) == 6
    assert seen[0].path == "/api/v3/myTrades"


def test_history_with_one_unreadable_line_is_an_error(server: FaultServer, gateway: ExchangeGateway) -> None:
    serve(server, answer(200, [FUTURES_ORDER, {"orderId": 7}]))
    with pytest.raises(ExchangeQueryError):
        gateway.all_orders(Venue.USDM, "BTCUSDT", TIME_MS - 1000)


def test_amounts_stay_exact_even_if_sent_as_json_numbers(server: FaultServer, gateway: ExchangeGateway) -> None:
    serve(server, answer(200, '[{"asset": "USDT", "balance": 0.1000000000000000055, "availableBalance": "1E-7"}]'))
    with pytest.raises(ExchangeQueryError):
        gateway.balances(Venue.USDM)  # 1E-7 in a string is not a plain decimal
    serve(server, answer(200, '[{"asset": "USDT", "balance": 0.1000000000000000055, "availableBalance": 1e-7}]'))
    (balance,) = gateway.balances(Venue.USDM)
    assert balance.wallet == Decimal("0.1000000000000000055")
    assert balance.available == Decimal("0.0000001")


def test_get_order_needs_exactly_one_name(gateway: ExchangeGateway) -> None:
    with pytest.raises(ValueError, match="exactly one"):
        gateway.get_order(Venue.USDM, "BTCUSDT")
    with pytest.raises(ValueError, match="exactly one"):
        gateway.get_order(Venue.USDM, "BTCUSDT", client_order_id="a", order_id=1)
