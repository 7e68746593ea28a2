"""The whole thing, as it really runs: Redis, journal, the local exchange over HTTP, and every worker a process.

Horizons are scaled down, which is allowed against a local exchange only, so that absence is proven within seconds.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from app.clock import SystemClock
from app.composition import compose
from app.delivery import QUEUES
from app.execution.context import ExecutionContext
from app.job_safety.state import TERMINAL_STATES, IntentState
from app.journal import attempts, intents
from app.journal.rows import AttemptRow, IntentRow
from app.producer import Producer, Status, Submission
from app.settings import load_settings
from app.wiring import Installation, open_installation
from tests.support import migrated
from tests.support.checker import Checker
from tests.support.nursery import Nursery, Process
from tests.support.paper_process import KEY, SECRET, PaperProcess
from tests.support.redis_server import RedisServer

T = TypeVar("T")

CONFIG = """
exchange:
  recv_window_ms: 2000
  pin_to_send_limit_ms: 1500
  connect_timeout_ms: 1000
  read_timeout_ms: 5000
  outer_deadline_ms: 6000
horizons:
  fence_margin_ms: 100
  absent_spread_usdm_ms: 300
  absent_spread_spot_ms: 300
  absent_spread_algo_ms: 300
  max_read_lag_ms: 600
  healthy_for_ms: 6000
guard: {lease_ttl_ms: 1000, lease_renew_ms: 200}
sweep: {interval_ms: 100}
poll: {interval_ms: 100, weight_share: "0.9"}
breaker: {open_ms: 300, open_max_ms: 1000, probe_lease_ms: 1500}
workers: {threads: 1}
"""
"""Patient where a busy machine is slow, impatient where only the other end of a wait is tested."""

POLICY = "valid_for_s: 300"


@dataclass(slots=True)
class System:
    """One installation on one account. `environment` is all that its processes are told."""

    folder: Path
    redis: RedisServer
    exchange: PaperProcess
    nursery: Nursery
    environment: dict[str, str]
    processes: list[Process] = field(default_factory=list)
    _installation: Installation | None = None
    _contexts: list[ExecutionContext] = field(default_factory=list)

    @property
    def installation(self) -> Installation:
        """The stores, as a process of this installation opens them."""
        if self._installation is None:
            settings = load_settings(self.environment, self.folder)
            self._installation = open_installation(settings, SystemClock())
        return self._installation

    def context(self, owner: str) -> ExecutionContext:
        """Return what a process of this installation works with, for use in this one; it is closed with the system."""
        one = compose(self.installation, owner)
        self._contexts.append(one)
        return one

    @property
    def checker(self) -> Checker:
        here = self.installation
        return Checker(journal=here.journal, redis=here.redis, mode=here.mode, account=here.account)

    # What is asked for

    def order(self, key: str, **changes: Any) -> str:
        """Enqueue a market order, or what `changes` make of it; return its key."""
        fields = {"type": "order", "key": key, "symbol": "BTCUSDT", "side": "BUY", "quantity": "0.010"}
        return self.enqueue({**fields, **changes})

    def cancel(self, key: str, order_key: str) -> str:
        return self.enqueue({"type": "cancel", "key": key, "order_key": order_key})

    def enqueue(self, intent: dict[str, Any]) -> str:
        """Submit an intent that must be new; return its key."""
        answer = self.submit(intent)
        assert answer.status is Status.ACCEPTED, answer
        return answer.key

    def submit(self, intent: dict[str, Any]) -> Submission:
        return Producer.of(self.installation).submit(intent)

    # Who works

    def start(self, role: str, *arguments: str, faults: str = "", **environment: str) -> Process:
        """Start a process: `worker`, `sweeper` or `reconciler`, with its arguments."""
        told = {**self.environment, **environment}
        if faults:
            told["FILLONCE_FAULTS"] = faults
        name = f"{len(self.processes):03d}-{role}-{'-'.join(arguments).strip('-')}"
        module = "workers.run" if role == "worker" else f"workers.{role}"
        one = self.nursery.start(module, arguments, environment=told, folder=self.folder, name=name)
        self.processes.append(one)
        return one

    def start_all(self) -> list[Process]:
        """Start a worker on every queue, the sweeper and the reconciler."""
        return [*(self.start("worker", queue) for queue in QUEUES), self.start("sweeper"), self.start("reconciler")]

    def run(self, role: str, *arguments: str, faults: str = "") -> int:
        """Run a process to its end; return its exit code."""
        return self.start(role, *arguments, faults=faults).wait()

    def cli(self, *arguments: str) -> str:
        """Run `fillonce` with these arguments; return all that it wrote."""
        one = self.nursery.start(
            "app.cli.main", arguments, environment=self.environment, folder=self.folder,
            name=f"{len(self.processes):03d}-cli",
        )  # fmt: skip
        self.processes.append(one)
        assert one.wait() == 0, one.tail()
        return one.words()

    # What has become of it

    def row(self, key: str) -> IntentRow:
        with self.installation.journal.read() as connection:
            return intents.load(connection, key)

    def until_taken(self, *keys: str) -> None:
        """Wait until the exchange has taken these orders: DISPATCHED alone may be a moment before they are sent."""
        ids = [self.row(key).client_order_id for key in keys]
        self.until(lambda: all(self.exchange.orders_of(one) for one in ids), "the exchange to have taken the orders")

    def attempts(self, key: str) -> list[AttemptRow]:
        with self.installation.journal.read() as connection:
            return attempts.of_intent(connection, key)

    def sent(self, key: str) -> list[AttemptRow]:
        """Return the attempts that may have left this machine.

        Not those that were kept back because too much time passed after their timestamp was pinned: how many there are
        depends on how busy the machine is.
        """
        return [one for one in self.attempts(key) if (one.outcome, one.settled_by) != ("NOT_SENT", "own")]

    def wait_for_state(self, key: str, *states: str, timeout_s: int = 60) -> IntentRow:
        """Wait until the intent is in one of `states`."""

        def look() -> IntentRow | None:
            row = self.row(key)
            return row if row.state in states else None

        return self.until(look, f"{key} to be {' or '.join(states)}", timeout_s=timeout_s)

    def wait_until_booked(self, *keys: str, timeout_s: int = 60) -> list[IntentRow]:
        """Wait until these intents are finished and booked; return their rows."""

        def look() -> list[IntentRow] | None:
            with self.installation.journal.read() as connection:
                rows = [intents.load(connection, key) for key in keys]
            done = all(row.state in TERMINAL_STATES and row.booked_at_ms is not None for row in rows)
            return rows if done else None

        return self.until(look, f"{', '.join(keys)} to be booked", timeout_s=timeout_s)

    def until(self, look: Callable[[], T | None], what: str, *, timeout_s: int = 60) -> T:
        """Poll until `look` finds something; fail with the logs' tails if it does not.

        Less often the longer it takes: what is waited for needs the processor too.
        """
        started = time.monotonic()
        while not (found := look()):
            waited_s = time.monotonic() - started
            assert waited_s < timeout_s, f"waited {timeout_s} s for {what}\n{self._report()}"
            time.sleep(min(0.02 + waited_s / 20, 0.1))
        return found

    def problems(self, *, expected_alarms: tuple[str, ...] = ()) -> list[str]:
        """Return what is not as promised, once nothing moves any more; a few looks, since booking may be under way."""
        found: list[str] = []

        def look() -> bool:
            found[:] = self.checker.problems(self.exchange.truth(), expected_alarms=expected_alarms)
            return not found

        deadline = time.monotonic() + 20
        while not look() and time.monotonic() < deadline:
            time.sleep(0.2)
        return found

    def close(self) -> None:
        """End every process and give the stores back."""
        for process in self.processes:
            process.kill()
        self.processes.clear()
        for context in self._contexts:
            context.record.close()  # or its thread goes on counting into the next test, and after the last one
            context.gateway.close()
        self._contexts.clear()
        if self._installation is not None:
            self._installation.redis.close()
            self._installation.journal.close()
            self._installation = None

    def _report(self) -> str:
        with self.installation.journal.read() as connection:
            rows = intents.in_states(connection, list(IntentState), limit=50)
        lines = [f"{row.key}: {row.state} attempt {row.attempt}: {row.reason}" for row in rows]
        return "\n".join([*lines, *(one.tail() for one in self.processes if one.words())])[-12_000:]


@contextmanager
def system(
    folder: Path,
    *,
    redis: RedisServer,
    database_url: str,
    exchange: PaperProcess,
    nursery: Nursery,
    config: str = CONFIG,
    **environment: str,
) -> Iterator[System]:
    """Yield an installation without any process yet; ends those that are running afterwards.

    A journal on SQLite that does not exist has its tables from the start. Who asks how they are made has other tests.
    """
    scheme, _, file = database_url.partition(":///")
    if scheme == "sqlite" and not Path(file).exists():
        migrated.sqlite_url(Path(file))
    (folder / "config").mkdir(parents=True)
    (folder / "config" / "config.yaml").write_text(config)
    (folder / "config" / "policy.yaml").write_text(POLICY)
    told = {
        "TRADING_MODE": "paper",
        "FILLONCE_HOME": str(folder / "home"),
        "FILLONCE_CONFIG": str(folder / "config"),
        "REDIS_URL": redis.url,
        "DATABASE_URL": database_url,
        "BINANCE_FUTURES_URL": f"{exchange.url}/fapi",
        "BINANCE_SPOT_URL": f"{exchange.url}/api",
        "BINANCE_API_KEY": KEY,
        "BINANCE_API_SECRET": SECRET,
        "PATH": "/usr/bin:/bin",
        # Several systems run at once here; who wants an exporter names a free port.
        "METRICS_PORT": "0",
        **environment,
    }
    one = System(folder=folder, redis=redis, exchange=exchange, nursery=nursery, environment=told)
    try:
        yield one
    finally:
        one.close()
