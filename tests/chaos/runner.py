"""Puts a system under load, breaks it as planned, lets it come to rest, and has the checkers say what is wrong."""

import contextlib
import math
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from redis.exceptions import RedisError
from sqlalchemy import and_, or_, select, update

from app.job_safety import keys
from app.job_safety.errors import StoreUnavailableError
from app.job_safety.faults import FaultPoint
from app.job_safety.state import DOUBTFUL, TERMINAL_STATES
from app.journal import attempts, schema
from app.journal.rows import IntentRow, intent_row
from app.producer import Producer, Status
from tests.chaos.checkers import Findings, check, is_given_up_rightly
from tests.chaos.recovery import Deaths, Event, events, percentile, recovery_ms
from tests.chaos.supervised import HURRY
from tests.chaos.workload import Wish, market
from tests.support.nursery import Nursery, Process
from tests.support.paper_process import PaperProcess
from tests.support.redis_server import RedisServer
from tests.support.system import System, system

CONFIG = """
exchange: {recv_window_ms: 1000, connect_timeout_ms: 500, read_timeout_ms: 1500, outer_deadline_ms: 2000}
horizons:
  fence_margin_ms: 100
  absent_spread_usdm_ms: 300
  absent_spread_spot_ms: 300
  absent_spread_algo_ms: 300
  max_read_lag_ms: 600
  healthy_for_ms: 2000
guard: {lease_ttl_ms: 1000, lease_renew_ms: 200}
sweep: {interval_ms: 100}
poll: {interval_ms: 100, weight_share: "0.9"}
"""
"""Scaled-down horizons, allowed in mode paper against a local exchange: about a third of the real ones and less."""

PRICES = ("--price", "BTCUSDT=20000", "--price", "ETHUSDT=1000", "--deposit", "futures:USDT:10000000",
          "--deposit", "spot:USDT:10000000")  # fmt: skip
LEASE_S = 1.0
POLL_S = 0.05
WITNESS_EVERY_S = 0.6
WITNESS_PATIENCE_MS = 3_000
MOST_S = 400
PAUSE_ECHO_S = 5.0
"""For how long after the end of a pause somebody may still write down that he has met it."""

GIVEN_UP = "order given up after the last refusal it may hear"


@dataclass(slots=True)
class Patience:
    """Over once nothing has moved for a while, or at the very end: a busy machine takes longer, and is not stuck."""

    seconds: float
    seen: object = None
    since: float = field(default_factory=time.monotonic)
    began: float = field(default_factory=time.monotonic)

    def is_over(self, now_seen: object) -> bool:
        """Say what is seen now; return whether that is so for too long."""
        now = time.monotonic()
        if now_seen != self.seen:
            self.seen, self.since = now_seen, now
        return now > self.since + self.seconds or now > self.began + MOST_S


@dataclass(slots=True, kw_only=True)
class Result:
    """What a run has shown."""

    findings: Findings = field(default_factory=Findings)
    struck: Counter[str] = field(default_factory=Counter)
    not_struck: list[str] = field(default_factory=list)
    recovery_ms: list[float] = field(default_factory=list)
    storm_recovery_ms: list[float] = field(default_factory=list)
    lease_recovery_ms: list[float] = field(default_factory=list)
    intents: int = 0
    kills: int = 0
    cases: set[tuple[str, str]] = field(default_factory=set)

    def add(self, more: "Result") -> None:
        """Take over what another run has shown."""
        self.findings.add(more.findings)
        self.struck.update(more.struck)
        self.not_struck += more.not_struck
        self.recovery_ms += more.recovery_ms
        self.storm_recovery_ms += more.storm_recovery_ms
        self.lease_recovery_ms += more.lease_recovery_ms
        self.intents += more.intents
        self.kills += more.kills
        self.cases |= more.cases

    @property
    def is_good(self) -> bool:
        """Whether every fault struck and nothing was found."""
        return not self.findings and not self.not_struck

    def __str__(self) -> str:
        p50, p99 = percentile(self.recovery_ms, 50), percentile(self.recovery_ms, 99)
        return (
            f"{self.intents} intents, {self.kills} kills, recovery p50 {p50} ms, p99 {p99} ms, "
            f"not struck: {self.not_struck}, struck: {dict(self.struck)}\n{self.findings}"
        )


@dataclass(slots=True)
class Arena:
    """One installation under chaos: its exchange, its stores, its supervisor, and all that it was asked for."""

    here: System
    nursery: Nursery
    folder: Path
    wishes: dict[str, Wish] = field(default_factory=dict)
    deaths: Deaths = field(default_factory=Deaths)
    supervisor: Process | None = None
    environment: dict[str, str] = field(default_factory=dict)
    workers: str = ""
    starts: int = 0
    next_witness: float = 0.0
    hurries: bool = True
    pause_ended_at: float = -math.inf

    # Who works

    def start(self, **environment: str) -> Process:
        """Start the supervisor, which starts everybody else."""
        self.environment.update(environment)
        self.starts += 1
        arguments = ["--workers", self.workers] if self.workers else []
        self.supervisor = self.nursery.start(
            "tests.chaos.supervised", arguments,
            environment={**self.here.environment, **({HURRY: "1"} if self.hurries else {}), **self.environment},
            folder=self.here.folder, name=f"supervisor-{self.starts}",
        )  # fmt: skip
        self.here.processes.append(self.supervisor)
        return self.supervisor

    def warm_up(self) -> None:
        """Trade once on both venues, so that their books are opened before anything breaks.

        Opening waits for an account that holds still, which would be measured as recovery, and the read side is made to
        lag further here than the scaled-down horizons allow for.
        """
        self.submit([market("warm-usdm"), market("warm-spot", venue="spot")])
        left = self.rest(timeout_s=60)
        assert not left, self.here._report()

    def kill_supervisor(self) -> list[int]:
        """SIGKILL the supervisor and return who its children were; they must die with it."""
        assert self.supervisor is not None
        orphans = self.children()
        self.supervisor.kill()
        return orphans

    def children(self) -> list[int]:
        """Return the process ids of the supervisor's children."""
        assert self.supervisor is not None
        with contextlib.suppress(OSError):
            return [
                int(pid)
                for pid in Path(f"/proc/{self.supervisor.pid}/task/{self.supervisor.pid}/children").read_text().split()
            ]
        return []

    def roles(self) -> dict[str, int]:
        """Return the running children by role, as the supervisor's log tells."""
        assert self.supervisor is not None
        alive = set(self.children())
        told = events([self.supervisor.log])
        return {one.fields["role"]: one.fields["pid"] for one in told
                if one.name == "child_started" and one.fields["pid"] in alive}  # fmt: skip

    def role_names(self) -> list[str]:
        """Return what kinds of children the supervisor has ever started, as its log tells."""
        told = events(sorted(self.here.folder.glob("supervisor-*.log")))
        return sorted({one.fields["role"].rpartition("-")[0] for one in told if one.name == "child_started"})

    def kill_child(self, pid: int) -> None:
        """SIGKILL one child.

        Raises:
            ProcessLookupError: it is dead already.
        """
        at_ms = time.time() * 1000
        os.kill(pid, signal.SIGKILL)
        self.deaths.by_pid[pid] = at_ms

    def stopped(self) -> list[int]:
        """Return the children that a SIGSTOP holds."""
        return [pid for pid in self.children() if _state(pid) == "T"]

    # What is asked for

    def submit(self, wishes: Sequence[Wish]) -> bool:
        """Submit wishes; those that were answered with success count from now on. Return whether all were."""
        for wish in wishes:
            try:
                answer = Producer.of(self.here.installation).submit(wish.intent)
            except StoreUnavailableError:
                return False
            assert answer.status in {Status.ACCEPTED, Status.DUPLICATE}, answer
            self.wishes[wish.key] = wish
        return True

    # Fault points

    def marker(self, point: FaultPoint) -> Path:
        """Return the file that is there once the fault has struck."""
        return self.folder / f"struck-{point.value}"

    def plan(self, action: str = "kill") -> str:
        """Return a plan that names every fault point."""
        return ",".join(f"{point.value}={action}@{self.marker(point)}" for point in FaultPoint)

    def disarm(self) -> None:
        """Let no fault point strike, by saying that all have."""
        for point in FaultPoint:
            self.marker(point).touch()

    def arm(self, points: Collection[FaultPoint]) -> None:
        """Let these points strike once each."""
        for point in points:
            self.marker(point).unlink(missing_ok=True)

    def struck(self, points: Collection[FaultPoint]) -> set[FaultPoint]:
        """Return which of the points have struck."""
        return {point for point in points if self.marker(point).exists()}

    # How it comes to rest

    def unsettled(self) -> list[IntentRow]:
        """Return what is not finished and booked."""
        table = schema.intents
        finished = table.c.state.in_([state.value for state in TERMINAL_STATES])
        query = select(table).where(or_(~finished, table.c.booked_at_ms.is_(None)))
        with self.here.installation.journal.read() as connection:
            return [row for row in map(intent_row, connection.execute(query)) if row.key in self.wishes]

    def end_pauses(self) -> None:
        """Let the time pass for which the exchange wants to be left alone.

        What has met a pause before that waits in the journal until it would have ended: for that the time passes too.
        """
        with contextlib.suppress(RedisError), self.here.redis.client() as client:
            for name in list(client.scan_iter("rate_limit:pause:*")):
                client.delete(name)
                self.pause_ended_at = time.monotonic()
        if time.monotonic() < self.pause_ended_at + PAUSE_ECHO_S:
            self._wake_up()

    def _wake_up(self) -> None:
        table, later, now_ms = schema.intents, schema.followups, self.here.installation.clock.now_ms()
        waits = and_(table.c.reason.like("snoozed: pause:%"), table.c.not_before_ms > now_ms)
        also = and_(later.c.done_at_ms.is_(None), later.c.last_error.like("pause:%"), later.c.run_at_ms > now_ms)
        with contextlib.suppress(StoreUnavailableError):
            with self.here.installation.journal.read() as connection:
                found = [
                    connection.execute(select(one.c.key).where(it)).first()
                    for one, it in ((table, waits), (later, also))
                ]
            if found == [None, None]:
                return
            with self.here.installation.journal.write() as connection:
                connection.execute(update(table).where(waits).values(not_before_ms=now_ms, run_at_ms=now_ms))
                connection.execute(update(later).where(also).values(run_at_ms=now_ms))

    def rest(self, *, timeout_s: int, beside: Callable[[], object] = lambda: None) -> list[str]:
        """Wait until everything is finished and booked, going on to trade beside it as an account in use does.

        Returns the keys that are not, once nothing has moved for `timeout_s`.
        """
        patience = Patience(timeout_s)
        while True:
            beside()
            self.end_pauses()
            with contextlib.suppress(StoreUnavailableError):
                left = self.unsettled()
                if not left or patience.is_over([(row.key, row.state, row.attempt, row.booked_at_ms) for row in left]):
                    return [row.key for row in left]
                self.witness(left)
            time.sleep(POLL_S)

    def witness(self, left: Sequence[IntentRow]) -> None:
        """Trade on every symbol where an order is in doubt, now and then.

        An order of ours on the same symbol, taken after the fence, shows that the read side is past it.
        """
        needy = [row for row in left if row.state in DOUBTFUL and row.type == "order"]
        # A machine that has not come to the last ones yet is not helped by more.
        young_ms = self.here.installation.clock.now_ms() - WITNESS_PATIENCE_MS
        is_asked = any(row.key.startswith("witness") and row.created_at_ms > young_ms for row in left)
        if needy and not is_asked and time.monotonic() >= self.next_witness:
            self.next_witness = time.monotonic() + WITNESS_EVERY_S
            for venue, symbol in sorted({(str(row.venue), str(row.symbol)) for row in needy}):
                self.submit([market(f"witness-{time.monotonic_ns()}", venue=venue, symbol=symbol)])

    def result(
        self, *, expected_alarms: Collection[str] = (), timeout_s: int = 30, may_give_up: bool = False
    ) -> Result:
        """Return what the run has shown; looks for a while, since booking may still be under way."""
        patience = Patience(timeout_s)
        while True:
            findings = check(self.here, self.wishes, expected_alarms=expected_alarms, may_give_up=may_give_up)
            if not findings or patience.is_over(str(findings)):
                break
            self.end_pauses()
            time.sleep(0.3)
        with self.here.installation.journal.read() as connection:
            tries = {key: attempts.of_intent(connection, key) for key in self.wishes}
        given_up = sum(may_give_up and is_given_up_rightly(self.here.row(key).state, tries[key]) for key in self.wishes)
        return Result(
            findings=findings,
            intents=len(self.wishes),
            recovery_ms=recovery_ms(self.told(), self.deaths, tries),
            struck=Counter({GIVEN_UP: given_up} if given_up else {}),
        )

    def told(self) -> list[Event]:
        """Return all log lines of all processes."""
        return events(sorted(self.here.folder.glob("*.log")))


@contextlib.contextmanager
def arena(
    folder: Path,
    *,
    redis: RedisServer,
    nursery: Nursery,
    database_url: str | None = None,
    workers: str = "",
    config: str = CONFIG,
    **environment: str,
) -> Iterator[Arena]:
    """Yield an installation with its exchange; nothing of ours runs yet."""
    folder.mkdir(parents=True, exist_ok=True)
    redis.renew()
    with contextlib.ExitStack() as stack:
        exchange = stack.enter_context(PaperProcess(folder / "exchange", *PRICES))
        here = stack.enter_context(
            system(
                folder / "system", redis=redis, database_url=database_url or f"sqlite:///{folder / 'journal.db'}",
                exchange=exchange, nursery=nursery, config=config, **environment,
            )
        )  # fmt: skip
        yield Arena(here=here, nursery=nursery, folder=folder, workers=workers, hurries=config == CONFIG)


def client_order_id_of(here: System, key: str) -> str:
    """Return under which id the exchange will see the order of `key`."""
    return keys.client_order_id(account=here.installation.account, mode=here.installation.mode, key=key)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""
