"""The gateway against a server that misbehaves in every way we know: certainty and number of requests, each time."""

import hashlib
import hmac
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
import urllib3
from redis import Redis

from app.clock import SystemClock
from app.exchange.config import GatewayConfig
from app.exchange.connections import IDLE_CONNECTION_LIMIT_S
from app.exchange.gateway import REPLY_NOT_OURS, ExchangeGateway
from app.exchange.models import CancelAccepted, PinnedCancel, PinnedOrder
from app.exchange.signing import canonical, order_parameters
from app.job_safety.names import GuardNames
from app.job_safety.outcome import Accepted, Certainty, FailureClass, NotSent, Outcome, Refused, Unknown, Venue
from app.job_safety.rate_limit import RateGate, RatePolicy
from tests.support.fault_server import (
    Behavior,
    FaultServer,
    SeenRequest,
    answer,
    bad_gzip,
    close_before_reply,
    closed_port,
    drip_body,
    drip_headers,
    echo_order,
    fault_server,
    raw,
    reset_before_reply,
    silence,
    then_close_after,
    truncated,
    truncated_chunks,
    wait_until,
)
from tests.support.self_signed import write_certificate

SECRET = "s3cret"
NAMES = GuardNames(namespace="guard", kill_switch="kill", mode="paper", account="main")

ORDER = PinnedOrder(
    venue=Venue.USDM,
    symbol="BTCUSDT",
    side="BUY",
    order_type="MARKET",
    quantity=Decimal("0.010"),
    client_order_id="fo-_aZ09",
    timestamp_ms=1_763_500_000_123,
    recv_window_ms=3000,
)


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with fault_server() as running:
        yield running


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_certificate(tmp_path_factory.mktemp("tls"))


def gateway_to(url: str, **changes: object) -> ExchangeGateway:
    config = GatewayConfig(
        futures_url=f"{url}/fapi", spot_url=f"{url}/api", api_key=lambda: "key", api_secret=lambda: SECRET
    )
    return ExchangeGateway(replace(config, **changes), SystemClock())


def place_once(url: str, **changes: object) -> Outcome:
    gateway = gateway_to(url, **changes)
    try:
        return gateway.place_order(ORDER)
    finally:
        gateway.close()


def certainty_of(outcome: object) -> Certainty:
    match outcome:
        case NotSent():
            return Certainty.NOT_SENT
        case Refused():
            return Certainty.REFUSED
        case Accepted() | CancelAccepted():
            return Certainty.ACCEPTED
        case Unknown():
            return Certainty.UNKNOWN
    raise AssertionError(outcome)


def test_answer_with_our_order_is_accepted_and_sent_once(server: FaultServer) -> None:
    server.default = echo_order()
    outcome = place_once(server.url)
    assert isinstance(outcome, Accepted)
    assert outcome.order.order_id == 42
    assert outcome.order.average_price == Decimal("23140.50")
    assert outcome.order.executed_quantity == Decimal("0.010")
    assert len(server.requests) == 1


UNKNOWN_ANSWERS: dict[str, Behavior] = {
    "reset_before_reply": reset_before_reply,
    "close_before_reply": close_before_reply,
    "truncated_body": truncated({"orderId": 42, "clientOrderId": ORDER.client_order_id, "symbol": "BTCUSDT"}),
    "truncated_chunks": truncated_chunks({"orderId": 42, "clientOrderId": ORDER.client_order_id}),
    "truncated_json": answer(200, '{"orderId": 42, "clientOrderId": "fo'),
    "bad_status_line": raw(b"SMTP ready\r\n\r\n"),
    "bad_gzip": bad_gzip,
    "redirect_307": answer(307, "", {"Location": "/fapi/v1/order"}),
    "redirect_302": answer(302, "", {"Location": "/fapi/v1/time"}),
    "html_200": answer(200, "<html>busy</html>"),
    "html_502": answer(502, "<html>Bad gateway</html>"),
    "html_503": answer(503, "<html>Service Unavailable.</html>"),
    "empty_503": answer(503, ""),
    "503_without_code": answer(
        503, {"msg": "Unknown error, please check your request or try again later.", "timestamp": 1}
    ),
    "error_body_in_200": answer(200, {"code": -1007, "msg": "Timeout waiting for response from backend server."}),
    "retry_after_503": answer(503, {"code": -1000, "msg": "?"}, {"Retry-After": "0"}),
    "empty_200": answer(200, ""),
    "null_200": answer(200, "null"),
    "null_500": answer(500, "null"),
    "string_500": answer(500, '"text"'),
    "list_200": answer(200, "[]"),
    "list_500": answer(500, "[]"),
    "empty_object_200": answer(200, "{}"),
    "not_utf8_200": raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n\xff\xfe"),
    "deeply_nested_200": answer(200, "[" * 5000 + "]" * 5000),
    "another_client_order_id": echo_order(clientOrderId="fo-other"),
    "another_symbol": echo_order(symbol="ETHUSDT"),
    "order_id_as_text": echo_order(orderId="42"),
    "order_id_true": echo_order(orderId=True),
    "order_id_missing": echo_order(orderId=None),
    "timeout_408": answer(408, {"code": -1007, "msg": "Timeout"}),
    "unlisted_code_400": answer(400, {"code": -9999, "msg": "new"}),
    "duplicate_id": answer(400, {"code": -4116, "msg": "ClientOrderId is duplicated."}),
}


@pytest.mark.parametrize("behavior", UNKNOWN_ANSWERS.values(), ids=UNKNOWN_ANSWERS.keys())
def test_answer_that_proves_nothing_leaves_the_order_in_doubt_after_one_request(
    server: FaultServer, behavior: Behavior
) -> None:
    server.default = behavior
    assert certainty_of(place_once(server.url)) is Certainty.UNKNOWN
    assert len(server.requests) == 1


REFUSALS: dict[str, tuple[Behavior, FailureClass]] = {
    "margin": (answer(400, {"code": -2019, "msg": "Margin is insufficient."}), FailureClass.REJECTED_BUSINESS),
    "clock": (answer(400, {"code": -1021, "msg": "Timestamp for this request is outside."}), FailureClass.CLOCK_SKEW),
    "rate": (
        answer(429, {"code": -1015, "msg": "Too many new orders."}, {"Retry-After": "7"}),
        FailureClass.RATE_LIMITED,
    ),
    "ban": (answer(418, {"code": -1003, "msg": "banned"}, {"Retry-After": "120"}), FailureClass.BANNED),
    "signature": (answer(400, {"code": -1022, "msg": "Signature for this request is not valid."}), FailureClass.AUTH),
}


@pytest.mark.parametrize(("behavior", "expected"), REFUSALS.values(), ids=REFUSALS.keys())
def test_documented_refusal_is_refused_after_one_request(
    server: FaultServer, behavior: Behavior, expected: FailureClass
) -> None:
    server.default = behavior
    outcome = place_once(server.url)
    assert isinstance(outcome, Refused)
    assert outcome.failure.failure_class is expected
    assert len(server.requests) == 1


def test_refusal_keeps_status_code_message_and_retry_after(server: FaultServer) -> None:
    server.default = REFUSALS["rate"][0]
    outcome = place_once(server.url)
    assert isinstance(outcome, Refused)
    told = outcome.failure
    assert (told.http_status, told.code, told.message, told.retry_after_s) == (429, -1015, "Too many new orders.", 7)


def test_answer_about_another_order_names_its_rule(server: FaultServer) -> None:
    server.default = echo_order(clientOrderId="fo-other")
    outcome = place_once(server.url)
    assert isinstance(outcome, Unknown)
    assert outcome.failure.rule == REPLY_NOT_OURS


def test_refused_connection_is_not_sent() -> None:
    assert certainty_of(place_once(f"http://127.0.0.1:{closed_port()}")) is Certainty.NOT_SENT


def test_name_that_does_not_resolve_is_not_sent() -> None:
    assert certainty_of(place_once("http://no-such-host.invalid")) is Certainty.NOT_SENT


def test_connection_that_is_never_taken_is_not_sent() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):  # fills the queue; Linux drops what comes after
            outcome = place_once(f"http://127.0.0.1:{port}", connect_timeout_s=0.4)
    assert certainty_of(outcome) is Certainty.NOT_SENT


def test_proxy_that_cannot_be_reached_is_not_sent(server: FaultServer) -> None:
    outcome = place_once(server.url, proxy_url=f"http://127.0.0.1:{closed_port()}")
    assert certainty_of(outcome) is Certainty.NOT_SENT
    assert server.connections == 0


def test_order_through_a_proxy_is_sent_once(server: FaultServer) -> None:
    server.default = echo_order()
    outcome = place_once("http://exchange.invalid", proxy_url=server.url)
    assert certainty_of(outcome) is Certainty.ACCEPTED
    assert [request.path for request in server.requests] == ["http://exchange.invalid/fapi/v1/order"]


def test_proxies_of_the_environment_are_ignored(server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port()}")
    server.default = echo_order()
    assert certainty_of(place_once(server.url)) is Certainty.ACCEPTED


def test_silence_leaves_the_order_in_doubt_within_the_read_timeout(server: FaultServer) -> None:
    server.default = silence(30)
    started = time.monotonic()
    outcome = place_once(server.url, read_timeout_s=0.3, outer_deadline_s=5.0)
    assert certainty_of(outcome) is Certainty.UNKNOWN
    assert time.monotonic() - started < 3
    assert len(server.requests) == 1


@pytest.mark.parametrize("behavior", [drip_headers(0.05), drip_body(0.05)], ids=["headers", "body"])
def test_dripping_answer_ends_at_the_outer_deadline(server: FaultServer, behavior: Behavior) -> None:
    """Every byte restarts a socket timeout; only the outer deadline ends this (100 s of dripping otherwise)."""
    server.default = behavior
    started = time.monotonic()
    outcome = place_once(server.url, read_timeout_s=0.5, outer_deadline_s=0.6)
    assert certainty_of(outcome) is Certainty.UNKNOWN
    assert 0.5 < time.monotonic() - started < 3
    assert len(server.requests) == 1


def test_dripping_answer_over_tls_ends_at_the_outer_deadline(certificate: tuple[Path, Path]) -> None:
    with fault_server(certificate=certificate) as server:
        server.default = drip_body(0.05)
        started = time.monotonic()
        outcome = place_once(server.url, read_timeout_s=0.5, outer_deadline_s=0.6, ca_file=str(certificate[0]))
        assert certainty_of(outcome) is Certainty.UNKNOWN
        assert time.monotonic() - started < 3
        assert len(server.requests) == 1


def test_order_over_trusted_tls_is_accepted(certificate: tuple[Path, Path]) -> None:
    with fault_server(certificate=certificate) as server:
        server.default = echo_order()
        outcome = place_once(server.url, ca_file=str(certificate[0]))
        assert certainty_of(outcome) is Certainty.ACCEPTED


def test_untrusted_certificate_is_not_sent(certificate: tuple[Path, Path]) -> None:
    with fault_server(certificate=certificate) as server:
        outcome = place_once(server.url)
        assert isinstance(outcome, NotSent)
        assert outcome.failure is not None
        assert outcome.failure.failure_class is FailureClass.EXCHANGE_DOWN
        assert server.requests == []


def test_tls_garbage_after_sending_leaves_the_order_in_doubt(certificate: tuple[Path, Path]) -> None:
    """The same exception type as a bad certificate, but the request had left."""

    def garbage(_: object, connection: socket.socket) -> bool:
        os.write(connection.fileno(), b"\x17\x03\x03\x00\x20" + b"x" * 32)
        return False

    with fault_server(certificate=certificate) as server:
        server.default = garbage
        outcome = place_once(server.url, ca_file=str(certificate[0]))
        assert certainty_of(outcome) is Certainty.UNKNOWN
        assert len(server.requests) == 1


def test_tls_handshake_that_stalls_is_in_doubt_and_ends_in_time() -> None:
    with fault_server(handshake=silence(30)) as server:
        started = time.monotonic()
        outcome = place_once(server.url, connect_timeout_s=0.3, outer_deadline_s=12.0)
        assert certainty_of(outcome) is Certainty.UNKNOWN
        assert time.monotonic() - started < 3


def test_tls_handshake_answered_with_garbage_is_in_doubt() -> None:
    """Of all TLS errors only a distrusted certificate proves that nothing was sent."""
    with fault_server(handshake=raw(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as server:
        assert certainty_of(place_once(server.url)) is Certainty.UNKNOWN


def test_proof_of_not_sending_is_not_believed_once_bytes_have_left(
    server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def connect_error_out_of_place(self: object) -> None:
        raise urllib3.exceptions.ConnectTimeoutError(self, "told after sending")

    monkeypatch.setattr("app.exchange.connecting.Guarded.receive", connect_error_out_of_place)
    assert certainty_of(place_once(server.url)) is Certainty.UNKNOWN


def test_answer_that_waits_in_the_socket_after_the_deadline_is_still_read(server: FaultServer) -> None:
    """A process that was stopped past its deadline must not turn an answer it already has into a doubt."""
    answered = threading.Event()

    def answer_and_tell(request: SeenRequest, connection: socket.socket) -> bool:
        echo_order()(request, connection)
        answered.set()
        return True

    class StoppedClock(SystemClock):
        """Once the request has left, the process stands still until long after the answer has come."""

        def monotonic(self) -> float:
            transport = gateway._channel._transport
            if transport is None or not transport._wire.sent:
                return super().monotonic()
            answered.wait(10)
            return super().monotonic() + 1000

    server.default = answer_and_tell
    gateway = ExchangeGateway(gateway_to(server.url)._config, StoppedClock())
    assert certainty_of(gateway.place_order(ORDER)) is Certainty.ACCEPTED
    gateway.close()


def test_answer_that_trickles_in_after_the_deadline_is_not_waited_for(server: FaultServer) -> None:
    class StoppedClock(SystemClock):
        def monotonic(self) -> float:
            transport = gateway._channel._transport
            is_sent = transport is not None and transport._wire.sent
            return super().monotonic() + (1000 if is_sent else 0)

    server.default = drip_headers(0.02)
    gateway = ExchangeGateway(gateway_to(server.url)._config, StoppedClock())
    started = time.monotonic()
    assert certainty_of(gateway.place_order(ORDER)) is Certainty.UNKNOWN
    assert time.monotonic() - started < 3
    gateway.close()


def test_idle_connection_is_replaced_before_sending(server: FaultServer) -> None:
    class MovableClock(SystemClock):
        moved = 0.0

        def monotonic(self) -> float:
            return super().monotonic() + self.moved

    clock = MovableClock()
    server.default = echo_order()
    gateway = ExchangeGateway(gateway_to(server.url)._config, clock)
    gateway.place_order(ORDER)
    gateway.place_order(ORDER)
    assert [request.connection for request in server.requests] == [1, 1]
    clock.moved = IDLE_CONNECTION_LIMIT_S + 0.1
    gateway.place_order(ORDER)
    assert [request.connection for request in server.requests] == [1, 1, 2]
    gateway.close()


def test_connection_that_the_server_has_closed_costs_no_doubt(server: FaultServer) -> None:
    server.default = then_close_after(echo_order(), 0.05)
    gateway = gateway_to(server.url)
    for count in range(1, 4):
        assert certainty_of(gateway.place_order(ORDER)) is Certainty.ACCEPTED
        # Much sooner than our own limit: the close has arrived and must be noticed.
        wait_until(lambda: not server._open)
        assert len(server.requests) == count
    gateway.close()


def test_forked_process_opens_its_own_connection(server: FaultServer) -> None:
    server.default = echo_order()
    gateway = gateway_to(server.url)
    gateway.place_order(ORDER)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if isinstance(gateway.place_order(ORDER), Accepted) else 2
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert certainty_of(gateway.place_order(ORDER)) is Certainty.ACCEPTED
    assert [request.connection for request in server.requests] == [1, 2, 1]
    gateway.close()


def test_threads_never_receive_each_others_answers(server: FaultServer) -> None:
    server.default = echo_order()
    gateway = gateway_to(server.url)
    wrong: list[str] = []

    def place_many(name: str) -> None:
        for number in range(25):
            order = replace(ORDER, client_order_id=f"{name}-{number}")
            outcome = gateway.place_order(order)
            if not isinstance(outcome, Accepted) or outcome.order.client_order_id != order.client_order_id:
                wrong.append(f"{order.client_order_id}: {outcome}")

    threads = [threading.Thread(target=place_many, args=(name,)) for name in ("a", "b", "c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert wrong == []
    assert len(server.requests) == 75
    gateway.close()


def test_nothing_is_opened_before_the_first_request(server: FaultServer) -> None:
    gateway_to(server.url)
    assert server.connections == 0


def test_missing_secret_sends_nothing(server: FaultServer) -> None:
    outcome = place_once(server.url, api_secret=lambda: "")
    assert isinstance(outcome, NotSent)
    assert "BINANCE_API_SECRET" in outcome.reason
    assert server.requests == []


def test_key_that_cannot_stand_in_a_header_sends_nothing(server: FaultServer) -> None:
    outcome = place_once(server.url, api_key=lambda: "key\r\nX: y")
    assert isinstance(outcome, NotSent)
    assert "BINANCE_API_KEY" in outcome.reason
    assert server.connections == 0


def test_cookies_are_not_sent_back(server: FaultServer) -> None:
    order = echo_order()

    def with_cookie(request: object, connection: socket.socket) -> bool:
        class Rewriting:
            def sendall(self, data: bytes) -> None:
                connection.sendall(data.replace(b"\r\n", b"\r\nSet-Cookie: a=b; Path=/\r\n", 1))

        return order(request, Rewriting())

    server.default = with_cookie
    gateway = gateway_to(server.url)
    gateway.place_order(ORDER)
    gateway.place_order(ORDER)
    assert [request.headers.get("cookie") for request in server.requests] == [None, None]
    gateway.close()


VARIANTS = {
    "futures_limit": replace(
        ORDER, order_type="LIMIT", price=Decimal("23000.10"), time_in_force="GTX", reduce_only=True
    ),
    "futures_stop": replace(ORDER, order_type="STOP_MARKET", stop_price=Decimal(20000), reduce_only=True),
    "spot_market": replace(ORDER, venue=Venue.SPOT),
    "spot_limit": replace(ORDER, venue=Venue.SPOT, order_type="LIMIT", price=Decimal("1E-7"), time_in_force="IOC"),
    "spot_take_profit": replace(
        ORDER, venue=Venue.SPOT, order_type="TAKE_PROFIT_MARKET", side="SELL", stop_price=Decimal(30000)
    ),
}
PATHS = {
    "futures_limit": "/fapi/v1/order",
    "futures_stop": "/fapi/v1/algoOrder",
    "spot_market": "/api/v3/order",
    "spot_limit": "/api/v3/order",
    "spot_take_profit": "/api/v3/order",
}


@pytest.mark.parametrize("name", VARIANTS)
def test_wire_carries_exactly_the_pinned_parameters_with_a_valid_signature(server: FaultServer, name: str) -> None:
    server.default = echo_order()
    gateway = gateway_to(server.url)
    outcome = gateway.place_order(VARIANTS[name])
    gateway.close()
    assert isinstance(outcome, Accepted)
    (request,) = server.requests
    payload, _, signature = request.payload.rpartition("&signature=")
    assert payload == canonical(order_parameters(VARIANTS[name]))
    assert signature == hmac.new(SECRET.encode(), payload.encode(), hashlib.sha256).hexdigest()
    assert request.headers["x-mbx-apikey"] == "key"
    assert (request.method, request.path) == ("POST", PATHS[name])
    assert outcome.order.is_algo == (name == "futures_stop")


def test_conditional_futures_order_needs_the_algo_id_in_the_answer(server: FaultServer) -> None:
    server.default = echo_order(algoId=None, orderId=42)
    gateway = gateway_to(server.url)
    assert certainty_of(gateway.place_order(VARIANTS["futures_stop"])) is Certainty.UNKNOWN
    gateway.close()


CANCEL = PinnedCancel(
    venue=Venue.USDM, symbol="BTCUSDT", order_id=42, client_order_id="fo-1", timestamp_ms=10**12, recv_window_ms=3000
)
CANCELED = {
    "symbol": "BTCUSDT",
    "orderId": 42,
    "clientOrderId": "fo-1",
    "side": "BUY",
    "type": "LIMIT",
    "status": "CANCELED",
    "origQty": "1",
    "executedQty": "0.4",
    "price": "2",
}


def cancel_once(server: FaultServer, cancel: PinnedCancel) -> object:
    gateway = gateway_to(server.url)
    try:
        return gateway.cancel_order(cancel)
    finally:
        gateway.close()


def test_cancel_is_sent_once_and_tells_what_had_been_executed(server: FaultServer) -> None:
    server.default = answer(200, CANCELED)
    outcome = cancel_once(server, CANCEL)
    assert isinstance(outcome, CancelAccepted)
    assert outcome.order is not None
    assert outcome.order.executed_quantity == Decimal("0.4")
    (request,) = server.requests
    assert (request.method, request.path) == ("DELETE", "/fapi/v1/order")
    assert request.parameters["orderId"] == "42"


def test_spot_cancel_keeps_the_orders_own_client_id(server: FaultServer) -> None:
    server.default = answer(200, {**CANCELED, "origClientOrderId": "fo-1"})
    outcome = cancel_once(server, replace(CANCEL, venue=Venue.SPOT))
    assert isinstance(outcome, CancelAccepted)
    assert outcome.client_order_id == "fo-1"
    assert server.requests[0].parameters["newClientOrderId"] == "fo-1"


def test_algo_cancel_with_its_code_200_is_accepted(server: FaultServer) -> None:
    server.default = answer(200, {"algoId": 42, "clientAlgoId": "fo-1", "code": "200", "msg": "success"})
    outcome = cancel_once(server, replace(CANCEL, is_algo=True))
    assert isinstance(outcome, CancelAccepted)
    assert outcome.order is None
    assert server.requests[0].path == "/fapi/v1/algoOrder"


def test_cancel_answered_for_another_order_is_in_doubt(server: FaultServer) -> None:
    server.default = answer(200, {**CANCELED, "orderId": 43})
    assert certainty_of(cancel_once(server, CANCEL)) is Certainty.UNKNOWN
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "header",
    [
        ("Retry-After", "9" * 5000),
        ("X-MBX-USED-WEIGHT-1M", "9" * 5000),
        ("X-MBX-ORDER-COUNT-10S", "9" * 5000),
        ("X-MBX-ORDER-COUNT-" + "9" * 5000 + "S", "1"),
    ],
    ids=["pause", "weight", "orders", "interval"],
)
def test_number_that_cannot_be_read_beside_an_answer_does_not_unsend_the_order(
    server: FaultServer, header: tuple[str, str]
) -> None:
    """Python refuses to read so many digits with the very error that a request which cannot be built raises."""
    server.default = echo_order(headers=dict([header]))
    rate = RateGate(Redis(), NAMES, RatePolicy())
    gateway = gateway_to(server.url)
    gateway.on_limits(lambda venue, told: rate.saw(venue, used_weight=told.used_weight, order_count=told.order_count))
    outcome = gateway.place_order(ORDER)
    gateway.close()
    assert (certainty_of(outcome), len(server.requests)) == (Certainty.ACCEPTED, 1)


def test_what_breaks_beside_an_answer_does_not_unsend_the_order(server: FaultServer) -> None:
    def broken(venue: Venue, told: object) -> None:
        raise ValueError(f"{venue}: {told}")

    server.default = echo_order()
    gateway = gateway_to(server.url)
    gateway.on_limits(broken)
    outcome = gateway.place_order(ORDER)
    gateway.close()
    assert (certainty_of(outcome), len(server.requests)) == (Certainty.UNKNOWN, 1)


def test_limits_seen_holds_weight_counts_and_retry_after(server: FaultServer) -> None:
    server.default = answer(
        429,
        {"code": -1003, "msg": "Too many requests"},
        {
            "X-MBX-USED-WEIGHT-1M": "2399", "x-mbx-order-count-10s": "7", "Retry-After": "12",
            "x-mbx-used-weight": "8", "x-mbx-used-weight-all-1m": "9", "x-mbx-order-count-1w": "9",
            "x-mbx-uuid-1m": "9", "x-mbx-order-count-1d": "many",
        },
    )  # fmt: skip
    gateway = gateway_to(server.url)
    gateway.place_order(ORDER)
    gateway.close()
    seen = gateway.limits_seen[Venue.USDM]
    assert (seen.used_weight, seen.order_count, seen.retry_after_s) == ({"1M": 2399}, {"10S": 7}, 12)
