"""Turns a list of small numbers into one run of the world: who goes on, what fails, when time passes, who dies.

Zero always is the dull choice: the process in hand goes on and nothing fails. So a shorter list with smaller numbers is
a simpler run, and a failure is shrunk to a short script, which `Run.script` tells step by step. `schedule.py` makes the
lists.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from sqlalchemy import Table

from app.execution.context import ExecutionContext
from app.intents import CancelIntent
from app.job_safety.errors import RetryableError
from tests.safety.simulation.exchange import QUERIES
from tests.safety.simulation.gateway import faults_at
from tests.safety.simulation.invariants import check_end, check_resting, check_step
from tests.safety.simulation.ports import NAMES
from tests.safety.simulation.scheduler import Process
from tests.safety.simulation.world import SYMBOL, World, fetch_all_fills, follow_orders, sweep

MAX_PROCESSES = 6
PAUSES_MS = (200, 600, 1_100, 3_100, 4_600, 6_000, 12_000, 31_000)
CLOCKS_MS = (0, 5_000, -5_000)
KILL_WORDS = ("true", "reduce_only", "cancel_only", "false")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What the world is like. `kinds`: one intent each, of open | limit | reduce | long (valid for an hour)."""

    kinds: tuple[str, ...] = ("open",)
    lags_ms: tuple[int, ...] = (0,) * len(QUERIES)
    engine_behind_ms: int = 0
    margin_for: int | None = None
    clock_ahead_ms: int = 0
    """How far our own wall clock is ahead; negative: behind."""

    @property
    def is_lag_bounded(self) -> bool:
        return max(self.lags_ms) <= 13_000


@dataclass(slots=True)
class Run:
    """One run. `play` it, then `finish` it."""

    world: World
    setup: Setup
    choices: Sequence[int]
    script: list[str] = field(default_factory=list)
    _keys: list[str] = field(default_factory=list)
    _at: int = 0
    _current: Process | None = None
    _judged: tuple[int, int, int] = (-1, -1, -1)
    _backup: Mapping[Table, Sequence[Mapping[str, Any]]] | None = None

    def __post_init__(self) -> None:
        world, setup = self.world, self.setup
        world.exchange.lag_ms = dict(zip(QUERIES, setup.lags_ms, strict=True))
        world.exchange.engine_behind_ms = setup.engine_behind_ms
        world.exchange.margin_for = setup.margin_for
        world.local_ahead_ms = setup.clock_ahead_ms
        for number, kind in enumerate(setup.kinds):
            key = f"k{number}"
            self._keys.append(key)
            if kind == "reduce":
                world.order(key, reduce_only=True, side="SELL")
            elif kind == "limit":
                world.order(key, order_type="LIMIT", price=Decimal(90), valid_for_s=60)
            else:
                world.order(key, valid_for_s=3_600 if kind == "long" else None)

    def play(self) -> None:
        """Make every choice."""
        while self._at < len(self.choices):
            self._step(self._next())
            self._judge()

    def finish(self) -> None:
        """End all faults, let everybody who still lives finish, let time pass, and judge the end."""
        world = self.world
        world.exchange.lag_ms, world.exchange.stuck_at_ms = {}, {}
        world.redis.delete(NAMES.kill_switch)
        self.script.append("faults end")
        while world.writer is not None:
            self._go(world.writer)
        world.set_kill_state("RUN")
        for process in world.processes:
            process.is_frozen = False
            while process.can_run:
                self._go(process)
                self._judge()
        world.settle(rounds=40)
        check_resting(world)
        for order in world.exchange.orders:
            world.exchange.fill(order)
        world.settle(rounds=40)
        check_end(world)

    def _next(self) -> int:
        self._at += 1
        return self.choices[self._at - 1] if self._at <= len(self.choices) else 0

    def _step(self, choice: int) -> None:
        runnable = [process for process in self.world.processes if process.can_run]
        writer = self.world.writer
        if writer is not None:  # nobody else gets into the journal, so nobody else is asked
            self._go(writer, die=choice > 250)
            return
        if choice < 90 or (choice < 155 and not runnable):
            self._go_on(runnable, choice)
        elif choice < 125:
            self._current = runnable[choice % len(runnable)]
            self._go(self._current, fault=self._fault(self._current.where))
        elif choice < 140:
            process = self._in_hand(runnable)
            faults = faults_at(process.where)
            self._go(process, fault=faults[self._next() % len(faults)] if faults else None)
        elif choice < 147:
            self._go(self._in_hand(runnable), die=True)
        elif choice < 155:
            process = self._in_hand(runnable)
            process.is_frozen = True
            self.script.append(f"freeze {process.name} at {process.where}")
        else:
            self._around(choice)

    def _fault(self, where: str) -> str | None:
        """Return what happens to a placement: most go wrong, since that is what all of this is about."""
        if where != "send:place":
            return None
        choice = self._next()
        faults = faults_at(where)
        return faults[choice % len(faults)] if choice > 70 else None

    def _go_on(self, runnable: list[Process], choice: int) -> None:
        if runnable:
            process = self._in_hand(runnable)
            self._go(process, fault=self._fault(process.where))
        else:
            self._start(choice)

    def _around(self, choice: int) -> None:
        """Do something that is no process' step."""
        world = self.world
        frozen = [process for process in world.processes if process.is_frozen]
        if choice < 162 and frozen:
            frozen[choice % len(frozen)].is_frozen = False
            self.script.append(f"wake {frozen[choice % len(frozen)].name}")
        elif choice < 195:
            pause_ms = PAUSES_MS[self._next() % len(PAUSES_MS)]
            self.script.append(f"{pause_ms} ms pass")
            with self._stopped(pause_ms > 3_000):
                world.pass_time(pause_ms)
        elif choice < 222:
            with self._stopped(True):
                for turn in range(1 + choice % 8):
                    self.script.append("sweeper, reconciler and workers do what is due; 2.6 seconds pass")
                    world.hand_process.reply_inline = self._fault
                    world.round(is_sweeping=turn % 3 == 0)
                    world.hand_process.reply_inline = None
                    self._judge()
                    world.pass_time(2_600)
        elif choice < 244:
            self._start(self._next())
        else:
            self._disturb(choice)

    @contextlib.contextmanager
    def _stopped(self, is_long: bool) -> Iterator[None]:
        """Who does not go on while much time passes has been stopped: nobody renews its leases."""
        others = [process for process in self.world.processes if process.can_run and is_long]
        for process in others:
            process.is_frozen = True
        yield
        for process in others:
            process.is_frozen = False

    def _disturb(self, choice: int) -> None:
        """Do what people and other programs do."""
        world = self.world
        if choice < 247:
            self.script.append("redis is flushed")
            world.redis.flushall()
        elif choice < 250:
            self.script.append("an order by hand")
            world.exchange.foreign_order(SYMBOL)
        elif choice < 252:
            word = KILL_WORDS[self._next() % len(KILL_WORDS)]
            self.script.append(f"kill switch: {word}")
            world.redis.set(NAMES.kill_switch, word)
        elif choice < 254:
            for order in world.exchange.orders:
                world.exchange.fill(order, Decimal("0.4"))
            self.script.append("resting orders fill in part")
        elif choice < 256:
            self._cancel(self._next())
        elif choice < 260:
            self._shift_lag(self._next())
        elif choice < 264:
            world.local_ahead_ms = CLOCKS_MS[self._next() % len(CLOCKS_MS)]
            self.script.append(f"our clock is set {world.local_ahead_ms} ms ahead")
        elif choice < 267:
            latch = ("HALT", "RUN")[self._next() % 2]
            self.script.append(f"kill switch latched: {latch}")
            world.set_kill_state(latch)
        else:
            self._back_up_or_restore(choice)

    def _shift_lag(self, choice: int) -> None:
        """Let one kind of question lag behind by as much as another one did, within the bounds of the setup."""
        query, lag_ms = QUERIES[choice % len(QUERIES)], self.setup.lags_ms[choice // 8 % len(QUERIES)]
        self.script.append(f"{query} lags {lag_ms} ms behind")
        self.world.exchange.lag_ms[query] = lag_ms

    def _back_up_or_restore(self, choice: int) -> None:
        world = self.world
        if self._backup is None or choice % 2:
            self.script.append("backup of the journal")
            self._backup = world.snapshot()
        elif self.setup.is_lag_bounded:  # after a restore absence is told by the longest lag, not by a witness
            self.script.append("the journal is rolled back to the backup")
            world.roll_back(self._backup)
            known = {row.key for row in world.rows()}
            self._keys = [key for key in self._keys if key in known]

    def _start(self, choice: int) -> None:
        world = self.world
        if sum(not p.is_finished for p in world.processes) >= MAX_PROCESSES:
            return
        key = self._keys[choice % len(self._keys)]
        kind = choice % 256 // 16
        if kind < 9:
            # Every other one was begun ahead, by the way of the schedule so far: a seed stays one schedule.
            process = world.early_worker(key) if len(world.processes) % 2 else world.worker(key)
        elif kind < 13:
            process = world.reconciler(key)
        else:
            process = world.start(*_OTHERS[kind - 13])
        self.script.append(f"start {process.name}")
        self._current = process

    def _cancel(self, choice: int) -> None:
        key = f"k{choice % len(self.setup.kinds)}"
        if f"c-{key}" not in self._keys:
            self._keys.append(f"c-{key}")
            self.world.enqueue(CancelIntent(key=f"c-{key}", order_key=key))
            self.script.append(f"cancel {key}")

    def _in_hand(self, runnable: list[Process]) -> Process:
        if self._current is None or self._current not in runnable:
            self._current = runnable[0]
        return self._current

    def _go(self, process: Process, *, fault: str | None = None, die: bool = False) -> None:
        if die:
            self.script.append(f"kill {process.name} at {process.where}")
            process.kill()
            return
        told = f" with {fault}" if fault else ""
        self.script.append(f"{process.name} goes on from {process.where}{told}")
        process.go(fault)
        # What says "run again" is what the queue and the sweeper are for; anything else is a bug of ours.
        if process.error is not None and not isinstance(process.error, RetryableError):
            raise process.error

    def _judge(self) -> None:
        """Check the invariants if anything has changed that they speak of."""
        world = self.world
        if world.writer is not None:
            return
        now = (world.commits, len(world.exchange.orders), len(world.exchange.flights))
        if now != self._judged:
            self._judged = now
            check_step(world, is_lag_bounded=self.setup.is_lag_bounded)


_OTHERS: tuple[tuple[str, Callable[[ExecutionContext], object]], ...] = (
    ("sweeper", sweep),
    ("follower", follow_orders),
    ("bookkeeper", fetch_all_fills),
)
