"""Makes connections that obey a deadline and know whether a byte was sent.

urllib3 makes them: names, addresses, TLS, proxies, and the exceptions whose types prove that nothing was sent. What
goes over them is ours: the bytes of one request out, those of its answer in.
"""

import select
import socket
import ssl
from collections.abc import Callable
from functools import partial
from typing import Any, Final, NamedTuple, cast

import urllib3
import urllib3.exceptions
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.util.ssl_ import create_urllib3_context

from app.exchange.deadline import DeadlineSocket, Wire

_CHUNK: Final = 65536


class Origin(NamedTuple):
    """Whom a connection leads to."""

    scheme: str
    host: str
    port: int


class Guarded(HTTPConnection):
    """A connection that obeys the deadline and notes the first byte sent.

    Attributes:
        idle_since: When it was put by, on the monotonic clock.
    """

    def __init__(self, *args: Any, wire: Wire, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._wire = wire
        self.idle_since = 0.0
        self._watch = select.poll()
        self._receive: Callable[[], bytes] = bytes

    def connect(self) -> None:
        """Connect, by TLS and through a proxy's tunnel if need be."""
        super().connect()
        self._watch.register(self.sock, select.POLLIN)
        self._receive = partial(self.sock.recv, _CHUNK)
        if self._wire.remaining_s() <= 0:
            self.close()
            raise urllib3.exceptions.ConnectTimeoutError(self, "the deadline passed while connecting")

    def send(self, data: Any) -> None:
        """Send what the library has to say: it asks a proxy for a tunnel."""
        self._wire.sent = True
        super().send(data)

    def transmit(self, request: bytes) -> bool:
        """Hand the whole of `request` to the socket, once. Return false if the other side has stopped listening.

        It may have answered before (that it is too busy, say): what it said is still to be read.

        Raises:
            ConnectTimeoutError: the deadline had passed; nothing was sent.
        """
        remaining = self._wire.remaining_s()
        if remaining <= 0:
            raise urllib3.exceptions.ConnectTimeoutError(self, "the deadline passed before sending")
        self.sock.settimeout(min(remaining, self._wire.read_timeout_s))
        self._wire.sent = True
        try:
            self.sock.sendall(request)
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def receive(self) -> bytes:
        """Return the next bytes that come before the deadline; none at the end of the connection."""
        return self._wire.read(self.sock, self._receive)

    def has_something_to_read(self) -> bool:
        """Return whether bytes have come, or the end of the connection."""
        return bool(self._watch.poll(0)) or (isinstance(self.sock, ssl.SSLSocket) and self.sock.pending() > 0)

    def _new_conn(self) -> socket.socket:
        plain = super()._new_conn()
        timeout = plain.gettimeout()
        sock = DeadlineSocket(plain.family, plain.type, plain.proto, fileno=plain.detach())
        sock.settimeout(timeout)
        sock.wire = self._wire
        return sock


class _GuardedTls(Guarded, HTTPSConnection):
    """The same over TLS."""


class _Pool(HTTPConnectionPool):
    """Opens connections to one origin, and keeps none."""

    ConnectionCls = Guarded

    def __init__(self, host: str, port: int | None = None, *, wire: Wire, **kwargs: Any) -> None:
        super().__init__(host, port, **kwargs)
        self.conn_kw["wire"] = wire

    def opened(self, *, connect_timeout_s: float, by_tunnel: bool) -> Guarded:
        """Return a new connection, connected. Raises as `Connector.open`."""
        connection = cast("Guarded", self._new_conn())
        connection.timeout = connect_timeout_s
        try:
            if by_tunnel:
                self._prepare_proxy(connection)
            else:
                connection.connect()
        except (OSError, urllib3.exceptions.HTTPError) as error:
            cause = urllib3.exceptions.SSLError(error) if isinstance(error, ssl.SSLError) else error
            if connection.proxy is not None and not connection.has_connected_to_proxy:
                cause = urllib3.exceptions.ProxyError("no connection by way of the proxy", cause)
            connection.close()
            if cause is error:
                raise
            raise cause from error
        except BaseException:  # a signal's handler may raise anything: no socket is left open
            connection.close()
            raise
        return connection


class _TlsPool(_Pool, HTTPSConnectionPool):
    ConnectionCls = _GuardedTls

    def __init__(self, host: str, port: int | None = None, *, ca_file: str | None, **kwargs: Any) -> None:
        super().__init__(host, port, **kwargs)
        # Imported late: plain HTTP to a local exchange needs no authorities, and a worker starts faster without.
        from requests.utils import DEFAULT_CA_BUNDLE_PATH

        context = create_urllib3_context(cert_reqs=ssl.CERT_REQUIRED)
        context.load_verify_locations(cafile=ca_file or DEFAULT_CA_BUNDLE_PATH)
        self.conn_kw["ssl_context"] = context


class Connector:
    """Opens connections. It reads no proxy and no authorities from the environment."""

    def __init__(self, wire: Wire, *, proxy_url: str | None, ca_file: str | None) -> None:
        self._has_proxy = proxy_url is not None
        self._manager: urllib3.PoolManager = (
            urllib3.PoolManager() if proxy_url is None else urllib3.ProxyManager(proxy_url)
        )
        pools: dict[str, Any] = {
            "http": partial(_Pool, wire=wire),
            "https": partial(_TlsPool, wire=wire, ca_file=ca_file),
        }
        self._manager.pool_classes_by_scheme = pools

    def open(self, origin: Origin, *, connect_timeout_s: float) -> Guarded:
        """Return a new connection to `origin`, connected.

        Raises:
            HTTPError: its type says what kept it from being made.
            OSError: the other side said something else than it should, or nothing.
        """
        pool = cast("_Pool", self._manager.connection_from_host(origin.host, origin.port, origin.scheme))
        by_tunnel = self._has_proxy and origin.scheme == "https"
        return pool.opened(connect_timeout_s=connect_timeout_s, by_tunnel=by_tunnel)
