"""An HTTP server made of raw sockets that answers as badly as it is told to, and keeps what it was asked.

`server.script` holds the behaviors of the coming requests; when it is empty, `server.default` answers. A behavior gets
the request and its socket, and says whether the connection stays open.
"""

import contextlib
import gzip
import json
import socket
import ssl
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl


@dataclass(frozen=True)
class SeenRequest:
    method: str
    path: str
    query: str
    body: str
    headers: dict[str, str]
    connection: int

    @property
    def payload(self) -> str:
        return self.body or self.query

    @property
    def parameters(self) -> dict[str, str]:
        return dict(parse_qsl(self.payload, keep_blank_values=True))


Behavior = Callable[[SeenRequest, socket.socket], bool]


class FaultServer:
    """Counts whole requests (`requests`) and connections (`connections`), so that a hidden repeat shows."""

    def __init__(self, *, certificate: tuple[Path, Path] | None = None, handshake: Behavior | None = None) -> None:
        self.requests: list[SeenRequest] = []
        self.connections = 0
        self.script: deque[Behavior] = deque()
        self.default: Behavior = answer(200, "{}")
        self.stopping = threading.Event()
        self._handshake = handshake
        self._context: ssl.SSLContext | None = None
        if certificate is not None:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(*certificate)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    @property
    def url(self) -> str:
        return f"{'http' if self._context is None and self._handshake is None else 'https'}://127.0.0.1:{self.port}"

    def stop(self) -> None:
        self.stopping.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(timeout=10)

    def _start(self, run: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=run, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self.stopping.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self.connections += 1
                number = self.connections
                self._open.add(connection)
            self._start(self._serve, connection, number)

    def _serve(self, connection: socket.socket, number: int) -> None:
        plain = connection
        try:
            if self._handshake is not None:
                self._handshake(SeenRequest("", "", "", "", {}, number), connection)
                return
            if self._context is not None:
                connection = self._context.wrap_socket(connection, server_side=True)
                with self._lock:
                    self._open.add(connection)
            while (request := _read_request(connection, number)) is not None:
                with self._lock:
                    self.requests.append(request)
                    behavior = self.script.popleft() if self.script else self.default
                if not behavior(request, connection):
                    return
        except (OSError, ValueError):
            return
        finally:
            with self._lock:
                self._open -= {plain, connection}
            connection.close()


@contextlib.contextmanager
def fault_server(
    *, certificate: tuple[Path, Path] | None = None, handshake: Behavior | None = None
) -> Iterator[FaultServer]:
    server = FaultServer(certificate=certificate, handshake=handshake)
    try:
        yield server
    finally:
        server.stop()


def closed_port() -> int:
    """Return a port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


# Behaviors


def answer(status: int, body: object, headers: dict[str, str] | None = None, *, keep: bool = True) -> Behavior:
    def behave(_: SeenRequest, connection: socket.socket) -> bool:
        text = body if isinstance(body, str) else json.dumps(body)
        connection.sendall(_response(status, text.encode(), {"Content-Type": "application/json", **(headers or {})}))
        return keep

    return behave


def echo_order(*, headers: dict[str, str] | None = None, **changes: object) -> Behavior:
    """Answer as an exchange that took the order; `changes` replace or (None) remove fields."""

    def behave(request: SeenRequest, connection: socket.socket) -> bool:
        asked = request.parameters
        if request.path.endswith("/algoOrder"):
            told: dict[str, object] = {
                "algoId": 77,
                "clientAlgoId": asked.get("clientAlgoId", ""),
                "orderType": asked.get("type"),
                "algoStatus": "NEW",
                "quantity": asked.get("quantity"),
                "createTime": 5,
            }
        else:
            told = {
                "orderId": 42,
                "clientOrderId": asked.get("newClientOrderId", ""),
                "type": asked.get("type"),
                "status": "FILLED",
                "origQty": asked.get("quantity"),
                "executedQty": asked.get("quantity"),
                "avgPrice": "23140.50",
                "price": "0",
            }
        told |= {"symbol": asked.get("symbol"), "side": asked.get("side"), "updateTime": 6, **changes}
        body = {name: value for name, value in told.items() if value is not None}
        return answer(200, body, headers)(request, connection)

    return behave


def close_before_reply(_: SeenRequest, connection: socket.socket) -> bool:
    return False


def reset_before_reply(_: SeenRequest, connection: socket.socket) -> bool:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return False


def silence(seconds: float) -> Behavior:
    def behave(_: SeenRequest, connection: socket.socket) -> bool:
        _wait_or_gone(connection, seconds)
        return False

    return behave


def raw(data: bytes) -> Behavior:
    def behave(_: SeenRequest, connection: socket.socket) -> bool:
        connection.sendall(data)
        return False

    return behave


def truncated(body: object) -> Behavior:
    whole = _response(200, json.dumps(body).encode(), {})
    return raw(whole[:-5])


def truncated_chunks(body: object) -> Behavior:
    text = json.dumps(body).encode()
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return raw(head + f"{len(text):x}\r\n".encode() + text[:-3])


def bad_gzip(_: SeenRequest, connection: socket.socket) -> bool:
    body = gzip.compress(b'{"orderId": 42}')[:-8] + b"garbage!"
    connection.sendall(_response(200, b"\x00" + body[1:], {"Content-Encoding": "gzip"}))
    return True


def drip(data: bytes, every_s: float) -> Behavior:
    def behave(_: SeenRequest, connection: socket.socket) -> bool:
        for byte in data:
            connection.sendall(bytes([byte]))
            if _wait_or_gone(connection, every_s):
                break
        return False

    return behave


def drip_headers(every_s: float) -> Behavior:
    return drip(b"HTTP/1.1 200 OK\r\nX-Padding: " + b"x" * 2000, every_s)


def drip_body(every_s: float) -> Behavior:
    return drip_after(_response(200, b'{"orderId": 42' + b" " * 2000 + b"}", {}), 60, every_s)


def drip_after(data: bytes, at_once: int, every_s: float) -> Behavior:
    def behave(request: SeenRequest, connection: socket.socket) -> bool:
        connection.sendall(data[:at_once])
        return drip(data[at_once:], every_s)(request, connection)

    return behave


def then_close_after(behavior: Behavior, seconds: float) -> Behavior:
    """Answer well, and close the kept connection `seconds` later."""

    def behave(request: SeenRequest, connection: socket.socket) -> bool:
        behavior(request, connection)
        _wait_or_gone(connection, seconds)
        return False

    return behave


def _wait_or_gone(connection: socket.socket, seconds: float) -> bool:
    """Wait; return true as soon as the other side has hung up (so that a stopped test frees its thread)."""
    connection.settimeout(seconds)
    try:
        return connection.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True
    finally:
        with contextlib.suppress(OSError):
            connection.settimeout(None)


def _response(status: int, body: bytes, headers: dict[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} Told", f"Content-Length: {len(body)}", *(f"{k}: {v}" for k, v in headers.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def _read_request(connection: socket.socket, number: int) -> SeenRequest | None:
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        if not more:
            return None
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ", 2)
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    length = int(headers.get("content-length", "0"))
    while len(body) < length:
        more = connection.recv(65536)
        if not more:
            return None
        body += more
    path, _, query = target.partition("?")
    return SeenRequest(method, path, query, body.decode(), headers, number)


def wait_until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Poll until `condition` holds; fail after `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("the condition did not come true in time")
        time.sleep(0.005)
