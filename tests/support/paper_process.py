"""The local exchange as a process of its own, with its control plane: truth, prices, deposits, faults."""

import json
import os
import signal
import time
from decimal import Decimal
from pathlib import Path
from typing import Any, Self

import requests

from tests.support.nursery import Process, shared

ROOT = Path(__file__).resolve().parents[2]
KEY, SECRET = "paper", "paper-secret"


class PaperProcess:
    """One exchange. Killed and started again with the same folder and port it is the same exchange."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.url = ""
        self._options = options
        self._port = 0
        self._starts = 0
        self._process: Process | None = None
        self._session = requests.Session()
        # Loopback only: no proxy of the environment is asked.
        self._session.trust_env = False

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_error: object) -> None:
        self.stop()

    def start(self) -> Self:
        """Start it and return once it listens."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._starts += 1
        self._process = shared().start(
            "app.exchange.paper",
            ["--data", str(self.folder / "data"), "--history", "1", "--port", str(self._port), *self._options],
            environment={**os.environ, "PYTHONPATH": str(ROOT)}, folder=self.folder, name=f"exchange-{self._starts}",
        )  # fmt: skip
        told = self._told(self._process)
        self.url, self._port = told["url"], told["port"]
        return self

    @staticmethod
    def _told(process: Process) -> Any:
        """Return what the exchange tells once it listens, which is a line of JSON."""
        deadline = time.monotonic() + 60
        while True:
            lines = process.words().splitlines(keepends=True) if process.log.exists() else []
            for line in lines:
                if line.startswith("{") and line.endswith("\n"):
                    return json.loads(line)
            assert process.poll() is None, f"the exchange did not start: {process.tail()}"
            assert time.monotonic() < deadline, f"the exchange did not listen: {process.tail()}"
            time.sleep(0.005)

    def kill(self) -> None:
        """SIGKILL; the account survives in its log."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it in order."""
        self._end(signal.SIGTERM)
        self._session.close()

    def control(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Ask the control plane, or tell it something. Decimals in the answer are texts."""
        reply = self._session.request(method, f"{self.url}/paper/{path}", json=body, timeout=20)
        assert reply.status_code == 200, f"{path}: {reply.text}"
        return reply.json()

    def truth(self) -> Any:
        """Return everything that the exchange has accepted."""
        return self.control("GET", "truth")

    def price(self, symbol: str, price: str) -> None:
        """Trade the market at `price`."""
        self.control("POST", "price", {"symbol": symbol, "price": price})

    def deposit(self, venue: str, asset: str, amount: str) -> None:
        """Move an amount into the wallet of `futures` or `spot`."""
        self.control("POST", "deposit", {"venue": venue, "asset": asset, "amount": amount})

    def faults(self, *rules: dict[str, Any]) -> None:
        """Put these fault rules into force, instead of those before."""
        self.control("POST", "faults", {"rules": list(rules), "seed": 1})

    def struck(self) -> list[int]:
        """Return how often each rule has struck."""
        return [rule["struck"] for rule in self.control("GET", "faults")["rules"]]

    def orders_of(self, client_order_id: str | None) -> list[Any]:
        """Return every order that was ever accepted under this client order id."""
        return [order for order in self.truth()["orders"] if order["client_order_id"] == client_order_id]

    def executed(self, client_order_id: str | None) -> Decimal:
        """Return how much was executed under this client order id, all orders taken together."""
        return sum((Decimal(order["executed"]) for order in self.orders_of(client_order_id)), Decimal(0))

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.signal(number)
            self._process.wait(20)
