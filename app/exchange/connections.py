"""Connections that obey a deadline, know whether a byte was sent, and are not used again after idling too long.

A socket's timeout bounds one read; a server that drips a byte a second would hold a request for ever. So the
sockets themselves know the deadline of the request under way, and give every read only what is left of it. That needs
no second thread, which would not survive a fork.
"""

import socket
import ssl
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import urllib3
import urllib3.exceptions
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.util.ssl_ import create_urllib3_context

from app.clock import Clock

IDLE_CONNECTION_LIMIT_S: Final = 4.0
"""A connection idle for longer is replaced before use; common servers close theirs after 5 s or more."""
_LATE_READS: Final = 64
"""Reads of already arrived bytes that are still allowed after the deadline: a process that was stopped must not turn an
answer that is waiting in its socket into a doubt."""
_CONNECTIONS_KEPT: Final = 8


class Wire(threading.local):
    """The request under way in this thread: its deadline, and whether its first byte was handed to a socket."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.deadline = 0.0
        self.read_timeout_s = 0.0
        self.late_reads = 0
        self.sent = False

    def begin(self, *, deadline_s: float, read_timeout_s: float) -> None:
        """Start the clock of a new request."""
        self.deadline = self.clock.monotonic() + deadline_s
        self.read_timeout_s = read_timeout_s
        self.late_reads = 0
        self.sent = False

    def remaining_s(self) -> float:
        """Return the seconds left until the deadline; negative once it has passed."""
        return self.deadline - self.clock.monotonic()

    def read(self, sock: socket.socket, read: Callable[[], int]) -> int:
        """Run one `read` of `sock` within what is left; past the deadline take only what has already arrived."""
        remaining = self.remaining_s()
        if remaining > 0:
            sock.settimeout(min(remaining, self.read_timeout_s))
            return read()
        self.late_reads += 1
        if self.late_reads > _LATE_READS:
            raise TimeoutError("deadline passed, and bytes keep trickling in")
        sock.settimeout(0)
        try:
            return read()
        except (BlockingIOError, ssl.SSLWantReadError) as error:
            raise TimeoutError("deadline passed without a whole answer") from error


class _DeadlineSocket(socket.socket):
    wire: Wire | None = None

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        if self.wire is None:
            return super().recv_into(buffer, nbytes, flags)
        return self.wire.read(self, lambda: super(_DeadlineSocket, self).recv_into(buffer, nbytes, flags))


class _DeadlineTlsSocket(ssl.SSLSocket):
    wire: Wire | None = None

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:
        if self.wire is None:
            return super().recv_into(buffer, nbytes, flags)
        return self.wire.read(self, lambda: super(_DeadlineTlsSocket, self).recv_into(buffer, nbytes, flags))


class _Guarded(HTTPConnection):
    """A connection whose socket obeys the deadline, which notes the first byte sent and ages while idle."""

    def __init__(self, *args: Any, wire: Wire, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._wire = wire
        self._opened_or_used = 0.0

    def _new_conn(self) -> socket.socket:
        plain = super()._new_conn()
        timeout = plain.gettimeout()
        sock = _DeadlineSocket(plain.family, plain.type, plain.proto, fileno=plain.detach())
        sock.settimeout(timeout)
        sock.wire = self._wire
        return sock

    def connect(self) -> None:
        super().connect()
        if isinstance(self.sock, _DeadlineTlsSocket):
            self.sock.wire = self._wire
        if self._wire.remaining_s() <= 0:
            self.close()
            raise urllib3.exceptions.ConnectTimeoutError(self, "the deadline passed while connecting")

    def send(self, data: Any) -> None:
        if self.sock is None:
            self.connect()
        self._wire.sent = True
        super().send(data)

    def getresponse(self) -> urllib3.HTTPResponse:  # type: ignore[override]  # as in urllib3 itself
        response = super().getresponse()
        self._opened_or_used = self._wire.clock.monotonic()
        return response

    @property
    def is_connected(self) -> bool:
        idle_s = self._wire.clock.monotonic() - self._opened_or_used
        return idle_s <= IDLE_CONNECTION_LIMIT_S and super().is_connected


class _GuardedTls(_Guarded, HTTPSConnection):
    """The same over TLS."""


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _Guarded

    def __init__(self, host: str, port: int | None = None, *, wire: Wire, **kwargs: Any) -> None:
        super().__init__(host, port, **kwargs)
        self.conn_kw["wire"] = wire


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _GuardedTls

    def __init__(self, host: str, port: int | None = None, *, wire: Wire, ca_file: str | None, **kwargs: Any) -> None:
        super().__init__(host, port, **kwargs)
        # Imported late: plain HTTP to a local exchange needs no authorities, and a worker starts faster without.
        from requests.utils import DEFAULT_CA_BUNDLE_PATH

        context = create_urllib3_context(cert_reqs=ssl.CERT_REQUIRED)
        context.load_verify_locations(cafile=ca_file or DEFAULT_CA_BUNDLE_PATH)
        context.sslsocket_class = _DeadlineTlsSocket
        self.conn_kw.update(wire=wire, ssl_context=context)


def pool_manager(wire: Wire, *, proxy_url: str | None, ca_file: str | None) -> urllib3.PoolManager:
    """Return a manager whose connections obey `wire`. It reads no proxy and no authorities from the environment."""
    manager: urllib3.PoolManager = (
        urllib3.PoolManager(maxsize=_CONNECTIONS_KEPT)
        if proxy_url is None
        else urllib3.ProxyManager(proxy_url, maxsize=_CONNECTIONS_KEPT)
    )
    pools: dict[str, Any] = {
        "http": partial(_PlainPool, wire=wire),
        "https": partial(_TlsPool, wire=wire, ca_file=ca_file),
    }
    manager.pool_classes_by_scheme = pools
    return manager
