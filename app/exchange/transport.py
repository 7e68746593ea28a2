"""One HTTP request, sent once, over within its deadline, told by what certainly happened to its bytes.

No layer may repeat a request: urllib3's retries are off and redirects are not followed. There is no session on top of
it, hence no cookies and no proxies or passwords from the environment. A kept-alive connection that idled for more than
a few seconds is replaced *before* sending, so that a server which closes idle connections costs no doubt.

Socket timeouts bound one read each; a server that drips a byte a second would hold a request for ever. So the
sockets themselves know the deadline of the request under way and give every read only what is left of it.
"""

import http.client
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import urllib3
import urllib3.exceptions
from requests.utils import DEFAULT_CA_BUNDLE_PATH
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
_CONNECTIONS_KEPT: Final = 8
_FORM: Final = {"Content-Type": "application/x-www-form-urlencoded"}
_READING: Final = {"Accept-Encoding": "gzip"}
_LIBRARY_FAULTS: Final = (
    urllib3.exceptions.HTTPError,
    http.client.HTTPException,
    OSError,
    EOFError,
    ValueError,
    # What a library raises when an answer surprises it. After sending, its bug must not hide that bytes have left.
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RawAnswer:
    """An HTTP answer that arrived whole. Header names are lower case; `body` is unpacked, not decoded."""

    http_status: int
    headers: Mapping[str, str]
    body: bytes
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

    def __init__(self, host: str, port: int | None = None, *, wire: Wire, authorities: str, **kwargs: Any) -> None:
        super().__init__(host, port, **kwargs)
        context = create_urllib3_context(cert_reqs=ssl.CERT_REQUIRED)
        context.load_verify_locations(cafile=authorities)
        context.sslsocket_class = _DeadlineTlsSocket
        self.conn_kw.update(wire=wire, ssl_context=context)


class HttpTransport:
    """Sends requests, each once. Threads may share it; another process may not (see `ExchangeChannel`)."""

    def __init__(
        self, *, clock: Clock, api_key: str, connect_timeout_s: float, proxy_url: str | None, ca_file: str | None
    ) -> None:
        self._clock = clock
        self._wire = Wire(clock)
        self._connect_timeout_s = connect_timeout_s
        self._headers = {"User-Agent": "fillonce", "Accept": "application/json"}
        if api_key:
            self._headers["X-MBX-APIKEY"] = api_key
        self._manager: urllib3.PoolManager = (
            urllib3.PoolManager(maxsize=_CONNECTIONS_KEPT)
            if proxy_url is None
            else urllib3.ProxyManager(proxy_url, maxsize=_CONNECTIONS_KEPT)
        )
        pools: dict[str, Any] = {
            "http": partial(_PlainPool, wire=self._wire),
            "https": partial(_TlsPool, wire=self._wire, authorities=ca_file or DEFAULT_CA_BUNDLE_PATH),
        }
        self._manager.pool_classes_by_scheme = pools

    def send(self, request: HttpRequest, *, deadline_s: float, read_timeout_s: float) -> RawAnswer:
        """Send `request` once and return the answer, whatever its status.

        Args:
            request: What to send.
            deadline_s: Seconds until it is over, connecting and reading the whole body included. Only the resolver's
                own timeouts (before anything is sent) are outside of our reach.
            read_timeout_s: Seconds of silence that are taken for an end.

        Raises:
            TransportError: no whole answer.
        """
        is_form = request.method == "POST"
        started = self._clock.monotonic()
        self._wire.begin(deadline_s=deadline_s, read_timeout_s=read_timeout_s)
        try:
            response = self._manager.urlopen(
                request.method,
                request.url if is_form or not request.payload else f"{request.url}?{request.payload}",
                body=request.payload.encode("ascii") if is_form else None,
                headers=self._headers | (_FORM if is_form else _READING),
                timeout=urllib3.Timeout(connect=min(self._connect_timeout_s, deadline_s), read=read_timeout_s),
                retries=False,
                redirect=False,
                preload_content=False,
            )
            body = _read_whole(response)
            return RawAnswer(
                http_status=response.status,
                headers={name.lower(): value for name, value in response.headers.items()},
                body=body,
                sent_monotonic=started,
                received_monotonic=self._clock.monotonic(),
            )
        except _LIBRARY_FAULTS as error:
            # What the whitelist calls "not sent" is believed only if our own socket agrees.
            fault = TransportFault.OTHER if self._wire.sent else fault_of(error)
            raise TransportError(fault, f"{type(error).__name__}: {str(error)[:300]}") from error

    def close(self) -> None:
        """Close every connection of this process."""
        self._manager.clear()


def fault_of(error: BaseException) -> TransportFault:
    """Return what kind of failure `error` proves; `OTHER` unless its types prove that nothing was sent.

    Only the documented wrapping is followed (MaxRetryError.reason, ProxyError.original_error, SSLError's argument),
    never `__context__`: an older, handled error there would prove something about another connection.
    """
    cause = error.reason if isinstance(error, urllib3.exceptions.MaxRetryError) else error
    if isinstance(cause, urllib3.exceptions.NameResolutionError):
        return TransportFault.DNS
    if isinstance(cause, urllib3.exceptions.NewConnectionError):
        return TransportFault.CONNECTION_REFUSED
    if isinstance(cause, urllib3.exceptions.ConnectTimeoutError):
        return TransportFault.CONNECT_TIMEOUT
    if isinstance(cause, urllib3.exceptions.ProxyError):
        is_unreached = isinstance(cause.original_error, urllib3.exceptions.NewConnectionError)
        return TransportFault.PROXY_REFUSED if is_unreached else TransportFault.OTHER
    if isinstance(cause, urllib3.exceptions.SSLError) and cause.args:
        is_distrusted = isinstance(cause.args[0], ssl.SSLCertVerificationError)
        return TransportFault.CERTIFICATE if is_distrusted else TransportFault.OTHER
    return TransportFault.OTHER


def _read_whole(response: urllib3.BaseHTTPResponse) -> bytes:
    chunks: list[bytes] = []
    size = 0
    try:
        for chunk in response.stream(_CHUNK):
            size += len(chunk)
            if size > MAX_BODY_BYTES:
                break
            chunks.append(chunk)
    except BaseException:
        # A connection with an unread rest must never serve another request.
        response.close()
        raise
    if size > MAX_BODY_BYTES:
        response.close()
        raise ValueError(f"the body is larger than {MAX_BODY_BYTES} bytes")
    response.release_conn()
    return b"".join(chunks)
