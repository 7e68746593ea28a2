"""Puts the exchange together and serves it until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import gc
import json
import signal
import sys
from decimal import Decimal
from pathlib import Path

from app.clock import Clock, SystemClock
from app.exchange.paper.auth import Authenticator
from app.exchange.paper.commands import Configure, Deposit, SetClock, SetPrice
from app.exchange.paper.control import ControlPlane
from app.exchange.paper.exchange import Exchange
from app.exchange.paper.gateway import Gateway
from app.exchange.paper.limits import RateLimiter, profile
from app.exchange.paper.market import FileCandles
from app.exchange.paper.model import Venue
from app.exchange.paper.options import PaperOptions
from app.exchange.paper.persistence import CommandLog
from app.exchange.paper.routes_algo import AlgoOrders
from app.exchange.paper.routes_futures import FuturesOrders
from app.exchange.paper.routes_futures_account import FuturesAccount
from app.exchange.paper.routes_market import MarketData
from app.exchange.paper.routes_spot import SpotOrders
from app.exchange.paper.stepper import Stepper
from app.exchange.paper.wire import HttpServer


def run(options: PaperOptions, clock: Clock | None = None) -> None:
    """Serve until SIGTERM or SIGINT; prints one JSON line with the address once it listens.

    Raises:
        OSError: The port or the data directory is taken.
        LogMismatchError: The log was written by another version.
    """
    # Orders and trades are kept for good and hold no cycles: looking through all of them again and again costs more
    # than everything else together once there are many.
    gc.set_threshold(100_000, 50, 1000)
    asyncio.run(_serve(options, clock or SystemClock()))


class PaperServer:
    """One exchange with its HTTP server, inside a running event loop."""

    def __init__(self, options: PaperOptions, clock: Clock) -> None:
        self._options = options
        self.exchange = Exchange(CommandLog(options.data, fsync=options.fsync))
        limiters = {venue: RateLimiter(profile(options.limits, venue), venue) for venue in Venue}
        self.gateway = Gateway(
            exchange=self.exchange,
            clock=clock,
            auth=Authenticator(options.api_key, options.api_secret),
            limiters=limiters,
            routes={
                **FuturesOrders(self.exchange).routes(),
                **FuturesAccount(self.exchange, limiters[Venue.FUTURES]).routes(),
                **AlgoOrders(self.exchange).routes(),
                **SpotOrders(self.exchange, limiters[Venue.SPOT]).routes(),
                **MarketData(self.exchange, Venue.FUTURES, limiters[Venue.FUTURES].limits).routes(),
                **MarketData(self.exchange, Venue.SPOT, limiters[Venue.SPOT].limits).routes(),
            },
            engine_delay_ms=options.engine_delay_ms,
        )
        files = {}
        if options.klines is not None:
            files[options.klines_symbol] = FileCandles(options.klines, skip=self.exchange.market.steps)
        self.stepper = Stepper(self.exchange, self.gateway.now_ms, options.seed, files)
        control = ControlPlane(self.exchange, self.gateway, self.stepper)
        self.gateway.control = control.handle
        self._http = HttpServer(self.gateway.handle, clock, idle_timeout_s=options.idle_timeout_s)
        self._prepare(limiters[Venue.FUTURES].limits.max_open_orders)
        if options.faults is not None:
            control.set_faults(_read_json(options.faults))

    def _prepare(self, max_open_orders: int) -> None:
        """Bring a new exchange to life, and an old one to the options of this start."""
        options, exchange = self._options, self.exchange
        is_new = exchange.commands == 0
        if options.clock_offset_ms is not None and options.clock_offset_ms != exchange.offset_ms:
            exchange.execute(SetClock(at=self.gateway.now_ms(), offset_ms=options.clock_offset_ms))
        exchange.execute(
            Configure(
                at=self.gateway.now_ms(),
                level_notional=options.level_notional,
                levels=options.levels,
                gap_ticks=options.gap_ticks,
                futures_maker_rate=options.futures_maker_rate,
                futures_taker_rate=options.futures_taker_rate,
                spot_maker_rate=options.spot_maker_rate,
                spot_taker_rate=options.spot_taker_rate,
                spot_fee_in_bnb=options.spot_fee_in_bnb,
                max_open_orders=max_open_orders,
            )
        )
        if is_new:
            self._set_prices()
            self.stepper.prepare(options.history)
            self._set_prices()
            for venue, asset, amount in options.deposits:
                exchange.execute(Deposit(at=self.gateway.now_ms(), venue=venue, asset=asset, amount=amount))

    def _set_prices(self) -> None:
        """Trade at the prices asked for, before the history (so that it has their size) and after it."""
        for symbol, price in self._options.prices.items():
            self.exchange.execute(SetPrice(at=self.gateway.now_ms(), symbol=symbol, price=price))

    async def start(self) -> int:
        """Listen; returns the port."""
        return await self._http.start(self._options.host, self._options.port)

    async def trade(self) -> None:
        """Move the market at the given speed, for ever."""
        while True:
            await asyncio.sleep(1 / self._options.speed)
            self.stepper.step()

    async def stop(self) -> None:
        """Finish what runs, then close the log."""
        await self._http.stop()
        self.exchange.close()


async def _serve(options: PaperOptions, clock: Clock) -> None:
    server = PaperServer(options, clock)
    port = await server.start()
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    address = f"http://{options.host}:{port}"
    sys.stdout.write(
        json.dumps({"port": port, "futures_url": f"{address}/fapi", "spot_url": f"{address}/api", "url": address})
        + "\n"
    )
    sys.stdout.flush()
    waiting: set[asyncio.Task[object]] = {loop.create_task(stopped.wait())}
    if options.speed > 0:
        waiting.add(loop.create_task(server.trade()))
    done, pending = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    await server.stop()
    for task in done:
        task.result()


def _read_json(path: Path) -> dict[str, object]:
    body: dict[str, object] = json.loads(path.read_text(encoding="utf-8"), parse_float=Decimal)
    return body
