"""A proxy in front of a store: it can lose answers after the command was executed, and switch to another server."""

import contextlib
import socket
import threading
from typing import Self


class LossyProxy:
    """Forwards connections to `target`, a port or a socket's path; `url` is what clients of Redis are told."""

    def __init__(self, target: int | str) -> None:
        self.lost = 0
        self._target = target
        self._to_lose = 0
        self._lock = threading.Lock()
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut_all()

    def lose_answers(self, count: int) -> None:
        """Swallow the next `count` answers, and close the connection that each was meant for."""
        with self._lock:
            self._to_lose = count

    def switch_to(self, target: int) -> None:
        """Send everybody to another server, as a failover does: open connections are cut."""
        self._target = target
        self.cut_all()

    def cut_all(self) -> None:
        """Close every connection."""
        with self._lock:
            pairs, self._pairs = self._pairs, set()
        for pair in pairs:
            _close(*pair)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = _connected(self._target)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            with self._lock:
                self._pairs.add((client, server))
            for source, sink, is_answer in ((client, server, False), (server, client, True)):
                threading.Thread(target=self._pump, args=(source, sink, is_answer), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, is_answer: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                if is_answer and self._loses():
                    break
                sink.sendall(data)
        _close(source, sink)

    def _loses(self) -> bool:
        with self._lock:
            if self._to_lose == 0:
                return False
            self._to_lose -= 1
            self.lost += 1
            return True


def _close(*both: socket.socket) -> None:
    for one in both:
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()


def _connected(target: int | str) -> socket.socket:
    if isinstance(target, int):
        return socket.create_connection(("127.0.0.1", target), timeout=5)
    server = socket.socket(socket.AF_UNIX)
    server.connect(target)
    return server
