"""kill -9 at every fault point: the order is at the exchange once, no intent is lost, and the books are exact.

For each kind of database there is one run. In it a process is killed at every point in turn, each time with an order of
its own; then everything is started again and has to mend what lies about. A new fault point is a new case by itself.
"""

import contextlib
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import pytest
from redis import Redis

from app.delivery import QUEUES, Parcel
from app.job_safety.faults import FaultPoint
from app.journal.rows import AttemptRow
from tests.support.nursery import Nursery
from tests.support.paper_process import PaperProcess
from tests.support.postgres import Postgres
from tests.support.redis_server import RedisServer
from tests.support.system import System, system

CHAIN: Sequence[tuple[str, ...]] = (
    *(("worker", queue, "--burst") for queue in ("orders", "positions", "ledger", "pnl", "signals", "urgent")),
    ("sweeper", "--once"),
    ("reconciler", "--once"),
)
"""Every process that can come by a fault point, in the order in which an order meets them."""

QUIET = "quiet"
BEFORE_DISPATCH = {
    FaultPoint.BEFORE_ADMISSION,
    FaultPoint.AFTER_ADMISSION,
    FaultPoint.IN_DISPATCH_TRANSACTION,
}


@dataclass(slots=True, kw_only=True)
class Run:
    """What happened in one run. `killed` holds, for each point, how the process that met it ended."""

    here: System
    killed: dict[FaultPoint, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    stuck: str = ""

    def marker(self, point: FaultPoint) -> Path:
        """The file that is there if the fault has struck."""
        return self.here.folder / f"struck-{point.value}"


def key_of(point: FaultPoint) -> str:
    return f"killed-{point.value}"


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis")).start()
    yield server
    server.kill()


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def run(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, redis: RedisServer, nursery: Nursery
) -> Iterator[Run]:
    folder = tmp_path_factory.mktemp(request.param)
    redis.renew()
    with contextlib.ExitStack() as stack:
        exchange = stack.enter_context(
            PaperProcess(folder / "exchange", "--price", "BTCUSDT=20000", "--price", "ETHUSDT=1000")
        )
        url = f"sqlite:///{folder / 'journal.db'}"
        if request.param == "postgres":
            postgres: Postgres = request.getfixturevalue("postgres_server")
            url = stack.enter_context(postgres.fresh_database())
        here = stack.enter_context(
            system(folder / "system", redis=redis, database_url=url, exchange=exchange, nursery=nursery)
        )
        yield mended(here)


def mended(here: System) -> Run:
    """Kill a process at every point, start everything again, and wait until nothing moves any more."""
    run = Run(here=here)
    for point in FaultPoint:
        # Valid for as long as the slowest machine takes to come back: expiring is what the quiet order is for.
        here.order(key_of(point), valid_for_s=600)
        run.killed[point] = kill_at(run, point)
    lose_quiet_order(run)
    deliver_again(here, [key_of(point) for point in FaultPoint])
    here.start_all()
    try:
        witness_until_booked(here, [key_of(point) for point in FaultPoint])
        here.wait_until_booked(QUIET)
    except AssertionError as error:
        run.stuck = str(error)  # what is wrong with which order is told by the tests
    run.problems = here.problems()
    return run


def kill_at(run: Run, point: FaultPoint) -> int:
    """Run one process after the other until one meets the point; return how that one ended."""
    marker = run.marker(point)
    for role, *arguments in CHAIN:
        code = run.here.run(role, *arguments, faults=f"{point.value}=kill@{marker}")
        if marker.exists():
            return code
    return 0


def lose_quiet_order(run: Run) -> None:
    """Lose an order before it is sent, on a symbol where nothing else happens: there will be no witness."""
    run.here.order(QUIET, symbol="ETHUSDT", quantity="0.500", valid_for_s=6)
    marker = run.here.folder / "struck-quiet"
    faults = f"{FaultPoint.BEFORE_SEND.value}=kill@{marker}"
    assert run.here.run("worker", "orders", "--burst", faults=faults) == -signal.SIGKILL


def deliver_again(here: System, keys: Sequence[str]) -> None:
    """Let a worker meet every order again while nobody sweeps or reconciles: it has to see by itself what it may do."""
    with here.redis.client() as client:
        here.until(lambda: not any(_leases(client)), "the leases of the dead to run out")
    here.installation.delivery.deliver([Parcel(key=key, type="order", queue="orders") for key in keys], force=True)
    assert here.run("worker", "orders", "--burst") == 0


def _leases(client: Redis) -> Iterator[str]:
    for name in client.scan_iter("idempotency:effect:*"):
        if str(client.get(name)).startswith("L:"):
            yield name


def witness_until_booked(here: System, keys: Sequence[str]) -> None:
    """Go on trading on the symbol, as an account in use does: each order is a witness for those before it."""
    count = 0

    def look() -> bool:
        nonlocal count
        if all(here.row(key).booked_at_ms is not None for key in keys):
            return True
        if count == 0 or here.row(f"witness-{count}").booked_at_ms is not None:
            count += 1
            here.order(f"witness-{count}", quantity="0.005")
        return False

    here.until(look, "the orders of the killed workers to be booked")
    here.wait_until_booked(*(f"witness-{number}" for number in range(1, count + 1)))


def sent(run: Run, point: FaultPoint) -> list[AttemptRow]:
    """Return the attempts of an order, without those that a slow machine held back."""
    return [attempt for attempt in run.here.attempts(key_of(point)) if attempt.outcome != "NOT_SENT"]


@pytest.mark.parametrize("point", FaultPoint)
def test_order_is_placed_once_and_booked_when_its_worker_is_killed(run: Run, point: FaultPoint) -> None:
    assert run.marker(point).exists(), f"no process came by {point}: give it one, or take the point away"
    assert run.killed[point] == -signal.SIGKILL
    row = run.here.row(key_of(point))
    assert len(run.here.exchange.orders_of(row.client_order_id)) == 1
    assert row.state == "FILLED"
    assert row.booked_at_ms is not None
    assert run.here.exchange.executed(row.client_order_id) == Decimal("0.010")


def test_books_are_exact_and_nothing_is_unexplained_after_all_of_them(run: Run) -> None:
    assert run.problems == []
    assert run.stuck == ""


@pytest.mark.parametrize("point", [FaultPoint.AFTER_DISPATCH_COMMIT, FaultPoint.BEFORE_SEND])
def test_lost_order_is_sent_again_only_after_its_absence_was_proven(run: Run, point: FaultPoint) -> None:
    first, second = sent(run, point)
    assert (first.outcome, second.outcome) == ("ABSENT", "ACCEPTED")
    assert "witness_order_id" in (first.evidence or "")
    (order,) = run.here.exchange.orders_of(second.client_order_id)
    assert order["accepted_ms"] > first.fence_ms


@pytest.mark.parametrize("point", [one for one in FaultPoint if one not in BEFORE_DISPATCH])
def test_no_order_that_reached_the_exchange_is_sent_a_second_time(run: Run, point: FaultPoint) -> None:
    sent_again = point in {FaultPoint.AFTER_DISPATCH_COMMIT, FaultPoint.BEFORE_SEND}
    assert len(sent(run, point)) == (2 if sent_again else 1)


def test_lost_order_on_a_quiet_symbol_expires_and_is_never_sent_again(run: Run) -> None:
    row = run.here.row(QUIET)
    assert (row.state, row.attempt) == ("EXPIRED", 1)
    assert run.here.exchange.orders_of(row.client_order_id) == []
    (attempt,) = run.here.attempts(QUIET)
    assert attempt.outcome == "ABSENT"


def test_every_queue_is_part_of_the_chain() -> None:
    assert {arguments[0] for role, *arguments in CHAIN if role == "worker"} == set(QUEUES)
