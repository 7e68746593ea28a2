"""One HTTP request, sent once, over within its deadline, told by what certainly happened to its bytes.

No layer repeats a request or follows a redirect: there is none that could. One call hands the bytes to one connection
and reads one answer off it. Nothing comes from the environment: no cookies, proxies or passwords. A kept-alive
connection that idled for more than a few seconds is replaced *before* sending, so that a server which closes idle
connections costs no doubt.
"""

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from http.client import HTTPException
from typing import Final, NamedTuple

import urllib3.exceptions
from urllib3.util import parse_url

from app.clock import Clock
from app.exchange.connecting import Origin
from app.exchange.connections import Connections
from app.exchange.deadline import Wire
from app.exchange.http_answer import MAX_BODY_BYTES, Answer, AnswerError, read_answer
from app.exchange.unpacking import UnpackingError, unpacked
from app.job_safety.failure_classifier import TransportFault

_PORTS: Final = {"http": 80, "https": 443}
_TARGETS_REMEMBERED: Final = 256
_METHODS: Final = frozenset({"GET", "POST", "DELETE"})
_PRINTABLE: Final = re.compile(r"[!-~]*")
_QUERY: Final = re.compile(r"[A-Za-z0-9._~=&%-]*")
_FAULTS: Final = (
    urllib3.exceptions.HTTPError,
    HTTPException,
    AnswerError,
    UnpackingError,
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


class RawAnswer(NamedTuple):
    """An HTTP answer that arrived whole. Header names are lower case; `body` is unpacked, not decoded."""

    http_status: int
    headers: Mapping[str, str]
    body: bytes
    sent_monotonic: float
    received_monotonic: float


class TransportError(Exception):
    """No whole answer arrived. `fault` says what is certain about it."""

    def __init__(self, fault: TransportFault, detail: str) -> None:
        super().__init__(fault, detail)
        self.fault = fault
        self.detail = detail


@dataclass(frozen=True, slots=True, kw_only=True)
class _Target:
    """What a URL means to a connection."""

    origin: Origin
    host: str
    path: str
    """The path, or for a proxy that passes the request on, the whole URL."""


class HttpTransport:
    """Sends requests, each once. Threads may share it; another process may not (see `ExchangeChannel`).

    Raises:
        ValueError: the API key cannot stand in a header.
    """

    def __init__(
        self, *, clock: Clock, api_key: str, connect_timeout_s: float, proxy_url: str | None, ca_file: str | None
    ) -> None:
        if not _PRINTABLE.fullmatch(api_key):
            raise ValueError(
                "api_key: has spaces, line breaks or other characters that no key has; set BINANCE_API_KEY"
            )
        self._clock = clock
        self._wire = Wire(clock)
        self._connect_timeout_s = connect_timeout_s
        self._headers = "User-Agent: fillonce\r\nAccept: application/json\r\n"
        if api_key:
            self._headers += f"X-MBX-APIKEY: {api_key}\r\n"
        self._connections = Connections(self._wire, proxy_url=proxy_url, ca_file=ca_file)
        self._target = lru_cache(_TARGETS_REMEMBERED)(partial(_parsed, has_proxy=proxy_url is not None))

    def send(self, method: str, url: str, payload: str, *, deadline_s: float, read_timeout_s: float) -> RawAnswer:
        """Send a request once and return the answer, whatever its status.

        Args:
            method: GET, POST or DELETE.
            url: Where to, without a query.
            payload: The whole query (GET, DELETE) or form body (POST), already signed.
            deadline_s: Seconds until it is over, connecting and reading the whole body included. Only the resolver's
                own timeouts (before anything is sent) are outside of our reach.
            read_timeout_s: Seconds of silence that are taken for an end.

        Raises:
            TransportError: no whole answer.
            ValueError: the request has characters that would make another request of it; nothing was sent.
        """
        target = self._target(url)
        message = self._message(method, target, payload)
        started = self._clock.monotonic()
        self._wire.begin(started, deadline_s=deadline_s, read_timeout_s=read_timeout_s)
        try:
            answer = self._ask(
                target.origin, message, method, connect_timeout_s=min(self._connect_timeout_s, deadline_s)
            )
            packing = answer.headers.get("content-encoding", "")
            return RawAnswer(
                http_status=answer.status,
                headers=answer.headers,
                body=unpacked(answer.body, encoding=packing, limit=MAX_BODY_BYTES) if packing else answer.body,
                sent_monotonic=started,
                received_monotonic=self._clock.monotonic(),
            )
        except _FAULTS as error:
            # What the whitelist calls "not sent" is believed only if our own socket agrees.
            fault = TransportFault.OTHER if self._wire.sent else fault_of(error)
            raise TransportError(fault, f"{type(error).__name__}: {str(error)[:300]}") from error

    def close(self) -> None:
        """Close every connection of this process."""
        self._connections.close()

    def _ask(self, origin: Origin, message: bytes, method: str, *, connect_timeout_s: float) -> Answer:
        connection = self._connections.take(origin, connect_timeout_s=connect_timeout_s)
        try:
            is_whole = connection.transmit(message)
            answer = read_answer(connection.receive, method=method)
        except BaseException:
            # A connection with an unread rest must never serve another request.
            connection.close()
            raise
        if is_whole and answer.may_another_follow:
            self._connections.keep(origin, connection)
        else:
            connection.close()
        return answer

    def _message(self, method: str, target: _Target, payload: str) -> bytes:
        if method not in _METHODS:
            raise ValueError(f"method: {method[:20]!r} is not one of {', '.join(sorted(_METHODS))}")
        if not _QUERY.fullmatch(payload):
            raise ValueError("payload: has characters that must be encoded")
        if method == "POST":
            return (
                f"POST {target.path} HTTP/1.1\r\nHost: {target.host}\r\n{self._headers}Accept-Encoding: identity\r\n"
                f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(payload)}\r\n\r\n{payload}"
            ).encode("ascii")
        query = f"?{payload}" if payload else ""
        return (
            f"{method} {target.path}{query} HTTP/1.1\r\nHost: {target.host}\r\n{self._headers}"
            "Accept-Encoding: gzip\r\n\r\n"
        ).encode("ascii")


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


def _parsed(url: str, *, has_proxy: bool) -> _Target:
    if not _PRINTABLE.fullmatch(url):
        raise ValueError(f"url: {url[:100]!r} has spaces, line breaks or other characters that must be encoded")
    parsed = parse_url(url)
    if parsed.scheme not in _PORTS or not parsed.host:
        raise ValueError(f"url: {url[:100]!r} must start with https:// (or http://) and a host")
    usual = _PORTS[parsed.scheme]
    port = parsed.port or usual
    host = parsed.host if port == usual else f"{parsed.host}:{port}"
    is_passed_on = has_proxy and parsed.scheme == "http"
    path = f"http://{host}{parsed.request_uri}" if is_passed_on else parsed.request_uri
    return _Target(origin=Origin(parsed.scheme, parsed.host, port), host=host, path=path)
