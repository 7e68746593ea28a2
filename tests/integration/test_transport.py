"""What goes over the wire, and which connection may carry the next request: over real sockets, each time."""

import contextlib
import gzip
import json
import os
import select
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import urllib3

from app.clock import SystemClock
from app.exchange import transport as transport_module
from app.exchange.connections import _CONNECTIONS_KEPT
from app.exchange.http_answer import MAX_HEAD_BYTES
from app.exchange.transport import HttpTransport, RawAnswer, TransportError
from app.job_safety.failure_classifier import TransportFault
from tests.support.fault_server import (
    Behavior,
    FaultServer,
    SeenRequest,
    answer,
    closed_port,
    fault_server,
    wait_until,
)
from tests.support.self_signed import write_certificate

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with fault_server() as running:
        yield running


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def transport() -> Iterator[HttpTransport]:
    made = transport_to()
    yield made
    made.close()


def transport_to(*, api_key: str = "key", proxy_url: str | None = None, ca_file: Path | None = None) -> HttpTransport:
    return HttpTransport(
        clock=SystemClock(),
        api_key=api_key,
        connect_timeout_s=3.0,
        proxy_url=proxy_url,
        ca_file=str(ca_file) if ca_file else None,
    )


def ask(
    transport: HttpTransport, url: str, *, method: str = "POST", path: str = "/fapi/v1/order", payload: str = "a=1"
) -> RawAnswer:
    return transport.send(method, f"{url}{path}", payload, deadline_s=10.0, read_timeout_s=5.0)


def fault(transport: HttpTransport, url: str) -> TransportFault:
    with pytest.raises(TransportError) as failed:
        ask(transport, url)
    return failed.value.fault


def says(data: bytes, *, then_keeps_open: bool = True) -> Behavior:
    """Answer with exactly `data`, and leave the connection open unless told otherwise."""

    def behave(_: SeenRequest, connection: socket.socket) -> bool:
        connection.sendall(data)
        return then_keeps_open

    return behave


def first_bytes(transport_url: str, listener: socket.socket, transport: HttpTransport, method: str) -> bytes:
    """Return what one request looks like to a listener that answers it."""
    seen: list[bytes] = []

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            seen.append(connection.recv(65536))
            connection.sendall(OK)

    thread = threading.Thread(target=serve)
    thread.start()
    ask(transport, transport_url, method=method)
    thread.join(timeout=10)
    return seen[0]


def test_request_is_these_bytes_and_no_others_in_one_piece(transport: HttpTransport) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host = f"127.0.0.1:{listener.getsockname()[1]}"
        post = first_bytes(f"http://{host}", listener, transport, "POST")
        transport.close()
        get = first_bytes(f"http://{host}", listener, transport_to(api_key=""), "GET")
    assert (
        post
        == (
            f"POST /fapi/v1/order HTTP/1.1\r\nHost: {host}\r\nUser-Agent: fillonce\r\nAccept: application/json\r\n"
            "X-MBX-APIKEY: key\r\nAccept-Encoding: identity\r\nContent-Type: application/x-www-form-urlencoded\r\n"
            "Content-Length: 3\r\n\r\na=1"
        ).encode()
    )
    assert (
        get
        == (
            f"GET /fapi/v1/order?a=1 HTTP/1.1\r\nHost: {host}\r\nUser-Agent: fillonce\r\nAccept: application/json\r\n"
            "Accept-Encoding: gzip\r\n\r\n"
        ).encode()
    )


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_reading_and_canceling_carry_their_query_in_the_address(
    server: FaultServer, transport: HttpTransport, method: str
) -> None:
    ask(transport, server.url, method=method)
    ask(transport, server.url, method=method, payload="")
    assert [(one.method, one.path, one.query, one.body) for one in server.requests] == [
        (method, "/fapi/v1/order", "a=1", ""),
        (method, "/fapi/v1/order", "", ""),
    ]


def test_host_is_told_with_the_brackets_and_the_port_that_it_needs() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listener:
        host = f"[::1]:{listener.getsockname()[1]}"
        seen = first_bytes(f"http://{host}", listener, transport_to(), "POST")
    assert f"\r\nHost: {host}\r\n".encode() in seen


@pytest.mark.parametrize(
    ("url", "host", "target"),
    [
        ("http://exchange.invalid", "exchange.invalid", "http://exchange.invalid/fapi/v1/order"),
        ("http://exchange.invalid:80", "exchange.invalid", "http://exchange.invalid/fapi/v1/order"),
        ("http://exchange.invalid:81", "exchange.invalid:81", "http://exchange.invalid:81/fapi/v1/order"),
        ("http://user:secret@exchange.invalid", "exchange.invalid", "http://exchange.invalid/fapi/v1/order"),
    ],
)
def test_proxy_is_given_the_whole_address(server: FaultServer, url: str, host: str, target: str) -> None:
    transport = transport_to(proxy_url=server.url)
    ask(transport, url)
    ask(transport, url, method="GET")
    transport.close()
    assert [(one.path, one.headers["host"], one.query) for one in server.requests] == [
        (target, host, ""),
        (target, host, "a=1"),
    ]
    assert server.connections == 1


def tunnel_to(target: FaultServer) -> Behavior:
    """Do as a proxy does that is asked for a tunnel."""

    def behave(request: SeenRequest, connection: socket.socket) -> bool:
        assert (request.method, request.path) == ("CONNECT", f"127.0.0.1:{target.port}")
        with socket.create_connection(("127.0.0.1", target.port)) as beyond:
            connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            while True:
                for side in select.select([connection, beyond], [], [], 10)[0]:
                    data = side.recv(65536)
                    if not data:
                        return False
                    (beyond if side is connection else connection).sendall(data)

    return behave


def test_https_goes_through_a_tunnel_of_the_proxy(server: FaultServer, certificate: tuple[Path, Path]) -> None:
    with fault_server(certificate=certificate) as target:
        server.default = tunnel_to(target)
        transport = transport_to(proxy_url=server.url, ca_file=certificate[0])
        ask(transport, target.url)
        ask(transport, target.url)
        assert [(one.path, one.headers["x-mbx-apikey"]) for one in target.requests] == [("/fapi/v1/order", "key")] * 2
        # The proxy sees neither key nor order.
        assert [(one.method, one.headers.get("x-mbx-apikey"), one.body) for one in server.requests] == [
            ("CONNECT", None, "")
        ]
        transport.close()


def test_certificate_behind_a_tunnel_is_checked(server: FaultServer, certificate: tuple[Path, Path]) -> None:
    with fault_server(certificate=certificate) as target:
        server.default = tunnel_to(target)
        transport = transport_to(proxy_url=server.url)
        # Bytes had left, to the proxy: that is not called a proof, although it could be.
        assert fault(transport, target.url) is TransportFault.OTHER
        assert target.requests == []


def test_proxy_that_refuses_a_tunnel_leaves_a_doubt(server: FaultServer, certificate: tuple[Path, Path]) -> None:
    server.default = says(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", then_keeps_open=False)
    transport = transport_to(proxy_url=server.url, ca_file=certificate[0])
    assert fault(transport, "https://exchange.invalid") is TransportFault.OTHER
    assert [one.method for one in server.requests] == ["CONNECT"]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_proxy_that_does_not_listen_proves_that_nothing_was_sent(scheme: str) -> None:
    transport = transport_to(proxy_url=f"http://127.0.0.1:{closed_port()}")
    assert fault(transport, f"{scheme}://exchange.invalid") is TransportFault.PROXY_REFUSED


def test_certificate_of_another_host_is_not_trusted(certificate: tuple[Path, Path]) -> None:
    with fault_server(certificate=certificate) as server:
        transport = transport_to(ca_file=certificate[0])
        assert fault(transport, f"https://localhost:{server.port}") is TransportFault.CERTIFICATE
        assert server.requests == []


def test_faults_before_sending_are_told_apart(certificate: tuple[Path, Path]) -> None:
    transport = transport_to()
    assert fault(transport, f"http://127.0.0.1:{closed_port()}") is TransportFault.CONNECTION_REFUSED
    assert fault(transport, "http://no-such-host.invalid") is TransportFault.DNS
    with fault_server(certificate=certificate) as server:
        assert fault(transport, server.url) is TransportFault.CERTIFICATE


BROKEN_REQUESTS = {
    "line break in the address": {"path": "/fapi/v1/order HTTP/1.1\r\nX: y"},
    "space in the address": {"path": "/fapi/v1/or der"},
    "letter that needs encoding in the address": {"path": "/fapi/v1/ordér"},
    "line break in the payload": {"payload": "a=1\r\n\r\nDELETE / HTTP/1.1"},
    "end of line at the end of the payload": {"payload": "a=1\n"},
    "space in the payload": {"payload": "a=1 2", "method": "GET"},
    "fragment in the payload": {"payload": "a=1#b", "method": "GET"},
    "letter that needs encoding in the payload": {"payload": "a=é"},
    "method with a line break": {"method": "GET / HTTP/1.1\r\n"},
    "unknown method": {"method": "CONNECT"},
}


@pytest.mark.parametrize("broken", BROKEN_REQUESTS.values(), ids=BROKEN_REQUESTS.keys())
def test_request_that_could_become_another_one_is_refused_unsent(
    server: FaultServer, transport: HttpTransport, broken: dict[str, str]
) -> None:
    (name,) = {"path", "payload", "method"} & set(broken) if len(broken) == 1 else {"payload"}
    with pytest.raises(ValueError, match="url" if name == "path" else name):
        ask(transport, server.url, **broken)
    assert server.connections == 0


@pytest.mark.parametrize("url", ["ftp://127.0.0.1", "//127.0.0.1", "http://", "http://[::1"])
def test_address_that_is_none_is_refused(transport: HttpTransport, url: str) -> None:
    with pytest.raises(ValueError, match=r"url|parse"):
        ask(transport, url)


@pytest.mark.parametrize("api_key", ["s3cret\r\nX: y", "s3cret\n", "s3 cret", "s3crét", "s3cret\x00"])
def test_key_that_could_become_a_header_is_refused_and_not_told(api_key: str) -> None:
    with pytest.raises(ValueError, match=r"api_key: .* BINANCE_API_KEY") as refused:
        transport_to(api_key=api_key)
    assert "s3" not in str(refused.value)


def next_connection_after(server: FaultServer, transport: HttpTransport, behavior: Behavior) -> int:
    """Ask twice, the first time answered by `behavior`; return the number of the second one's connection."""
    server.script.append(behavior)
    with contextlib.suppress(TransportError):
        ask(transport, server.url)
    assert ask(transport, server.url).body == b"{}"
    assert len(server.requests) == 2
    return server.requests[-1].connection


KEPT = {
    "length": OK,
    "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "refusal": b"HTTP/1.1 400 Bad\r\nContent-Length: 2\r\n\r\n{}",
    "interim": b"HTTP/1.1 100 Continue\r\n\r\n" + OK,
    "no_content": b"HTTP/1.1 204 None\r\n\r\n",
    "redirect": b"HTTP/1.1 307 Elsewhere\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n",
    "bad_packing": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
}
NOT_KEPT = {
    "close": b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}",
    "http_1_0": b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    "more_than_its_length": OK + b"{}",
    "a_second_answer": OK + OK,
    "one_line_break_too_much": OK + b"\r\n",
    "malformed": b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\n{}",
    "garbage": b"SMTP ready\r\n\r\n",
    "too_many_headers": b"HTTP/1.1 200 OK\r\nX: " + b"x" * MAX_HEAD_BYTES + b"\r\nContent-Length: 2\r\n\r\n{}",
}


@pytest.mark.parametrize("data", KEPT.values(), ids=KEPT.keys())
def test_connection_serves_again_after_an_answer_read_to_its_end(
    server: FaultServer, transport: HttpTransport, data: bytes
) -> None:
    assert next_connection_after(server, transport, says(data)) == 1


@pytest.mark.parametrize("data", NOT_KEPT.values(), ids=NOT_KEPT.keys())
def test_connection_never_serves_again_after_anything_else(
    server: FaultServer, transport: HttpTransport, data: bytes
) -> None:
    assert next_connection_after(server, transport, says(data)) == 2


def test_connection_with_an_answer_that_nobody_asked_for_never_serves_again(
    server: FaultServer, transport: HttpTransport
) -> None:
    """The stray answer comes after the connection was put by, and would be taken for that of the next request."""
    is_said = threading.Event()

    def behave(_: SeenRequest, connection: socket.socket) -> bool:
        connection.sendall(OK)
        wait_until(lambda: bool(transport._connections._kept))
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstray")
        is_said.set()
        return True

    server.script.append(behave)
    ask(transport, server.url)
    assert is_said.wait(10)
    assert ask(transport, server.url).body == b"{}"
    assert [one.connection for one in server.requests] == [1, 2]


def test_connection_over_tls_serves_again_unless_something_waits_in_it(certificate: tuple[Path, Path]) -> None:
    with fault_server(certificate=certificate) as server:
        transport = transport_to(ca_file=certificate[0])
        # Session tickets come with the first answer at the latest.
        assert next_connection_after(server, transport, says(OK)) == 1
        server.script.append(says(OK + OK))
        ask(transport, server.url)
        assert ask(transport, server.url).body == b"{}"
        assert [one.connection for one in server.requests] == [1, 1, 1, 2]
        transport.close()


def test_bytes_that_wait_inside_of_tls_forbid_another_request(
    certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are in this process already: the socket has nothing more to read."""
    monkeypatch.setattr("app.exchange.connecting._CHUNK", len(OK))
    with fault_server(certificate=certificate) as server:
        transport = transport_to(ca_file=certificate[0])
        assert next_connection_after(server, transport, says(OK + OK)) == 2
        transport.close()


def test_interrupted_request_gives_its_connection_up(server: FaultServer, transport: HttpTransport) -> None:
    """As when a job's time is up: the answer that comes later is not the next request's."""

    class Interrupt(BaseException):
        pass

    class InterruptedClock(SystemClock):
        is_armed = True

        def monotonic(self) -> float:
            if self.is_armed and interrupted._wire.sent:
                self.is_armed = False
                raise Interrupt
            return super().monotonic()

    interrupted = HttpTransport(
        clock=InterruptedClock(), api_key="", connect_timeout_s=3.0, proxy_url=None, ca_file=None
    )
    with pytest.raises(Interrupt):
        ask(interrupted, server.url)
    assert ask(interrupted, server.url).body == b"{}"
    wait_until(lambda: len(server.requests) == 2)
    assert {one.connection for one in server.requests} == {1, 2}
    interrupted.close()


class Breaking:
    """Our side of a connection that lets bytes out and then fails."""

    def __init__(self, sock: socket.socket, error: Exception) -> None:
        self._sock = sock
        self._error = error

    def sendall(self, data: bytes) -> None:
        self._sock.sendall(data)
        raise self._error

    def __getattr__(self, name: str) -> object:
        return getattr(self._sock, name)


def break_kept_connection(transport: HttpTransport, error: Exception) -> None:
    ((connection,),) = transport._connections._kept.values()
    connection.sock = Breaking(connection.sock, error)


@pytest.mark.parametrize("error", [BrokenPipeError(), ConnectionResetError()], ids=["pipe", "reset"])
def test_answer_of_a_server_that_stopped_listening_is_still_read(
    server: FaultServer, transport: HttpTransport, error: OSError
) -> None:
    """It was too busy to read the request, said so and hung up: the answer waits, and tells more than a doubt."""
    ask(transport, server.url)
    break_kept_connection(transport, error)
    server.script.append(answer(429, {}))
    assert ask(transport, server.url).http_status == 429
    # It may not have the whole request: no other one goes over this connection.
    ask(transport, server.url)
    assert [one.connection for one in server.requests] == [1, 1, 2]


def test_error_in_the_middle_of_sending_proves_nothing(server: FaultServer, transport: HttpTransport) -> None:
    """Whatever its type says: a byte was handed over before."""
    ask(transport, server.url)
    break_kept_connection(transport, urllib3.exceptions.NewConnectionError(None, "told while sending"))
    assert fault(transport, server.url) is TransportFault.OTHER
    wait_until(lambda: len(server.requests) == 2)


def test_silence_ends_at_the_deadline_although_more_silence_is_allowed(
    server: FaultServer, transport: HttpTransport
) -> None:
    def behave(_: SeenRequest, connection: socket.socket) -> bool:
        connection.sendall(OK[:20])
        server.stopping.wait(60)
        return False

    server.default = behave
    started = time.monotonic()
    with pytest.raises(TransportError):
        transport.send("POST", server.url, "", deadline_s=0.5, read_timeout_s=40.0)
    assert time.monotonic() - started < 20


def test_answer_that_unpacks_beyond_the_limit_is_an_error(
    server: FaultServer, transport: HttpTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport_module, "MAX_BODY_BYTES", 1000)
    packed = gzip.compress(b"1" * 1001)
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(packed)}\r\n\r\n".encode()
    server.default = says(head + packed)
    assert fault(transport, server.url) is TransportFault.OTHER
    monkeypatch.setattr(transport_module, "MAX_BODY_BYTES", 1001)
    assert ask(transport, server.url).body == b"1" * 1001
    assert len(server.requests) == 2


def test_threads_share_it_and_leave_only_so_many_connections_behind(
    server: FaultServer, transport: HttpTransport
) -> None:
    count = 3 * _CONNECTIONS_KEPT
    all_are_here = threading.Barrier(count)

    def behave(request: SeenRequest, connection: socket.socket) -> bool:
        all_are_here.wait(30)
        return answer(200, request.parameters)(request, connection)

    server.default = behave
    told: dict[int, object] = {}

    def run(number: int) -> None:
        told[number] = json.loads(ask(transport, server.url, payload=f"a={number}").body)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert told == {number: {"a": str(number)} for number in range(count)}
    assert server.connections == count
    wait_until(lambda: len(server._open) == _CONNECTIONS_KEPT)


def test_request_under_way_while_it_is_closed_leaves_no_connection_open(
    server: FaultServer, transport: HttpTransport
) -> None:
    goes_on = threading.Event()

    def behave(_: SeenRequest, connection: socket.socket) -> bool:
        assert goes_on.wait(10)
        connection.sendall(OK)
        return True

    server.default = behave
    bodies: list[bytes] = []
    thread = threading.Thread(target=lambda: bodies.append(ask(transport, server.url).body))
    thread.start()
    wait_until(lambda: len(server.requests) == 1)
    transport.close()
    goes_on.set()
    thread.join(timeout=10)
    assert bodies == [b"{}"]
    wait_until(lambda: not server._open)


def test_forked_process_closes_its_copies_and_ends_no_connection(server: FaultServer, transport: HttpTransport) -> None:
    """Also while a thread, which the child does not have, is in the middle of a request."""
    goes_on = threading.Event()

    def behave(_: SeenRequest, connection: socket.socket) -> bool:
        assert goes_on.wait(30)
        connection.sendall(OK)
        return True

    server.script.append(behave)
    thread = threading.Thread(target=lambda: ask(transport, server.url))
    thread.start()
    wait_until(lambda: len(server.requests) == 1)
    ask(transport, server.url)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            transport.close()
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    ask(transport, server.url)
    goes_on.set()
    thread.join(timeout=10)
    assert [one.connection for one in server.requests] == [1, 2, 2]


def test_deadline_holds_for_a_tunnel_that_a_proxy_never_opens(server: FaultServer) -> None:
    def drips(_: SeenRequest, connection: socket.socket) -> bool:
        connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
        for _ in range(600):
            connection.sendall(b"y")
            if server.stopping.wait(0.05):
                break
        return False

    server.default = drips
    transport = transport_to(proxy_url=server.url)
    started = time.monotonic()
    with pytest.raises(TransportError) as failed:
        transport.send("POST", "https://exchange.invalid/", "a=1", deadline_s=0.5, read_timeout_s=0.5)
    assert failed.value.fault is TransportFault.OTHER
    assert time.monotonic() - started < 15
