"""A receiver of webhooks that answers, refuses or hangs as it is told, and keeps what it got."""

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


class WebhookReceiver:
    """Listens on a loopback port. `status` is what it answers; `hangs` makes it answer nothing until `go_on`."""

    def __init__(self) -> None:
        self.status = 200
        self.got: list[tuple[str, dict[str, Any]]] = []
        self._free = threading.Event()
        self._free.set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                receiver.got.append((self.headers["Idempotency-Key"], body))
                receiver._free.wait(60)
                self.send_response(receiver.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/hook?token=hush"

    def hang(self) -> None:
        self._free.clear()

    def go_on(self) -> None:
        self._free.set()

    def ids(self) -> list[str]:
        return [one for one, _ in self.got]

    def until(self, look: Callable[[], bool], what: str, timeout_s: int = 60) -> None:
        deadline = time.monotonic() + timeout_s
        while not look():
            assert time.monotonic() < deadline, f"waited {timeout_s} s for {what}; got {self.got}"
            time.sleep(0.02)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._free.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)
