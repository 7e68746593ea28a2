"""The exporter's HTTP side: pages that only read, and the kill switch for who shows its token. Small and bounded.

It may run beside duties that matter more: a few requests at a time, each with a deadline, and one reading serves all
who ask within a second. Who asks for a page takes no room from who asks for the kill switch, nor the other way round.
"""

import errno
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, Final
from urllib.parse import parse_qs, urlsplit

from app.clock import Clock
from app.monitor import exposition, kill_door
from app.monitor.answer import TEXT, Answer, as_json
from app.monitor.answer import as_text as in_words
from app.monitor.exposition import Collector
from app.monitor.kill_door import KillDoor
from app.monitor.kill_request import MAX_BODY_BYTES
from app.monitor.readiness import reasons
from app.monitor.readings import Reading
from app.monitor.status import as_text, status

MAX_AT_ONCE: Final = 8
"""Pages that are being answered."""
KILL_AT_ONCE: Final = 8
"""Requests for the kill switch that are being answered, besides."""
DEADLINE_S: Final = 10.0
FRESH_S: Final = 1.0
"""For how long an answer is given again to the next who asks."""
DRAIN_BYTES: Final = 65_536
"""How much of a body that is too long is read all the same: closed before, a client may not see its answer."""

PAGES: Final = ("/metrics", "/status", "/readyz", "/healthz", "/")


class PortTakenError(Exception):
    """Somebody else listens there already."""


@dataclass(slots=True)
class Pages:
    """The pages, and how long each is good for."""

    read: Callable[[], Reading]
    clock: Clock
    started_ms: int
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _kept: dict[str, tuple[float, Any]] = field(default_factory=dict)

    def answer(self, path: str, *, wants_text: bool) -> Answer:
        """Return the answer to a request."""
        match path:
            case "/metrics":
                return Answer(code=200, kind=exposition.CONTENT_TYPE, body=self._fresh("metrics", self._metrics))
            case "/healthz":
                up_s = round((self.clock.now_ms() - self.started_ms) / 1000, 1)
                return _told(200, {"status": "ok", "up_s": up_s}, f"ok, up for {up_s} s\n", wants_text=wants_text)
            case "/readyz":
                why_not = reasons(self._fresh("reading", self.read))
                text = "ready\n" if not why_not else "".join(f"{line}\n" for line in ("not ready", *why_not))
                told = {"ready": not why_not, "reasons": why_not}
                return _told(503 if why_not else 200, told, text, wants_text=wants_text)
            case "/status":
                told = status(self._fresh("reading", self.read))
                return _told(200, told, as_text(told), wants_text=wants_text)
            case "/":
                text = "fillonce\n\n/metrics  for Prometheus\n/status   how it stands (?format=json)\n"
                return in_words(200, f"{text}/readyz   may it trade?\n/healthz  alive?\n")
            case _:
                return in_words(404, "not found: /metrics, /status, /readyz, /healthz or /kill-switch\n")

    def _metrics(self) -> bytes:
        collector = Collector(self.read, started_ms=self.started_ms, monotonic=self.clock.monotonic)
        return exposition.render(collector)

    def _fresh(self, name: str, make: Callable[[], Any]) -> Any:
        """Return what was made within the last second, or make it: one at a time, whoever else asks waits for it."""
        with self._lock:
            made_s, kept = self._kept.get(name, (0.0, None))
            if kept is not None and self.clock.monotonic() - made_s < FRESH_S:
                return kept
            made = make()
            self._kept[name] = (self.clock.monotonic(), made)
            return made


def _told(code: int, told: Mapping[str, Any], text: str, *, wants_text: bool) -> Answer:
    return in_words(code, text) if wants_text else as_json(code, told)


def make_server(pages: Pages, door: KillDoor, host: str, port: int) -> ThreadingHTTPServer:
    """Return a server that listens; the caller serves.

    Raises:
        PortTakenError: the port is taken.
        OSError: the address cannot be had for another reason.
    """

    class Handler(_Handler):
        answers = pages
        kill_switch = door

    try:
        return _Server((host, port), Handler)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortTakenError(
                f"port {port} on {host} is taken by another program: set METRICS_PORT (metrics.port) to a free one, "
                "or to 0 for no exporter"
            ) from error
        raise


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type["_Handler"]) -> None:
        super().__init__(address, handler)
        self._free = threading.BoundedSemaphore(MAX_AT_ONCE + KILL_AT_ONCE)
        self.pages_free = threading.BoundedSemaphore(MAX_AT_ONCE)
        self.kills_free = threading.BoundedSemaphore(KILL_AT_ONCE)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread of its own, unless too many are being answered: then hang up."""
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, then make room for the next."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client that has gone away is no affair of ours."""


class _Handler(BaseHTTPRequestHandler):
    answers: ClassVar[Pages]
    kill_switch: ClassVar[KillDoor]
    server: _Server
    timeout = DEADLINE_S
    server_version = "fillonce"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer a GET."""
        url = urlsplit(self.path)
        if url.path == kill_door.PATH:
            self._reply(self.server.kills_free, lambda: self._kill_switch("GET", b""))
        else:
            wants_text = self._wants_text(url.query)
            self._reply(self.server.pages_free, lambda: self.answers.answer(url.path, wants_text=wants_text))

    def do_HEAD(self) -> None:
        """Answer a HEAD."""
        self.do_GET()

    def do_POST(self) -> None:
        """Answer a POST."""
        path = urlsplit(self.path).path
        if path == kill_door.PATH:
            self._reply(self.server.kills_free, lambda: self._kill_switch("POST", self._body()))
        else:
            self._body()
            text = f"only {kill_door.PATH} takes a POST\n".encode()
            headers = {"Allow": "GET, HEAD"} if path in PAGES else {}
            self._send(Answer(code=405 if headers else 404, kind=TEXT, body=text, headers=headers))

    def _reply(self, room: threading.BoundedSemaphore, make: Callable[[], Answer]) -> None:
        """Send what `make` answers, unless too many of its kind are being answered: then hang up."""
        if not room.acquire(blocking=False):
            self.close_connection = True
            return
        try:
            answer = make()
        except Exception as error:  # noqa: BLE001 - a page that breaks must be told of, and the next request be answered
            answer = in_words(500, f"{type(error).__name__}: {error}\n")
        finally:
            room.release()
        self._send(answer)

    def _kill_switch(self, method: str, body: bytes | None) -> Answer:
        shown = self.headers.get("Authorization", "")
        return self.kill_switch.answer(method, authorization=shown, body=body, address=self.client_address[0])

    def _body(self) -> bytes | None:
        """Return the body; None if it is too long, its length is not told, or it does not arrive in time."""
        told = self.headers.get("Content-Length", "")
        if not (told.isascii() and told.isdigit() and len(told) <= 18):
            return None
        length, read, until_s = int(told), bytearray(), time.monotonic() + DEADLINE_S
        while len(read) < min(length, DRAIN_BYTES):
            chunk = self.rfile.read1(min(length, DRAIN_BYTES) - len(read))
            if not chunk or time.monotonic() > until_s:
                return None
            read += chunk
        return bytes(read) if length <= MAX_BODY_BYTES else None

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.code)
        self.send_header("Content-Type", answer.kind)
        self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("Cache-Control", "no-store")
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def _wants_text(self, query: str) -> bool:
        """A browser is read by a person; programs and curl get JSON. `?format=text` and `?format=json` decide."""
        asked = parse_qs(query).get("format", [""])[0]
        return asked == "text" or (asked != "json" and "text/" in self.headers.get("Accept", ""))

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - the base's name
        """Say nothing: a scrape every few seconds is no news."""
