"""Puts a system under load, breaks it as planned, lets it come to rest, and has the checkers say what is wrong."""

import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redis.exceptions import RedisError
from sqlalchemy import or_, select

from app.job_safety import keys
from app.job_safety.errors import StoreUnavailableError
from app.job_safety.faults import FaultPoint
from app.job_safety.state import DOUBTFUL, TERMINAL_STATES
from app.journal import attempts, schema
from app.journal.rows import IntentRow, intent_row
from app.producer import Producer, Status
from tests.chaos.checkers import Findings, check
from tests.chaos.faults import LAG_MS, Mode
from tests.chaos.recovery import Deaths, Event, events, percentile, recovery_ms
from tests.chaos.workload import MAY_EXPIRE, Wish, market
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
POLL_S = 0.1


@dataclass(slots=True, kw_only=True)
class Result:
    """What a run has shown."""

    findings: Findings = field(default_factory=Findings)
    struck: Counter[str] = field(default_factory=Counter)
    not_struck: list[str] = field(default_factory=list)
    recovery_ms: list[float] = field(default_factory=list)
    intents: int = 0
    kills: int = 0
    cases: set[tuple[str, str]] = field(default_factory=set)

    def add(self, more: "Result") -> None:
        """Take over what another run has shown."""
        self.findings.add(more.findings)
        self.struck.update(more.struck)
        self.not_struck += more.not_struck
        self.recovery_ms += more.recovery_ms
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

    # Who works

    def start(self, **environment: str) -> Process:
        """Start the supervisor, which starts everybody else."""
        self.environment.update(environment)
        self.starts += 1
        arguments = ["--workers", self.workers] if self.workers else []
        self.supervisor = self.nursery.start(
            "tests.chaos.supervised", arguments, environment={**self.here.environment, **self.environment},
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

    def kill_child(self, pid: int) -> None:
        """SIGKILL one child."""
        self.deaths.by_pid[pid] = time.time() * 1000
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

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
            return [intent_row(dict(row)) for row in connection.execute(query).mappings() if row["key"] in self.wishes]

    def end_pauses(self) -> None:
        """Let the time pass for which the exchange wants to be left alone."""
        with contextlib.suppress(RedisError), self.here.redis.client() as client:
            for name in list(client.scan_iter("rate_limit:pause:*")):
                client.delete(name)

    def rest(self, *, timeout_s: int, beside: Callable[[], object] = lambda: None) -> list[str]:
        """Wait until everything is finished and booked, going on to trade beside it as an account in use does.

        Returns the keys that are not.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            beside()
            self.end_pauses()
            with contextlib.suppress(StoreUnavailableError):
                left = self.unsettled()
                if not left or time.monotonic() > deadline:
                    return [row.key for row in left]
                self.witness(left)
            time.sleep(POLL_S)

    def witness(self, left: Sequence[IntentRow]) -> None:
        """Trade on every symbol where an order is in doubt, now and then.

        An order of ours on the same symbol, taken after the fence, shows that the read side is past it.
        """
        needy = [row for row in left if row.state in DOUBTFUL and not row.key.startswith("witness")]
        if needy and time.monotonic() >= self.next_witness:
            self.next_witness = time.monotonic() + 1.5
            for venue, symbol in sorted({(str(row.venue), str(row.symbol)) for row in needy}):
                self.submit([market(f"witness-{time.monotonic_ns()}", venue=venue, symbol=symbol)])

    def result(self, *, expected_alarms: Collection[str] = (), timeout_s: int = 12) -> Result:
        """Return what the run has shown; looks for a while, since booking may still be under way."""
        deadline = time.monotonic() + timeout_s
        findings = check(self.here, self.wishes, expected_alarms=expected_alarms)
        while findings and time.monotonic() < deadline:
            time.sleep(0.3)
            findings = check(self.here, self.wishes, expected_alarms=expected_alarms)
        with self.here.installation.journal.read() as connection:
            tries = {key: attempts.of_intent(connection, key) for key in self.wishes}
        return Result(
            findings=findings, intents=len(self.wishes), recovery_ms=recovery_ms(self.told(), self.deaths, tries)
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
        yield Arena(here=here, nursery=nursery, folder=folder, workers=workers)


def client_order_id_of(here: System, key: str) -> str:
    """Return under which id the exchange will see the order of `key`."""
    return keys.client_order_id(account=here.installation.account, mode=here.installation.mode, key=key)


def matrix_round(
    one: Arena,
    chosen: Sequence[Mode],
    points: Sequence[FaultPoint],
    *,
    name: str,
    orders: int,
    venue: str = "usdm",
    timeout_s: int = 90,
) -> Result:
    """Kill a process at every point while the exchange answers in the chosen ways; wait until all is settled.

    The supervisor runs with a plan for every point. Each of the orders has one of the modes as the answer to its first
    request, in turn; when they are done, plain ones follow until every point has struck.
    """
    wishes: list[Wish] = []
    rules: list[dict[str, Any]] = []
    # First those that make everybody pause, so that they are sent while they are valid.
    turns = sorted(chosen, key=lambda mode: not mode.closes_the_venue)
    for number in range(orders):
        mode = turns[number % len(turns)]
        key = f"{name}-{number:02d}"
        # After a ban nobody sends until it is over: what may expire does so, and is never sent.
        wish = market(key, venue=venue, valid_for_s=25 if mode.closes_the_venue else 600)
        wishes.append(Wish(intent=wish.intent, ends=MAY_EXPIRE if mode.closes_the_venue else wish.ends))
        rules += mode.rules(client_order_id_of(one.here, key))
    before = set(one.wishes)
    one.here.exchange.faults(*rules)
    one.arm(points)
    assert one.submit(wishes)
    counts: Counter[str] = Counter()
    extra, all_struck_at = 0, 0.0
    started = time.monotonic()
    while time.monotonic() < started + timeout_s:
        one.end_pauses()
        now = time.monotonic()
        if not counts:
            seen = _struck_by_rule(one)
            all_struck_at = all_struck_at or (now if all(seen[mode.name] for mode in chosen) else 0.0)
            # What lags does so for a while and not for ever.
            if all_struck_at and now > all_struck_at + LAG_MS / 1000:
                counts = seen
                one.here.exchange.faults()
        left = [row for row in one.unsettled() if row.key not in before]
        one.witness(left)
        is_quiet = not left
        if counts and is_quiet and one.struck(points) == set(points):
            break
        if is_quiet:
            extra += 1
            one.submit([market(f"{name}-more-{extra}", venue=venue)])
        time.sleep(POLL_S)
    counts = counts or _struck_by_rule(one)
    one.here.exchange.faults()
    stranded = one.rest(timeout_s=60)
    struck = one.struck(points)
    result = Result(kills=len(struck))
    result.not_struck += [f"{name}: kill at {point}" for point in points if point not in struck]
    result.not_struck += [f"{name}: answer {mode.name}" for mode in chosen if not counts[mode.name]]
    result.struck.update({f"kill at {point}": 1 for point in struck})
    result.struck.update({f"answer {mode.name}": counts[mode.name] for mode in chosen})
    result.cases = {(point.value, mode.name) for point in struck for mode in chosen}
    result.findings.stranded += [f"{name}: {key}" for key in stranded]
    one.disarm()
    return result


MID_DISPATCH = (
    FaultPoint.AFTER_ADMISSION,
    FaultPoint.AFTER_DISPATCH_COMMIT,
    FaultPoint.AFTER_SEND,
    FaultPoint.IN_SETTLE_TRANSACTION,
)


def recovery_round(one: Arena, *, name: str, times: int, timeout_s: int = 30) -> Result:
    """Kill a worker in the middle of its only order, wait until all is well, and again: nothing else disturbs it."""
    result = Result()
    for number in range(times):
        point = MID_DISPATCH[number % len(MID_DISPATCH)]
        one.arm([point])
        one.submit([market(f"{name}-{number:02d}")])
        deadline = time.monotonic() + timeout_s
        while not one.struck([point]) and time.monotonic() < deadline:
            time.sleep(0.005)
        if not one.struck([point]):
            result.not_struck.append(f"{name}: kill at {point}")
            continue
        one.deaths.markers.append(one.marker(point).stat().st_mtime_ns / 1_000_000)
        result.kills += 1
        result.struck[f"kill at {point}"] += 1
        result.findings.stranded += one.rest(timeout_s=timeout_s)
    return result


def zombie_round(one: Arena, points: Sequence[FaultPoint], *, name: str, timeout_s: int = 90) -> Result:
    """Stop a worker at every point for three leases while others go on with its order, then let it go on too."""
    result = Result()
    one.arm(points)
    since: dict[int, float] = {}
    woken, count = 0, 0
    deadline = time.monotonic() + timeout_s

    def wake() -> None:
        nonlocal woken
        for pid in one.stopped():
            since.setdefault(pid, time.monotonic())
            if time.monotonic() >= since[pid] + 3 * LEASE_S:
                since.pop(pid)
                woken += 1
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    while one.struck(points) != set(points) and time.monotonic() < deadline:
        wake()
        if len(one.unsettled()) < 4:
            count += 1
            one.submit([market(f"{name}-{count:02d}")])
        time.sleep(POLL_S)
    while one.stopped() and time.monotonic() < deadline:
        wake()
        time.sleep(POLL_S)
    result.findings.stranded += one.rest(timeout_s=60, beside=wake)
    struck = one.struck(points)
    result.not_struck += [f"{name}: SIGSTOP at {point}" for point in points if point not in struck]
    if woken < len(struck):
        result.not_struck.append(f"{name}: {len(struck)} were stopped and {woken} were woken")
    result.struck.update({f"SIGSTOP at {point}": 1 for point in struck})
    one.disarm()
    return result


def _struck_by_rule(one: Arena) -> Counter[str]:
    counts: Counter[str] = Counter()
    for rule in one.here.exchange.control("GET", "faults")["rules"]:
        counts[rule["name"]] += rule["struck"]
    return counts


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""
