"""The exchange of the throughput runs: answers every order as filled, as fast as a process can, and counts them.

It speaks just enough of Binance's futures interface that an unguarded POST and our whole chain can be measured against
the same server: orders, the queries that opening an account asks, and an order's trades. Nothing is checked or kept on
disk: what is measured is the client. `python -m bench.throughput.sink PORT-FILE COUNT-FILE MS` serves until it is
killed, and answers an order after so many milliseconds.
"""

import asyncio
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl

from bench.throughput.tally import Tally

PRICE: Final = "20000.00"
_EXCHANGE_INFO: Final = {
    "timezone": "UTC",
    "serverTime": 0,
    "rateLimits": [
        {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 100_000_000},
        {"rateLimitType": "ORDERS", "interval": "MINUTE", "intervalNum": 1, "limit": 100_000_000},
    ],
    "symbols": [
        {
            "symbol": "BTCUSDT",
            "status": "TRADING",
            "contractType": "PERPETUAL",
            "baseAsset": "BTC",
            "quoteAsset": "USDT",
            "marginAsset": "USDT",
            "orderTypes": ["LIMIT", "MARKET"],
            "timeInForce": ["GTC", "IOC", "FOK", "GTX"],
            "filters": [
                {"filterType": "PRICE_FILTER", "minPrice": "0.10", "maxPrice": "1000000", "tickSize": "0.10"},
                {"filterType": "LOT_SIZE", "minQty": "0.001", "maxQty": "1000", "stepSize": "0.001"},
                {"filterType": "MARKET_LOT_SIZE", "minQty": "0.001", "maxQty": "1000", "stepSize": "0.001"},
                {"filterType": "MIN_NOTIONAL", "notional": "5"},
            ],
        }
    ],
}


class Sink:
    """The orders, counted, and when each arrived (monotonic seconds, by client order id)."""

    def __init__(self, tally: Tally) -> None:
        self.arrived: dict[str, float] = {}
        self.count = 0
        self._tally = tally
        self._trades: dict[int, dict[str, Any]] = {}
        self._get: dict[str, Callable[[dict[str, str]], object]] = {
            "/fapi/v1/time": lambda _asked: {"serverTime": _now_ms()},
            "/api/v3/time": lambda _asked: {"serverTime": _now_ms()},
            "/fapi/v1/exchangeInfo": lambda _asked: _EXCHANGE_INFO,
            "/fapi/v1/userTrades": self._trades_of,
            "/sink/arrived": lambda _asked: self.arrived,
        }

    def answer(self, method: str, target: str, body: bytes) -> object:
        """Return the JSON value that answers a request."""
        path, _, query = target.partition("?")
        if method == "POST" and path == "/fapi/v1/order":
            return self._order(dict(parse_qsl(body.decode())))
        ask = self._get.get(path)
        return [] if ask is None else ask(dict(parse_qsl(query)))

    def _order(self, asked: dict[str, str]) -> dict[str, Any]:
        self.count += 1
        order_id, name, at_ms = self.count, asked.get("newClientOrderId", ""), _now_ms()
        self.arrived.setdefault(name, time.monotonic())
        self._tally.set(self.count)
        quantity, side = asked.get("quantity", "0.001"), asked.get("side", "BUY")
        self._trades[order_id] = {
            "symbol": "BTCUSDT", "id": order_id, "orderId": order_id, "side": side, "price": PRICE, "qty": quantity,
            "quoteQty": "20.00", "realizedPnl": "0", "commission": "0.008", "commissionAsset": "USDT", "time": at_ms,
            "positionSide": "BOTH", "buyer": side == "BUY", "maker": False,
        }  # fmt: skip
        return {
            "orderId": order_id, "symbol": "BTCUSDT", "status": "FILLED", "clientOrderId": name, "price": "0",
            "avgPrice": PRICE, "origQty": quantity, "executedQty": quantity, "cumQty": quantity, "cumQuote": "20.00",
            "timeInForce": "GTC", "type": "MARKET", "reduceOnly": False, "closePosition": False, "side": side,
            "positionSide": "BOTH", "stopPrice": "0", "workingType": "CONTRACT_PRICE", "origType": "MARKET",
            "updateTime": at_ms,
        }  # fmt: skip

    def _trades_of(self, asked: dict[str, str]) -> list[dict[str, Any]]:
        found = self._trades.get(int(asked.get("orderId", "0")))
        return [] if found is None else [found]


class _Protocol(asyncio.Protocol):
    def __init__(self, sink: Sink, answer_s: float) -> None:
        self._sink = sink
        self._answer_s = answer_s
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end].decode("latin-1")
            length = next((int(line[15:]) for line in head.split("\r\n") if line[:15].lower() == "content-length:"), 0)
            if len(self._buffer) < end + 4 + length:
                return
            body, self._buffer = self._buffer[end + 4 : end + 4 + length], self._buffer[end + 4 + length :]
            method, target, _ = head.split(" ", 2)
            told = json.dumps(self._sink.answer(method, target, body)).encode()
            answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(told)
            answer += told
            assert self._transport is not None
            if self._answer_s and method == "POST":
                asyncio.get_running_loop().call_later(self._answer_s, self._transport.write, answer)
            else:
                self._transport.write(answer)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


async def _serve(port_file: Path, count_file: Path, answer_s: float) -> None:
    sink = Sink(Tally(count_file))
    server = await asyncio.get_running_loop().create_server(lambda: _Protocol(sink, answer_s), "127.0.0.1", 0)
    port_file.write_text(str(server.sockets[0].getsockname()[1]), encoding="ascii")  # noqa: ASYNC240 - once, before serving
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) / 1000))
