"""One HTTP request, sent once, over within its deadline, told by what certainly happened to its bytes.

No layer may repeat a request: urllib3 retries are off, redirects are not followed, cookies and proxies of the environment
are ignored, and a kept-alive connection that idled for more than a few seconds is replaced *before* sending, so that a server
which closes idle connections never turns an order into a doubt.

Socket timeouts bound one read each; a server that drips a byte a second would hold a request for ever. So the
sockets themselves know the deadline of the request under way and give every read only what is left of it.
"""

import http.client
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Final

import requests
import requests.adapters
import urllib3
import urllib3.exceptions
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.util.ssl_ import create_urllib3_context

from app.clock import Clock
from app.job_safety.failure_classifier import TransportFault

IDLE_CONNECTION_LIMIT_S: Final = 4.0
"""A connection idle for longer is replaced before use; common servers close theirs after 5 s or more."""
MAX_BODY_BYTES: Final = 64 * 1024 * 1024
"""Largest body that is read: several times the full exchangeInfo of either venue."""
_LATE_READS: Final = 64
"""Reads of already arrived bytes that are still allowed after the deadline: a process that was stopped must not turn an
answer that is waiting in its socket into a doubt."""
_CHUNK: Final = 65536


@dataclass(frozen=True, slots=True, kw_only=True)
class RawAnswer:
    """An HTTP answer that arrived whole. Header names are lower case; `body` is decoded text."""

    http_status: int
    headers: Mapping[str, str]
    body: str
    sent_monotonic: float
    received_monotonic: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRequest:
    """What to send: `payload` is the whole query (GET, DELETE) or form body (POST), already signed."""

    method: str
    url: str
    payload: str = field(repr=False)


class TransportError(Exception):
    """No whole answer arrived. `fault` says what is certain about it."""

    def __init__(self, fault: TransportFault, detail: str) -> None:
        super().__init__(fault, detail)
        self.fault = fault
        self.detail = detail


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

    def getresponse(self) -> urllib3.HTTPResponse:
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

    def __init__(self, host: str, port: int | None = None, *, wire: Wire, **kwargs: Any) -> None:
        super().__init__(host, port, **kwargs)
        context = create_urllib3_context()
        context.sslsocket_class = _DeadlineTlsSocket
        self.conn_kw.update(wire=wire, ssl_context=context)


class _OnceAdapter(requests.adapters.HTTPAdapter):
    def __init__(self, wire: Wire) -> None:
        self._pools = {"http": partial(_PlainPool, wire=wire), "https": partial(_TlsPool, wire=wire)}
        super().__init__(pool_connections=4, pool_maxsize=8, max_retries=urllib3.Retry(0, read=False))

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **kwargs: Any) -> None:  # noqa: FBT001, FBT002 - the base's signature
        super().init_poolmanager(connections, maxsize, block, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs)
        manager.pool_classes_by_scheme = self._pools
        return manager


class HttpTransport:
    """Sends requests, each once. Threads may share it; another process may not (see `ExchangeChannel`)."""

    def __init__(
        self, *, clock: Clock, api_key: str, connect_timeout_s: float, proxy_url: str | None, ca_file: str | None
    ) -> None:
        self._clock = clock
        self._wire = Wire(clock)
        self._connect_timeout_s = connect_timeout_s
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self._session.headers.update({"User-Agent": "fillonce", "Accept": "application/json"})
        if api_key:
            self._session.headers["X-MBX-APIKEY"] = api_key
        if ca_file is not None:
            self._session.verify = ca_file
        if proxy_url is not None:
            self._session.proxies = {"http": proxy_url, "https": proxy_url}
        adapter = _OnceAdapter(self._wire)
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)

    def send(self, request: HttpRequest, *, deadline_s: float, read_timeout_s: float) -> RawAnswer:
        """Send `request` once and return the answer, whatever its status.

        Args:
            request: What to send.
            deadline_s: Seconds until it is over, connecting and reading the whole body included. Only the resolver's own
                timeouts (before anything is sent) are outside of our reach.
            read_timeout_s: Seconds of silence that are taken for an end.

        Raises:
            TransportError: no whole answer.
        """
        is_form = request.method == "POST"
        url = request.url if is_form or not request.payload else f"{request.url}?{request.payload}"
        started = self._clock.monotonic()
        self._wire.begin(deadline_s=deadline_s, read_timeout_s=read_timeout_s)
        try:
            with self._session.request(
                request.method,
                url,
                data=request.payload.encode("ascii") if is_form else None,
                headers={"Content-Type": "application/x-www-form-urlencoded"} if is_form else None,
                timeout=(min(self._connect_timeout_s, deadline_s), read_timeout_s),
                allow_redirects=False,
                stream=True,
            ) as response:
                body = _read_whole(response)
                return RawAnswer(
                    http_status=response.status_code,
                    headers={name.lower(): value for name, value in response.headers.items()},
                    body=body.decode("utf-8", errors="replace"),
                    sent_monotonic=started,
                    received_monotonic=self._clock.monotonic(),
                )
        except (
            requests.RequestException,
            urllib3.exceptions.HTTPError,
            http.client.HTTPException,
            OSError,
            ValueError,
        ) as error:
            # What the whitelist calls "not sent" is believed only if our own socket agrees.
            fault = TransportFault.OTHER if self._wire.sent else fault_of(error)
            raise TransportError(fault, f"{type(error).__name__}: {_innermost(error)}") from error

    def close(self) -> None:
        """Close every connection of this process."""
        self._session.close()


def fault_of(error: BaseException) -> TransportFault:
    """Return what kind of failure `error` proves; `OTHER` unless its types prove that nothing was sent.

    Only the documented wrapping is followed (requests > MaxRetryError.reason > ProxyError.original_error), never
    `__context__`: an older, handled error there would prove something about another connection.
    """
    for cause in _wrapped(error):
        if isinstance(cause, urllib3.exceptions.NameResolutionError):
            return TransportFault.DNS
        if isinstance(cause, urllib3.exceptions.NewConnectionError):
            return TransportFault.CONNECTION_REFUSED
        if isinstance(cause, urllib3.exceptions.ConnectTimeoutError):
            return TransportFault.CONNECT_TIMEOUT
        if isinstance(cause, urllib3.exceptions.ProxyError):
            is_unreached = isinstance(cause.original_error, urllib3.exceptions.NewConnectionError)
            return TransportFault.PROXY_REFUSED if is_unreached else TransportFault.OTHER
        if isinstance(cause, ssl.SSLCertVerificationError):
            return TransportFault.CERTIFICATE
    return TransportFault.OTHER


def _wrapped(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current: object = error
    while isinstance(current, BaseException) and id(current) not in seen:
        seen.add(id(current))
        yield current
        if isinstance(current, urllib3.exceptions.MaxRetryError):
            current = current.reason
        else:
            current = current.args[0] if current.args else None


def _innermost(error: BaseException) -> str:
    *_, last = _wrapped(error)
    return str(last)[:300]


def _read_whole(response: requests.Response) -> bytes:
    chunks: list[bytes] = []
    size = 0
    for chunk in response.iter_content(_CHUNK):
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise ValueError(f"the body is larger than {MAX_BODY_BYTES} bytes")
        chunks.append(chunk)
    return b"".join(chunks)
