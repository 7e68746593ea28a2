"""One HTTP request, sent once, over within its deadline, told by what certainly happened to its bytes.

No layer may repeat a request: urllib3's retries are off and redirects are not followed. There is no session on top of
it, hence no cookies and no proxies or passwords from the environment. A kept-alive connection that idled for more than
a few seconds is replaced *before* sending, so that a server which closes idle connections costs no doubt.
"""

import http.client
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import urllib3
import urllib3.exceptions

from app.clock import Clock
from app.exchange.connections import Wire, pool_manager
from app.job_safety.failure_classifier import TransportFault

MAX_BODY_BYTES: Final = 64 * 1024 * 1024
"""Largest body that is read: several times the full exchangeInfo of either venue."""
_CHUNK: Final = 65536
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
        self._manager = pool_manager(self._wire, proxy_url=proxy_url, ca_file=ca_file)

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
