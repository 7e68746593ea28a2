"""Fillonce under test: supervisor, workers and keeper as `fillonce supervise` runs them, against the local exchange."""

import json
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import IO, Any, Final

from sqlalchemy import func, select

from app.cli.demo.killer import Killer
from app.cli.local_system import LocalSystem
from app.clock import SystemClock
from app.intents import OrderIntent
from app.job_safety.state import TERMINAL_STATES
from app.journal import schema
from app.producer import Producer
from app.settings import load_settings
from app.wiring import Installation, open_installation
from bench.peers.plan import LATENCY_MS, WORKERS, Row

SYMBOL: Final = "BTCUSDT"
VALID_FOR_S: Final = 120
"""Longer than anybody waits here: an order that expires unexecuted would count as lost."""

WARM_UP: Final = 4
START_S: Final = 60


@dataclass(slots=True)
class Ours:
    """One run in a folder of its own. A worker is killed once it has journaled an attempt whose answer is not in yet.

    That is a little earlier than for the peers, whose workers are killed only after the order was executed: here some
    die before the request has left, which is the harder case.
    """

    folder: Path
    kill_at: frozenset[int] = frozenset()
    workers: int = WORKERS
    killed: dict[str, float] = field(default_factory=dict)
    """Wall-clock time of each kill, by the key of the order that was on the wire."""
    orders: int = 0
    _due: int = 0
    _clock: SystemClock = field(default_factory=SystemClock)
    _system: LocalSystem | None = None
    _parts: "_Parts | None" = None
    _log: IO[bytes] | None = None

    def start(self) -> None:
        """Start everything, and wait until warm-up orders are booked."""
        self.folder.mkdir(parents=True)
        settings = load_settings({"FILLONCE_HOME": str(self.folder), "HOME": str(self.folder)}, self.folder)
        self._log = self.log_path.open("ab")
        self._system = system = LocalSystem(settings=settings, clock=self._clock, log=self._log)
        system.start_stores()
        system.start_exchange(["--limits", "wide", "--history", "0"])
        delay = {"action": "delay_reply_ms", "ms": LATENCY_MS, "match": {"method": "POST", "path": "/*/order"}}
        self._control("faults", {"rules": [delay]})
        installation = open_installation(system.settings, self._clock)
        self._parts = _Parts(
            installation=installation,
            producer=Producer.of(installation),
            killer=Killer(journal=installation.journal, redis=installation.redis),
        )
        system.start_supervisor(f"urgent=1,orders={self.workers}", extra={"METRICS_PORT": "0"})
        for number in range(WARM_UP):
            self._submit(f"warm-{number}", number)
        deadline_s = self._clock.monotonic() + START_S
        while self._finished() < WARM_UP:
            if self._clock.monotonic() > deadline_s:
                raise TimeoutError(f"fillonce did not start: see {self.log_path}")
            self._clock.sleep(0.05)

    @property
    def log_path(self) -> Path:
        """What the processes write."""
        return self.folder / "log.jsonl"

    def submit(self, number: int) -> None:
        """Enqueue one order."""
        self._submit(f"order-{number:05d}", number)
        self.orders += 1

    def _submit(self, key: str, number: int) -> None:
        self._running.producer.submit(
            OrderIntent(
                key=key, venue="usdm", symbol=SYMBOL, side="BUY" if number % 2 else "SELL", order_type="MARKET",
                quantity=Decimal("0.010"), valid_for_s=VALID_FOR_S,
            )
        )  # fmt: skip

    def kill_next(self) -> None:
        """Kill the next worker that is found with an order on the wire, whatever the plan says."""
        self._due += 1

    def tend(self) -> None:
        """Kill if a kill is due. Restarting is our own supervisor's work."""
        dispatched = self._dispatched() if self.kill_at else 0
        due = self._due + sum(1 for number in self.kill_at if number <= dispatched)
        if due > len(self.killed) and self._running.killer.strike():
            self.killed.setdefault(self._running.killer.keys[-1], self._clock.now_ms() / 1000)

    def killed_count(self) -> int:
        """Return how many workers have been killed."""
        return len(self.killed)

    def finished_count(self) -> int:
        """Return how many orders are finished and booked."""
        return self._finished() - WARM_UP

    def measure(self, seconds: int) -> Row:
        """Count from the exchange's own history and the journal."""
        accepted: dict[str, int] = self._control("truth")["accepted_by_client_order_id"]["futures"][SYMBOL]
        table = schema.intents.c
        with self._running.installation.journal.read() as connection:
            rows = connection.execute(select(table.client_order_id, table.state).where(table.key.like("order-%"))).all()
        states = Counter(state for _, state in rows)
        doubted = self.first_events()["in_doubt"]
        return Row(
            name="fillonce",
            settings="default",
            killed="worker (it has no children)",
            orders=self.orders,
            kills=len(self.killed),
            duplicates=sum(1 for client_order_id, _ in rows if accepted.get(client_order_id or "", 0) > 1),
            lost=self.orders - sum(1 for client_order_id, _ in rows if accepted.get(client_order_id or "")),
            stuck=self.orders - self.finished_count(),
            # A worker that was struck after its order had been settled has left nothing to go on with.
            goes_on_s=tuple(doubted[key] - at for key, at in self.killed.items() if key in doubted),
            seconds=seconds,
            note=", ".join(f"{count} {state}" for state, count in sorted(states.items())),
        )

    def first_events(self) -> dict[str, dict[str, float]]:
        """Return per event and key (or process id, as text) the wall-clock time of the first log line of that kind."""
        found: dict[str, dict[str, float]] = {"in_doubt": {}, "rescued": {}, "child_ended": {}}
        for line in self._log_lines():
            seen = found.get(line.get("event", ""))
            if seen is not None:
                at = datetime.fromisoformat(line["timestamp"]).timestamp()
                seen.setdefault(str(line.get("key", line.get("pid"))), at)
        return found

    def stop(self) -> None:
        """End everything in order."""
        if self._parts is not None:
            self._parts.installation.journal.close()
            self._parts.installation.redis.close()
        if self._system is not None:
            self._system.stop()
        if self._log is not None:
            self._log.close()

    @property
    def _running(self) -> "_Parts":
        assert self._parts is not None
        return self._parts

    def _dispatched(self) -> int:
        query = select(func.count()).select_from(schema.attempts).where(schema.attempts.c.attempt == 1)
        with self._running.installation.journal.read() as connection:
            return (connection.execute(query).scalar() or 0) - WARM_UP

    def _finished(self) -> int:
        table = schema.intents.c
        query = select(func.count()).where(
            table.state.in_([state.value for state in TERMINAL_STATES]), table.booked_at_ms.is_not(None)
        )
        with self._running.installation.journal.read() as connection:
            return connection.execute(query).scalar() or 0

    def _control(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        assert self._system is not None
        base = (self._system.settings.exchange.futures_url or "").removesuffix("/fapi")
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{base}/paper/{path}", data=data)  # noqa: S310 - loopback http
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - the same
            told: dict[str, Any] = json.load(answer)
        return told

    def _log_lines(self) -> Iterator[dict[str, Any]]:
        for line in self.log_path.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("{"):
                yield json.loads(line)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    installation: Installation
    producer: Producer
    killer: Killer
