"""A real paper exchange in a process of its own, and three ways to talk to it: python-binance, raw HTTP, control."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import requests

with warnings.catch_warnings():
    # python-binance imports what the websockets package calls deprecated.
    warnings.simplefilter("ignore", DeprecationWarning)
    from binance.client import Client

KEY, SECRET = "paper", "paper-secret"
ROOT = Path(__file__).resolve().parents[3]
BTC = {"symbol": "BTCUSDT"}
START_PRICE = "20000.00"


@dataclass(slots=True, kw_only=True)
class Paper:
    """One exchange process; `start` again after `kill` gives the same exchange back."""

    data: Path
    arguments: list[str]
    process: subprocess.Popen[str] | None = None
    url: str = ""
    session: requests.Session = field(default_factory=requests.Session)

    def start(self, *prefix: str) -> Paper:
        command = [*prefix, sys.executable, "-m", "app.exchange.paper", "--data", str(self.data), "--history", "5"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            [*command, *self.arguments], stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the exchange did not start"
        self.url = json.loads(line)["url"]
        return self

    def end(self, number: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(timeout=10)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.session.close()
        self.session = requests.Session()
        return code

    def client(self) -> Client:
        """Plain python-binance, pointed here by its own class attributes."""
        here = type("PaperClient", (Client,), {"FUTURES_URL": f"{self.url}/fapi", "API_URL": f"{self.url}/api"})
        client = here(KEY, SECRET, ping=False)
        client.REQUEST_RECVWINDOW = 5000
        return client

    def control(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        reply = self.session.request(method, f"{self.url}/paper/{path}", json=body, timeout=10)
        assert reply.status_code == 200, reply.text
        return reply.json()

    def now_ms(self) -> int:
        return int(self.control("GET", "clock")["now_ms"])

    def truth(self) -> Any:
        return self.control("GET", "truth")

    def faults(self, *rules: dict[str, Any], seed: int = 1) -> None:
        self.control("POST", "faults", {"rules": list(rules), "seed": seed})

    def struck(self) -> list[int]:
        return [rule["struck"] for rule in self.control("GET", "faults")["rules"]]

    def price(self, symbol: str, price: str) -> None:
        self.control("POST", "price", {"symbol": symbol, "price": price})

    def raw(
        self,
        method: str,
        path: str,
        params: dict[str, Any],
        *,
        timestamp: int | None = None,
        timeout: float = 10,
        secret: str = SECRET,
        session: requests.Session | None = None,
    ) -> requests.Response:
        """A signed request, built by hand: the timestamp is ours to choose."""
        full = {"timestamp": self.now_ms() if timestamp is None else timestamp, **params}
        query = urlencode(full)
        signature = hmac.new(secret.encode(), query.encode(), hashlib.sha256).hexdigest()
        body = f"{query}&signature={signature}"
        http = session or self.session
        headers = {"X-MBX-APIKEY": KEY, "Content-Type": "application/x-www-form-urlencoded"}
        if method == "POST":
            return http.post(f"{self.url}{path}", data=body, headers=headers, timeout=timeout, allow_redirects=False)
        return http.request(method, f"{self.url}{path}?{body}", headers=headers, timeout=timeout)

    def market_order(self, client_id: str, **changes: Any) -> dict[str, Any]:
        """Parameters of a futures market order."""
        order = {"symbol": "BTCUSDT", "side": "BUY", "type": "MARKET", "quantity": "0.010"}
        return {**order, "newClientOrderId": client_id, **changes}


Starter = Callable[..., Paper]


@pytest.fixture(scope="module")
def paper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Paper]:
    """An exchange shared by a module whose tests use ids and symbols of their own."""
    one = Paper(data=tmp_path_factory.mktemp("paper"), arguments=["--price", f"BTCUSDT={START_PRICE}"]).start()
    yield one
    if one.process is not None and one.process.poll() is None:
        one.end(signal.SIGKILL)
    one.session.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Starter]:
    """Start exchanges with options of one's own."""
    started: list[Paper] = []

    def starter(*arguments: str, name: str = "paper") -> Paper:
        one = Paper(data=tmp_path / name, arguments=["--price", f"BTCUSDT={START_PRICE}", *arguments]).start()
        started.append(one)
        return one

    yield starter
    for one in started:
        if one.process is not None and one.process.poll() is None:
            one.end(signal.SIGKILL)
        one.session.close()


@pytest.fixture(autouse=True)
def _no_faults_left(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "paper" in request.fixturenames:
        one = request.getfixturevalue("paper")
        if one.process.poll() is None:
            one.control("DELETE", "faults")


def eventually(check: Callable[[], bool], timeout_s: float = 5) -> bool:
    """Poll until it holds or the time is up."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if check():
            return True
        time.sleep(0.01)
    return check()
