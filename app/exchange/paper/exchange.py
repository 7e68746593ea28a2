"""The whole exchange: applies commands in order, logs them, and rebuilds itself from the log."""

from __future__ import annotations

from decimal import Decimal

from app.exchange.paper.algo import AlgoEngine, AlgoOrder
from app.exchange.paper.book import BookShape
from app.exchange.paper.commands import (
    CancelAlgo,
    CancelOrder,
    Candles,
    Command,
    Configure,
    Deposit,
    Funding,
    PlaceAlgo,
    PlaceOrder,
    SetClock,
    SetLeverage,
    SetPrice,
    decode,
    encode,
)
from app.exchange.paper.futures import FuturesEngine
from app.exchange.paper.market import Candle, Market
from app.exchange.paper.model import Order, Venue
from app.exchange.paper.persistence import CommandLog
from app.exchange.paper.spot import SpotEngine
from app.exchange.paper.symbols import START_PRICES


class LogMismatchError(Exception):
    """Replaying the log did not give the ids that were answered: another version wrote it, or it was edited."""


class Exchange:
    """Both venues, their market and their clock offset."""

    def __init__(self, log: CommandLog | None = None) -> None:
        self.market = Market(START_PRICES)
        self.futures = FuturesEngine(self.market)
        self.spot = SpotEngine(self.market)
        self.algos = AlgoEngine(self.futures)
        self.offset_ms = 0
        self.configuration: Configure | None = None
        self.commands = 0
        self._log: CommandLog | None = None
        if log is not None:
            self._replay(log)
        self._log = log

    def _replay(self, log: CommandLog) -> None:
        for record in log.read():
            expected = record.pop("id", None)
            result = self._apply(decode(record))
            self.commands += 1
            if expected is not None and _result_id(result) != expected:
                raise LogMismatchError(f"command {self.commands} gave {_result_id(result)}, logged {expected}")

    def close(self) -> None:
        """Close the log."""
        if self._log is not None:
            self._log.close()

    def place(self, command: PlaceOrder) -> Order:
        """Place an order; logged before this returns.

        Raises:
            PaperError: Refused; nothing changed.
        """
        order = self._place(command)
        self._write(command, order.order_id)
        return order

    def place_algo(self, command: PlaceAlgo) -> AlgoOrder:
        """Place a conditional order; logged before this returns.

        Raises:
            PaperError: Refused; nothing changed.
        """
        algo = self.algos.place(command)
        self._write(command, algo.algo_id)
        return algo

    def cancel(self, command: CancelOrder) -> Order:
        """Cancel an order; logged before this returns.

        Raises:
            PaperError: -2011.
        """
        order = self._cancel(command)
        self._write(command, order.order_id)
        return order

    def execute(self, command: Command) -> None:
        """Apply any command; logged before this returns.

        Raises:
            PaperError: Refused; nothing changed.
        """
        self._write(command, _result_id(self._apply(command)))

    def _write(self, command: Command, result_id: int | None) -> None:
        self.commands += 1
        if self._log is None:
            return
        record = encode(command)
        if result_id is not None:
            record["id"] = result_id
        try:
            self._log.append(record)
        except OSError as error:
            # Memory is now ahead of the disk: an exchange that went on would forget what it answered.
            raise SystemExit(f"the command log cannot be written: {error}") from error

    def _place(self, command: PlaceOrder) -> Order:
        return self.futures.place(command) if command.venue == Venue.FUTURES else self.spot.place(command)

    def _cancel(self, command: CancelOrder) -> Order:
        if command.venue == Venue.FUTURES:
            return self.futures.cancel(command.symbol, command.order_id, command.at)
        return self.spot.cancel(command.symbol, command.order_id, command.at, command.new_client_order_id)

    def _apply(self, command: Command) -> Order | AlgoOrder | None:  # noqa: C901  one case per command
        match command:
            case PlaceOrder():
                return self._place(command)
            case CancelOrder():
                return self._cancel(command)
            case PlaceAlgo():
                return self.algos.place(command)
            case CancelAlgo():
                return self.algos.cancel(command.algo_id, command.at)
            case SetPrice():
                self._move(command.symbol, command.price, command.at)
            case Candles():
                self._step(command)
            case SetLeverage():
                self.futures.positions[command.symbol].leverage = command.leverage
            case Deposit():
                engine = self.futures if command.venue == Venue.FUTURES else self.spot
                engine.deposit(command)
            case Funding():
                self.futures.fund(command)
            case SetClock():
                self.offset_ms = command.offset_ms
            case Configure():
                self._configure(command)
        return None

    def _configure(self, command: Configure) -> None:
        self.configuration = command
        shape = BookShape(level_notional=command.level_notional, levels=command.levels, gap_ticks=command.gap_ticks)
        self.futures.configure(command, shape)
        self.spot.configure(command, shape)

    def _step(self, command: Candles) -> None:
        for symbol, row in command.rows.items():
            opened, high, low, close = (Decimal(value) for value in row[1:5])
            candle = Candle(open_ms=int(row[0]), open=opened, high=high, low=low, close=close, volume=Decimal(row[5]))
            self.market.add_candle(symbol, candle)
            for price in candle.path:
                self._move(symbol, price, command.at)
        self.market.steps += 1

    def _move(self, symbol: str, price: Decimal, at: int) -> None:
        self.market.set_price(symbol, price)
        self.futures.on_price(symbol, at)
        self.algos.on_price(symbol, at)
        self.spot.on_price(symbol, at)


def _result_id(result: Order | AlgoOrder | None) -> int | None:
    if isinstance(result, Order):
        return result.order_id
    return result.algo_id if isinstance(result, AlgoOrder) else None
