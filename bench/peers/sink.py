"""The exchange of the peers: takes an order by client id as often as it comes, and counts.

Like a real one it executes first and answers later, so that a client which dies in between has an order and does not
know it. `python -m bench.peers.sink` serves one by itself, to try it by hand.
"""

import json
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from bench.peers.plan import LATENCY_MS

COUNTED = "order-"
"""How the client ids of the plan's orders begin; others only warm up."""

OnTheWire = Callable[[int], None]
"""Kills the worker of this process id."""


@dataclass(slots=True)
class Sink:
    """The orders, by client id, with the times at which each was executed."""

    kill: OnTheWire
    kill_at: frozenset[int] = frozenset()
    executed: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    killed: dict[str, float] = field(default_factory=dict)
    orders: int = 0
    """Different orders executed so far."""
    url: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _server: ThreadingHTTPServer | None = None

    def serve(self) -> None:
        """Serve on a free port of this machine, in a thread."""
        sink = self

        class Handler(_Handler):
            def take(self, order: dict[str, Any]) -> dict[str, Any]:
                return sink.take(str(order["id"]), int(order["pid"]))

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def take(self, client_id: str, pid: int) -> dict[str, Any]:
        """Execute an order; if its number is among those of the plan, kill its sender before it is answered."""
        with self._lock:
            is_new = client_id.startswith(COUNTED) and client_id not in self.executed
            self.executed[client_id].append(time.monotonic())
            self.orders += is_new
            if is_new and self.orders in self.kill_at:
                self.kill(pid)
                self.killed[client_id] = time.monotonic()
        time.sleep(LATENCY_MS / 1000)
        return {"id": client_id, "status": "FILLED"}

    def went_on_s(self, client_id: str) -> float:
        """Return how long after its worker was killed the order came again; infinite if it did not."""
        killed = self.killed[client_id]
        with self._lock:
            return min((at - killed for at in self.executed[client_id] if at > killed), default=float("inf"))

    def close(self) -> None:
        """Serve no more."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that were killed."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def take(self, order: dict[str, Any]) -> dict[str, Any]:
        """Execute an order."""
        raise NotImplementedError

    def do_POST(self) -> None:
        """Answer one order."""
        order = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = json.dumps(self.take(order)).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


if __name__ == "__main__":
    sink = Sink(kill=lambda _pid: None)
    sink.serve()
    sys.stdout.write(f"{sink.url}\n")
    threading.Event().wait()
