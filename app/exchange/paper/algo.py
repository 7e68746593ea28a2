"""Conditional futures orders (the algo endpoint): they wait for a price, then place an ordinary order.

States as Binance names them: NEW -> TRIGGERED -> FINISHED, or CANCELED, REJECTED (the order was refused when the
trigger struck), EXPIRED (nothing left to close). Margin is checked at the trigger, not before.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from app.exchange.paper.commands import PlaceAlgo, PlaceOrder
from app.exchange.paper.errors import PaperError
from app.exchange.paper.futures import FuturesEngine
from app.exchange.paper.model import ZERO, Order, Venue
from app.exchange.paper.series import TimeSeries

FIRST_ALGO_ID = 2_000_000_001
MAX_OPEN_ALGOS = 200
ALGO_TYPES = frozenset({"STOP_MARKET", "TAKE_PROFIT_MARKET", "STOP", "TAKE_PROFIT"})


class AlgoStatus(StrEnum):
    """State of a conditional order; the values are Binance's."""

    NEW = "NEW"
    TRIGGERED = "TRIGGERED"
    FINISHED = "FINISHED"
    CANCELED = "CANCELED"
    REJECTED = "REJECTED"
    EXPIRED = "EXPIRED"


@dataclass(slots=True, kw_only=True)
class AlgoOrder:
    """A conditional order and, once triggered, the order it became."""

    algo_id: int
    command: PlaceAlgo
    time_ms: int
    update_ms: int
    status: AlgoStatus = AlgoStatus.NEW
    trigger_ms: int = 0
    order: Order | None = None
    reject_reason: str = ""

    @property
    def shown_status(self) -> AlgoStatus:
        """TRIGGERED becomes FINISHED when the order it placed has ended."""
        if self.status is AlgoStatus.TRIGGERED and self.order is not None and not self.order.is_open:
            return AlgoStatus.FINISHED
        return self.status


class AlgoEngine:
    """All conditional orders of the account."""

    def __init__(self, futures: FuturesEngine) -> None:
        self.algos: TimeSeries[AlgoOrder] = TimeSeries()
        self.by_id: dict[int, AlgoOrder] = {}
        self.open: dict[int, AlgoOrder] = {}
        self.accepted_count: dict[str, int] = {}
        self._by_client_id: dict[str, AlgoOrder] = {}
        self._futures = futures

    def with_client_id(self, client_algo_id: str) -> AlgoOrder | None:
        """The newest conditional order with this id."""
        return self._by_client_id.get(client_algo_id)

    def place(self, command: PlaceAlgo) -> AlgoOrder:
        """Take in a conditional order.

        Raises:
            PaperError: -4116 (id in use), -2021 (would trigger at once), -4045 (too many).
        """
        if any(algo.command.client_algo_id == command.client_algo_id for algo in self.open.values()):
            raise PaperError(-4116, "ClientOrderId is duplicated.")
        if len(self.open) >= MAX_OPEN_ALGOS:
            raise PaperError(-4045, "Reach max stop order limit.")
        if is_triggered(command, self._futures.last(command.symbol)):
            raise PaperError(-2021, "Order would immediately trigger.")
        algo = AlgoOrder(
            algo_id=FIRST_ALGO_ID + len(self.algos.items), command=command, time_ms=command.at, update_ms=command.at
        )
        self.algos.append(algo)
        self.by_id[algo.algo_id] = algo
        self.open[algo.algo_id] = algo
        self._by_client_id[command.client_algo_id] = algo
        self.accepted_count[command.client_algo_id] = self.accepted_count.get(command.client_algo_id, 0) + 1
        return algo

    def cancel(self, algo_id: int, at: int) -> AlgoOrder:
        """Cancel a conditional order that has not been triggered.

        Raises:
            PaperError: -2011, it does not wait any more.
        """
        algo = self.open.pop(algo_id, None)
        if algo is None:
            raise PaperError(-2011, "Unknown order sent.")
        algo.status = AlgoStatus.CANCELED
        algo.update_ms = at
        return algo

    def on_price(self, symbol: str, at: int) -> None:
        """Place the orders whose trigger the new price has reached, oldest first."""
        if not self.open:
            return
        last = self._futures.last(symbol)
        for algo in [one for one in self.open.values() if one.command.symbol == symbol]:
            if is_triggered(algo.command, last):
                self._trigger(algo, at)

    def _trigger(self, algo: AlgoOrder, at: int) -> None:
        del self.open[algo.algo_id]
        algo.trigger_ms = algo.update_ms = at
        command = algo.command
        quantity = command.quantity
        if command.close_position:
            amount = self._futures.positions[command.symbol].amount
            quantity = max(-amount if command.side == "BUY" else amount, ZERO)
            if quantity == ZERO:
                algo.status = AlgoStatus.EXPIRED
                return
        is_market = command.type.endswith("_MARKET")
        try:
            algo.order = self._futures.place(
                PlaceOrder(
                    at=at,
                    venue=Venue.FUTURES,
                    symbol=command.symbol,
                    side=command.side,
                    type="MARKET" if is_market else "LIMIT",
                    orig_type=command.type,
                    client_order_id=command.actual_client_order_id,
                    time_in_force=command.time_in_force,
                    price=None if is_market else command.price,
                    quantity=quantity,
                    reduce_only=command.reduce_only or command.close_position,
                    algo_id=algo.algo_id,
                )
            )
        except PaperError as refusal:
            algo.status = AlgoStatus.REJECTED
            algo.reject_reason = f"{refusal.code} {refusal.msg}"
        else:
            algo.status = AlgoStatus.TRIGGERED


def is_triggered(command: PlaceAlgo, last: Decimal) -> bool:
    """Whether the price has reached the trigger: stops follow the move, take-profits await it."""
    rises = (command.side == "BUY") == command.type.startswith("STOP")
    return last >= command.trigger_price if rises else last <= command.trigger_price
