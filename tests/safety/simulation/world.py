"""One installation in virtual time: the real journal, admission, dispatch, settle, adopt and reconcile around a model
of the exchange. Processes are started, stopped, killed and woken by whoever drives it.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

from redis import Redis
from sqlalchemy import Table, event, select

from app.composition import JournalBooks
from app.delivery import Delivery, Parcel
from app.exchange.exchange_clock import ExchangeClock
from app.exchange.filters import RulesCache
from app.exchange.gateway import ExchangeGateway
from app.execution.cancel import run_cancel
from app.execution.context import ExecutionContext
from app.execution.fills import fetch_fills
from app.execution.follow import Spent, follow_symbol, live_symbols, sweep_orders, sweep_trades
from app.execution.order import reconcile_row, run_order
from app.execution.parcels import kind_of
from app.execution.verify import verify_single
from app.intents import CancelIntent, OrderIntent
from app.job_safety import kill_switch
from app.job_safety.admission import Admission, Admitted, Ahead
from app.job_safety.circuit_breaker import BreakerPolicy, Breakers
from app.job_safety.effect import GateMode
from app.job_safety.errors import StoreUnavailableError
from app.job_safety.faults import Faults
from app.job_safety.kill_switch import KillSource, KillState
from app.job_safety.lease_keeper import LeaseKeeper
from app.job_safety.outcome import Venue
from app.job_safety.rate_limit import Pause, RateGate, RatePolicy
from app.job_safety.side_effect_guard import SideEffectGuard, Token
from app.job_safety.state import DOUBTFUL, IntentState
from app.journal import attempts, followups, intents, kill_latches, meta, restore, schema, standing
from app.journal.engine import Journal
from app.journal.kill_latches import Change
from app.journal.rows import AttemptRow, IntentRow, intent_row
from app.observability.recorder import Recorder
from app.producer.terms import Terms
from tests.safety.simulation.exchange import QUERIES, ModelExchange
from tests.safety.simulation.gateway import SimulatedGateway
from tests.safety.simulation.ports import NAMES, ClockOf, DeliveryOf, FaultsOf, JournalOf, LeasesOf, RecorderOf, RedisOf
from tests.safety.simulation.scheduler import Process
from tests.safety.simulation.virtual_redis import VirtualRedis
from tests.safety.simulation.watch import Watch
from tests.support.clock import FakeClock

SYMBOL = "BTCUSDT"
LEASE_MS = 4_000
LONG = 3_600
"""Validity, in seconds, of an order that does not run out during a script."""

TERMS = Terms(account="main", mode="paper", default_valid_for_s=30)


def open_fast_journal(folder: Path) -> Journal:
    """Return a real journal that never waits for a disk: nothing here survives the test anyway."""
    journal = Journal(f"sqlite:///{folder / 'journal.db'}")

    @event.listens_for(journal.engine, "connect")
    def _hurry(connection: Any, _record: object) -> None:
        connection.execute("PRAGMA synchronous=OFF")

    with journal.write() as connection:
        schema.metadata.create_all(connection)
    return journal


class World:
    """Everything outside the processes, and the processes."""

    def __init__(self, journal: Journal) -> None:
        self.clock = FakeClock()
        self.redis = VirtualRedis(self.clock)
        self.journal = journal
        self.watch = Watch(journal, self.redis)
        self.exchange = ModelExchange(clock=self.clock, on_send=self.watch.sending)
        self.processes: list[Process] = []
        self.writer: Process | None = None
        """Who is inside a write transaction: nobody else gets in, so nobody else may run."""
        self.commits = 0
        self.events: list[str] = []
        self.leases: dict[Token, tuple[Process, str]] = {}
        self.queued: list[Parcel] = []
        self.local_ahead_ms = 0
        """How far this machine's wall clock is ahead of the true time."""
        self._numbers = 0
        self._empty_journal()
        self.hand_process = Process("by-hand")
        self.hand = self.context(self.hand_process)
        """A process that never stops at a point: for the steps of a test itself."""

    # Time

    def pass_time(self, milliseconds: int) -> None:
        """Let time pass: requests arrive, leases of living processes are renewed, those of others run out."""
        target_ms = self.clock.now_ms() + milliseconds
        while (left_ms := target_ms - self.clock.now_ms()) > 0:
            arrival_ms = self.exchange.next_arrival_ms()
            step_ms = min(left_ms, 1_000)
            if arrival_ms is not None and arrival_ms > self.clock.now_ms():
                step_ms = min(step_ms, arrival_ms - self.clock.now_ms())
            self.clock.advance(step_ms)
            self.exchange.settle_arrivals()
            self._renew_leases()

    def _renew_leases(self) -> None:
        for token, (process, name) in list(self.leases.items()):
            if process.is_dead or process.is_finished:
                del self.leases[token]
            elif not process.is_frozen and self.redis.get(name) == f"L:{token}".encode():
                self.redis.set(name, f"L:{token}", px=LEASE_MS)

    def local_ms(self) -> int:
        """Return what this machine takes the time for."""
        return self.clock.now_ms() + self.local_ahead_ms

    # Processes

    def start(self, name: str, work: Callable[[ExecutionContext], object]) -> Process:
        """Start a process that does `work`; it stands before its first point."""
        self._numbers += 1
        process = Process(f"{name}-{self._numbers}", lambda: str(work(context)))
        context = self.context(process)
        self.processes.append(process)
        return process

    def worker(self, key: str) -> Process:
        """Start a worker on an order or a cancel."""
        return self.start(f"worker:{key}", lambda context: work_on(context, key))

    def early_worker(self, key: str) -> Process:
        """Start a worker whose admission comes with the beginning of its job, some time before it reads the journal."""
        return self.start(f"worker:{key}", lambda context: work_early(context, key))

    def reconciler(self, key: str) -> Process:
        """Start a reconciler on one intent."""
        return self.start(f"reconciler:{key}", lambda context: reconcile(context, key))

    def run_until(self, process: Process, where: str, **replies: str) -> None:
        """Let a process run to the first point of that name; `replies` as in `finish`.

        Raises:
            AssertionError: it never got there.
        """
        process.go()
        while not process.is_finished and process.where != where:
            process.go(replies.pop(process.where.replace(":", "_"), None))
        assert process.where == where, f"{process.name} never reached {where}: {process.result or process.error!r}"

    def finish(self, process: Process, **replies: str) -> str:
        """Let a process run to its end; `replies` answer its points (`send_place="lost"`), each once."""
        while not process.is_finished:
            process.go(replies.pop(process.where.replace(":", "_"), None))
        if process.error is not None:
            raise process.error
        assert not replies, f"{process.name} never came to {replies}"
        return process.result

    def close(self) -> None:
        """End every process."""
        for process in self.processes:
            if not process.is_finished:
                process.kill()

    def context(self, process: Process) -> ExecutionContext:
        """Return the dependencies of one process."""
        redis = cast("Redis", RedisOf(self, process))
        gateway = cast("ExchangeGateway", SimulatedGateway(self.exchange, process, self.clock))
        return ExecutionContext(
            owner=process.name,
            account="main",
            mode="paper",
            config_hash="simulated",
            clock=ClockOf(self),
            journal=cast("Journal", JournalOf(self, process)),
            delivery=cast("Delivery", DeliveryOf(self, process)),
            admission=Admission(redis, NAMES, owner=process.name, lease_ttl_ms=LEASE_MS),
            guard=SideEffectGuard(redis, NAMES, lease_ttl_ms=LEASE_MS, result_ttl_s=259_200),
            pause=Pause(redis, NAMES),
            breakers=Breakers(redis, NAMES, BreakerPolicy(mode=GateMode.OFF)),
            rate=RateGate(redis, NAMES, RatePolicy(mode=GateMode.OFF)),
            read_kill_key=lambda: kill_switch.read_key(redis, NAMES.kill_switch),
            gateway=gateway,
            exchange_clock=ExchangeClock(gateway, self.clock),
            rules=cast("RulesCache", None),
            books=JournalBooks("main"),
            record=cast("Recorder", RecorderOf(self)),
            leases=cast("LeaseKeeper", LeasesOf(self, process)),
            jitter=lambda limit: limit,
            symbols={Venue.USDM: (SYMBOL,)},
            faults=cast("Faults", FaultsOf(self, process)),
        )

    # The journal, seen from outside

    def enqueue(self, intent: OrderIntent | CancelIntent) -> str:
        """Write an intent as the producer does."""
        with self.journal.write() as connection:
            intents.insert(connection, [TERMS.row(intent, self.local_ms())])
        return intent.key

    def order(self, key: str = "k1", **changes: Any) -> str:
        """Enqueue an order: BUY 1 at the market unless told otherwise."""
        fields: dict[str, Any] = {"symbol": SYMBOL, "side": "BUY", "quantity": Decimal(1)} | changes
        return self.enqueue(OrderIntent(key=key, **fields))

    def row(self, key: str = "k1") -> IntentRow:
        with self.journal.read() as connection:
            return intents.load(connection, key)

    def rows(self) -> list[IntentRow]:
        with self.journal.read() as connection:
            query = select(schema.intents).order_by(schema.intents.c.key)
            return [intent_row(row) for row in connection.execute(query)]

    def attempts(self, key: str = "k1") -> list[AttemptRow]:
        with self.journal.read() as connection:
            return attempts.of_intent(connection, key)

    def executions(self, key: str = "k1") -> int:
        """Return how many orders the exchange took for an intent."""
        return len(self.exchange.executions(self.row(key).client_order_id or ""))

    def alarms(self, name: str) -> int:
        """Return how often an alarm was raised."""
        return self.events.count(f"alarm_{name}")

    def set_kill_state(self, state: str) -> None:
        """Latch the kill switch in the journal."""
        with self.journal.write() as connection:
            wanted = Change(source=KillSource.OPERATOR, state=KillState(state), actor="test", reason="test")
            kill_latches.change(connection, wanted, now_ms=self.clock.now_ms())

    def snapshot(self) -> dict[Table, list[dict[str, Any]]]:
        """Return everything in the journal, as a backup would hold it."""
        with self.journal.read() as connection:
            return {
                table: [dict(row) for row in connection.execute(select(table)).mappings()]
                for table in schema.metadata.sorted_tables
            }

    def roll_back(self, backup: Mapping[Table, Sequence[Mapping[str, Any]]]) -> None:
        """Put a backup in the journal's place, and begin the new epoch that a restore begins."""
        with self.journal.write() as connection:
            self.watch.rolling_back(connection)
            epoch = meta.load(connection).epoch
            for table in reversed(schema.metadata.sorted_tables):
                connection.execute(table.delete())
            for table, rows in backup.items():
                for row in rows:
                    connection.execute(table.insert().values(**row))
            connection.execute(schema.journal_meta.update().values(epoch=epoch))
            restore.new_epoch(connection, now_ms=max(self.local_ms(), self.clock.now_ms()))

    # What many scripts need

    def reconcile_for(self, seconds: int, *, key: str = "k1") -> None:
        """Let time pass with somebody asking every second."""
        for _ in range(seconds):
            self.pass_time(1_000)
            self.finish(self.worker(key))

    def resend_reduction(self, first: str) -> None:
        """Bring a reduce-only order to its second attempt: the only kind that is sent again without a witness."""
        self.order(reduce_only=True, side="SELL")
        self.exchange.stuck_at_ms = dict.fromkeys(QUERIES, self.clock.now_ms() - 1)
        self.finish(self.worker("k1"), send_place=first)
        for _ in range(60):
            if self.row().state is not IntentState.RETRY_WAIT:
                self.reconcile_for(1)

    # What goes on by itself: sweeper, reconciler and the workers of the other queues

    def settle(self, *, rounds: int = 100) -> None:
        """Let the system run without faults until nothing is left to do, or `rounds` are over."""
        for _ in range(rounds):
            self.round()
            waiting = [row.run_at_ms for row in self.rows() if row.run_at_ms is not None and not _is_stuck(row)]
            if not waiting and not self._work():
                return
            soonest_ms = min(waiting, default=0) - self.local_ms()
            self.pass_time(min(max(soonest_ms, 1_000), 5_000))

    def round(self, *, is_sweeping: bool = True) -> None:
        """Do once what sweeper, reconciler and workers would do now; what has nothing to look at is left out."""
        context = self.hand
        now_ms = self.local_ms()
        with contextlib.suppress(StoreUnavailableError):
            for row in self.rows():
                if row.run_at_ms is not None and row.run_at_ms <= now_ms:
                    work_on(context, row.key)
            if not self.exchange.orders:
                return
            follow_orders(context)
            if is_sweeping:
                sweep(context)
            if self.exchange.trades:
                fetch_all_fills(context)

    def _work(self) -> list[followups.Followup]:
        with self.journal.read() as connection:
            late = followups.overdue(connection, now_ms=self.local_ms() + 3_600_000, limit=500)
        return [one for one in late if one.kind == "fetch_fills"]

    def _empty_journal(self) -> None:
        with self.journal.write() as connection:
            for table in reversed(schema.metadata.sorted_tables):
                connection.execute(table.delete())
        meta.claim(self.journal, account="main", mode="paper", now_ms=self.clock.now_ms())
        with self.journal.write() as connection:
            JournalBooks("main").book_opening(
                connection,
                venue=Venue.USDM,
                balances=[],
                positions=[],
                watermarks={SYMBOL: -1},
                now_ms=self.clock.now_ms(),
            )


def _is_stuck(row: IntentRow) -> bool:
    return row.state is IntentState.QUARANTINED or (row.reason or "").endswith("the order is QUARANTINED")


def work_on(context: ExecutionContext, key: str) -> str:
    """Do what a worker does with a key."""
    with context.journal.read() as connection:
        kind = intents.load(connection, key).type
    return run_cancel(context, key) if kind == "cancel" else run_order(context, key)


def work_early(context: ExecutionContext, key: str) -> str:
    """Do what a worker does with a key that it has begun behind another: it knows an epoch, and asks in the dark."""
    with context.journal.read() as connection:
        row, stamp = standing.look(connection, key)
    if row.type != "order" or row.venue is None:
        return work_on(context, key)
    kind, at_s = kind_of(row), context.clock.monotonic()
    answer = context.admission.ask("order", key, kind=kind, venue=row.venue)
    token = answer.token if isinstance(answer, Admitted) else Token("")
    context.early.ahead = Ahead(
        at_s=at_s, kill_epoch=stamp.kill_epoch, kind=kind, venue=row.venue, key=key, token=token, answer=answer
    )
    try:
        return run_order(context, key)
    finally:
        if context.early.ahead is not None:
            context.end_early(context.early.ahead)


def reconcile(context: ExecutionContext, key: str) -> str:
    """Do what the reconciler does with an intent that is due."""
    with context.journal.read() as connection:
        row = intents.load(connection, key)
    return reconcile_row(context, row) if row.state in DOUBTFUL and row.type == "order" else "not in doubt"


def follow_orders(context: ExecutionContext) -> str:
    """Follow what rests at the exchange."""
    for (venue, symbol), rows in live_symbols(context).items():
        follow_symbol(context, venue, symbol, rows, Spent(weight={}))
    return "followed"


def sweep(context: ExecutionContext) -> str:
    """Sweep the trades and the open orders of the symbol."""
    count = sweep_trades(context, Venue.USDM, SYMBOL, Spent(weight={}))
    sweep_orders(context, Venue.USDM, SYMBOL, Spent(weight={}))
    return f"{count} trades"


def fetch_all_fills(context: ExecutionContext) -> str:
    """Do every due follow-up of the kinds that execution has."""
    now_ms = context.clock.now_ms()
    with context.journal.read() as connection:
        due = [
            *followups.open_of_kind(connection, "fetch_fills", now_ms=now_ms + 5_000, limit=100),
            *followups.open_of_kind(connection, "verify_single", now_ms=now_ms, limit=100),
        ]
    for one in due:
        if one.kind == "fetch_fills":
            fetch_fills(context, one)
        else:
            verify_single(context, one)
    return f"{len(due)} follow-ups"
