"""The kill switch as a program asks for it over HTTP."""

import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

from tests.support.redis_server import free_port
from tests.support.system import System

TOKEN = "c0ffee" * 6
HALT = {"state": "HALT", "reason": "orders without end", "by": "anna"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """An answer."""

    code: int
    body: Any
    headers: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """Asks one exporter."""

    port: int

    def get(self, path: str = "/kill-switch", token: str | None = TOKEN) -> Told:
        return self.ask(urllib.request.Request(f"http://127.0.0.1:{self.port}{path}"), token)

    def post(self, body: object, token: str | None = TOKEN, path: str = "/kill-switch", scheme: str = "Bearer") -> Told:
        """Send `body`: bytes as they are, anything else as JSON."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data=data, method="POST")
        return self.ask(request, token, scheme)

    def ask(self, request: urllib.request.Request, token: str | None, scheme: str = "Bearer") -> Told:
        if token is not None:
            request.add_header("Authorization", f"{scheme} {token}")
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - loopback
                return told(answer.status, answer.read(), dict(answer.headers))
        except urllib.error.HTTPError as error:
            return told(error.code, error.read(), dict(error.headers))


def told(code: int, body: bytes, headers: dict[str, str]) -> Told:
    is_json = headers.get("Content-Type") == "application/json"
    return Told(code=code, body=json.loads(body) if is_json else body.decode(), headers=headers)


def exporter(here: System, token: str | None = TOKEN) -> Client:
    """Start an exporter of its own process, and return who asks it."""
    client = Client(port=free_port())
    environment = {} if token is None else {"FILLONCE_KILL_SWITCH_TOKEN": token}
    process = here.start("exporter", METRICS_PORT=str(client.port), **environment)

    def listens() -> bool:
        assert process.poll() is None, process.tail()
        try:
            return client.get("/healthz", None).code == 200
        except OSError:
            return False

    here.until(lambda: listens() or None, "the exporter to listen")
    return client
