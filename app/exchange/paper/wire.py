"""HTTP/1.1 on an asyncio protocol: small, quick, and able to misbehave on the socket on purpose.

Hand-made because a server behind ASGI cannot reset a connection, drip bytes or answer twice, and because it costs a
tenth of a general one. One request at a time per connection; bodies need a Content-Length.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, cast

from app.clock import Clock

MAX_HEAD_BYTES = 32_768
MAX_BODY_BYTES = 1_048_576
_REASONS = {
    200: "OK",
    307: "Temporary Redirect",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    408: "Request Timeout",
    411: "Length Required",
    413: "Payload Too Large",
    418: "I'm a teapot",
    429: "Too Many Requests",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request as it arrived. Header names are lower case."""

    method: str
    path: str
    query: str
    body: bytes
    headers: dict[str, str]
    peer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What to answer. ``content_type`` is JSON unless said otherwise."""

    body: bytes
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    content_type: str = "application/json;charset=UTF-8"

    def encode(self) -> bytes:
        """The reply as bytes on the wire."""
        head = [
            f"HTTP/1.1 {self.status} {_REASONS.get(self.status, 'Status')}",
            f"Content-Type: {self.content_type}",
            f"Content-Length: {len(self.body)}",
        ]
        head.extend(f"{name}: {value}" for name, value in self.headers)
        return ("\r\n".join(head) + "\r\n\r\n").encode("latin-1") + self.body


class Manner(StrEnum):
    """How a reply is handed over."""

    WHOLE = "whole"
    """As it should be."""
    CLOSE = "close"
    """Not at all: the connection is closed in order."""
    RESET = "reset"
    """Not at all: the connection is reset (RST)."""
    CUT = "cut"
    """Half of it, then the connection is closed."""
    TWICE = "twice"
    """Two copies back to back on the same connection."""
    DRIP = "drip"
    """One byte at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A reply and the manner of its delivery; ``drip_ms`` is the pause between dripped bytes."""

    reply: Reply
    manner: Manner = Manner.WHOLE
    drip_ms: int = 0


Handler = Callable[[Request], Delivery | Coroutine[Any, Any, Delivery]]


class HttpServer:
    """Listens, keeps its connections, closes idle ones and stops in order."""

    def __init__(self, handler: Handler, clock: Clock, *, idle_timeout_s: float) -> None:
        self._handler = handler
        self._clock = clock
        self._idle_timeout_s = idle_timeout_s
        self._connections: set[HttpConnection] = set()
        self._server: asyncio.Server | None = None
        self._sweep: asyncio.Task[None] | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port.

        Raises:
            OSError: The address is taken.
        """
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._connect, host, port, backlog=1024)
        self._sweep = loop.create_task(self._close_idle())
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self, grace_s: float = 2.0) -> None:
        """Accept nothing more, let running requests end for ``grace_s``, then close all."""
        if self._server is None or self._sweep is None:
            return
        self._server.close()
        self._sweep.cancel()
        working = [one.work for one in self._connections if one.work is not None]
        if working:
            await asyncio.wait(working, timeout=grace_s)
        for connection in list(self._connections):
            connection.close()

    def _connect(self) -> HttpConnection:
        return HttpConnection(self._handler, self._clock, self._connections)

    async def _close_idle(self) -> None:
        while True:
            await asyncio.sleep(min(1.0, self._idle_timeout_s / 2))
            oldest = self._clock.monotonic() - self._idle_timeout_s
            for connection in list(self._connections):
                if not connection.is_busy and connection.last_used < oldest:
                    connection.close()


class HttpConnection(asyncio.Protocol):
    """One client connection."""

    def __init__(self, handler: Handler, clock: Clock, peers: set[HttpConnection]) -> None:
        self._handler = handler
        self._clock = clock
        self._peers = peers
        self._buffer = b""
        self._transport: asyncio.Transport | None = None
        self._peer = ""
        self.work: asyncio.Task[None] | None = None
        self._keep_alive = True
        self.last_used = clock.monotonic()

    @property
    def is_busy(self) -> bool:
        """Whether a request is being worked on."""
        return self.work is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport; small replies must not wait for Nagle."""
        self._transport = cast("asyncio.Transport", transport)
        self._peer = str((transport.get_extra_info("peername") or ("",))[0])
        raw = transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._peers.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it. A request that is being executed goes on: the client cannot take it back."""
        del exc
        self._transport = None
        self._peers.discard(self)

    def close(self) -> None:
        """Close after what was written is out."""
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        """Collect bytes and serve every whole request among them."""
        self.last_used = self._clock.monotonic()
        self._buffer = self._buffer + data if self._buffer else data
        self._serve_buffered()

    def _serve_buffered(self) -> None:
        while self.work is None and self._transport is not None and self._buffer:
            try:
                request = self._take_request()
            except _BadRequestError as refusal:
                self._transport.write(
                    Reply(status=refusal.status, body=b"", headers=(("Connection", "close"),)).encode()
                )
                self._transport.close()
                return
            if request is None:
                return
            outcome = self._handler(request)
            if isinstance(outcome, Delivery) and outcome.manner is not Manner.DRIP:
                self._deliver(outcome)
            else:
                self.work = asyncio.get_running_loop().create_task(self._finish(outcome))

    def _take_request(self) -> Request | None:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > MAX_HEAD_BYTES:
                raise _BadRequestError(413)
            return None
        lines = self._buffer[:end].decode("latin-1").split("\r\n")
        headers: dict[str, str] = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        parts = lines[0].split(" ")
        length = headers.get("content-length", "0")
        if len(parts) != 3 or not length.isdigit():
            raise _BadRequestError(400)
        if "transfer-encoding" in headers:
            raise _BadRequestError(411)
        total = end + 4 + int(length)
        if int(length) > MAX_BODY_BYTES:
            raise _BadRequestError(413)
        if len(self._buffer) < total:
            return None
        body = self._buffer[end + 4 : total]
        self._buffer = self._buffer[total:]
        connection = headers.get("connection", "").lower()
        self._keep_alive = connection != "close" and not (parts[2] == "HTTP/1.0" and connection != "keep-alive")
        path, _, query = parts[1].partition("?")
        return Request(method=parts[0], path=path, query=query, body=body, headers=headers, peer=self._peer)

    async def _finish(self, outcome: Delivery | Coroutine[Any, Any, Delivery]) -> None:
        try:
            delivery = outcome if isinstance(outcome, Delivery) else await outcome
            if delivery.manner is Manner.DRIP:
                await self._drip(delivery)
            else:
                self._deliver(delivery)
        except BaseException:
            self.close()
            raise
        self.last_used = self._clock.monotonic()
        self.work = None
        self._serve_buffered()

    def _deliver(self, delivery: Delivery) -> None:
        transport = self._transport
        if transport is None:
            return
        match delivery.manner:
            case Manner.RESET:
                raw = transport.get_extra_info("socket")
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                transport.abort()
                return
            case Manner.CLOSE:
                transport.close()
                return
            case Manner.CUT:
                data = delivery.reply.encode()
                transport.write(data[: len(data) - max(1, len(delivery.reply.body) // 2)])
                transport.close()
                return
            case Manner.TWICE:
                transport.write(delivery.reply.encode() * 2)
            case _:
                transport.write(delivery.reply.encode())
        if not self._keep_alive:
            transport.close()

    async def _drip(self, delivery: Delivery) -> None:
        for byte in delivery.reply.encode():
            if self._transport is None:
                return
            self._transport.write(bytes((byte,)))
            await asyncio.sleep(delivery.drip_ms / 1000)
        if not self._keep_alive:
            self.close()


class _BadRequestError(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status
