"""Orders that wait for an open circuit go on when it closes before its time; what waits for anything else does not."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis
from sqlalchemy import select, update

from app.clock import SystemClock
from app.composition import make_breakers
from app.execution.circuit_wake import BATCH, WATCH_S, CircuitWake
from app.execution.order import run_order
from app.job_safety.circuit_breaker import BreakerPolicy, BreakerState
from app.job_safety.effect import GateMode
from app.job_safety.state import IntentState
from app.journal import intents, meta, migrate, schema, snoozed
from app.journal.engine import Journal
from app.journal.intents import NewIntent
from app.observability.log import make_logger
from app.observability.recorder import Recorder
from tests.support.clock import FakeClock
from tests.support.gates import JOB, Bench
from tests.support.nursery import Nursery
from tests.support.paper_process import PaperProcess
from tests.support.redis_server import RedisServer
from tests.support.system import System, system

S = IntentState
LATER_MS = 3_600_000


@pytest.fixture
def journal(database_url: str) -> Iterator[Journal]:
    opened = Journal(database_url)
    migrate.upgrade(opened)
    meta.claim(opened, account="main", mode="paper", now_ms=1)
    yield opened
    opened.close()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def bench(redis_url: str) -> Iterator[Bench]:
    with Redis.from_url(redis_url) as redis:
        yield Bench(redis)


def wake(journal: Journal, bench: Bench, clock: FakeClock) -> CircuitWake:
    record = Recorder(make_logger(), None, SystemClock(), mode="paper", account="main")
    return CircuitWake(journal, bench.breakers, clock, record)


def put(journal: Journal, clock: FakeClock, key: str, why: str, *, state: IntentState = S.RECEIVED) -> None:
    """Journal an order that waits until much later, because of `why`."""
    until_ms = clock.now_ms() + LATER_MS
    one = NewIntent(
        key=key, type="order", queue="orders", content="{}", content_hash=key, opens_risk=True,
        created_at_ms=clock.now_ms(), run_at_ms=until_ms, venue="usdm", symbol="BTCUSDT", client_order_id=f"fo-{key}",
    )  # fmt: skip
    values = {"state": state.value, "reason": why, "run_at_ms": until_ms, "not_before_ms": until_ms, "snoozes": 1}
    with journal.write() as connection:
        intents.insert(connection, [one])
        connection.execute(update(schema.intents).where(schema.intents.c.key == key).values(**values))


def due(journal: Journal, clock: FakeClock) -> set[str]:
    with journal.read() as connection:
        rows = intents.due_for_delivery(connection, now_ms=clock.now_ms(), limit=10_000)
    assert all(row.not_before_ms <= clock.now_ms() for row in rows)
    return {row.key for row in rows}


def test_closing_brings_forward_what_that_circuit_holds_and_nothing_else(
    journal: Journal, bench: Bench, clock: FakeClock
) -> None:
    put(journal, clock, "waits", snoozed.reason_of(f"breaker:{JOB}"))
    put(journal, clock, "waits-for-its-second-try", snoozed.reason_of(f"breaker:{JOB}"), state=S.RETRY_WAIT)
    put(journal, clock, "other-circuit", snoozed.reason_of("breaker:order_spot"))
    put(journal, clock, "retry-after", snoozed.reason_of("pause:429:rate_limited"))
    put(journal, clock, "ban", snoozed.reason_of("pause:418:banned"))
    put(journal, clock, "limit", snoozed.reason_of("rate:orders"))
    put(journal, clock, "backoff", "exchange_down", state=S.RETRY_WAIT)
    put(journal, clock, "in-doubt", snoozed.reason_of(f"breaker:{JOB}"), state=S.IN_DOUBT)
    one = wake(journal, bench, clock)
    bench.breakers.override("order_spot", BreakerState.OPEN, by="anna", reason="spot stays shut")
    bench.breakers.override(JOB, BreakerState.OPEN, by="anna", reason="shut")
    assert (one.step(), due(journal, clock)) == (0, set())
    bench.breakers.reset(JOB, by="anna", reason="false alarm")
    assert one.step() == 2
    assert due(journal, clock) == {"waits", "waits-for-its-second-try"}
    assert one.step() == 0


def test_orders_are_brought_forward_in_batches_and_the_oldest_first(
    journal: Journal, bench: Bench, clock: FakeClock
) -> None:
    for number in range(BATCH + 3):
        put(journal, clock, f"k{number:03d}", snoozed.reason_of(f"breaker:{JOB}"))
    one = wake(journal, bench, clock)
    assert one.step() == BATCH
    assert due(journal, clock) == {f"k{number:03d}" for number in range(BATCH)}
    assert (one.step(), one.step()) == (3, 0)


def test_half_open_circuit_wakes_only_as_many_as_may_probe(journal: Journal, bench: Bench, clock: FakeClock) -> None:
    for number in range(9):
        put(journal, clock, f"k{number}", snoozed.reason_of(f"breaker:{JOB}"))
    one = wake(journal, bench, clock)
    bench.breakers.override(JOB, BreakerState.HALF_OPEN, by="anna", reason="they are back")
    assert one.step() == bench.breakers.policy.probes
    for _ in range(bench.breakers.policy.probes):
        bench.ask()
    assert one.step() == 0  # both permits are out: more would be blocked again


def test_snooze_that_is_journaled_after_the_circuit_closed_is_found_too(
    journal: Journal, bench: Bench, clock: FakeClock
) -> None:
    one = wake(journal, bench, clock)
    bench.breakers.override(JOB, BreakerState.OPEN, by="anna", reason="shut")
    one.step()
    bench.breakers.reset(JOB, by="anna", reason="false alarm")
    assert one.step() == 0
    put(journal, clock, "blocked-before-the-reset", snoozed.reason_of(f"breaker:{JOB}"))
    clock.sleep(WATCH_S - 1)
    assert one.step() == 1


def test_breaker_that_no_longer_blocks_lets_those_go_on_that_it_held(
    journal: Journal, bench: Bench, clock: FakeClock
) -> None:
    put(journal, clock, "waits", snoozed.reason_of(f"breaker:{JOB}"))
    bench.breakers.override(JOB, BreakerState.OPEN, by="anna", reason="shut")
    observing = Bench(bench.redis, BreakerPolicy(mode=GateMode.OBSERVE))
    assert wake(journal, observing, clock).step() == 1


@pytest.fixture
def here(tmp_path: Path, redis_server: RedisServer, redis_url: str, nursery: Nursery) -> Iterator[System]:
    del redis_url  # an empty server
    url = f"sqlite:///{tmp_path / 'journal.db'}"
    with (
        PaperProcess(tmp_path / "exchange", "--price", "BTCUSDT=20000") as exchange,
        system(tmp_path / "system", redis=redis_server, database_url=url, exchange=exchange, nursery=nursery) as one,
    ):
        yield one


def shut(here: System) -> None:
    """Shut the circuit for so long that nobody here waits for its end."""
    breakers = make_breakers(here.installation)
    breakers.override(JOB, BreakerState.OPEN, by="test", reason="shut", ttl_ms=240_000)


@pytest.mark.parametrize("how", ["close", "reset", "half-open"])
def test_order_behind_a_circuit_goes_out_when_it_closes_long_before_its_time(here: System, how: str) -> None:
    here.start_all()
    here.order("first")
    here.wait_until_booked("first")
    shut(here)
    keys = [here.order(f"late-{number}") for number in range(3)]
    for key in keys:
        here.until(lambda key=key: here.row(key).snoozes > 0, "the order to snooze")
    here.cli("circuit", how, JOB, "--reason", "ok", "--by", "anna")
    rows = here.wait_until_booked(*keys, timeout_s=100)
    assert {row.state for row in rows} == {S.FILLED}
    assert here.problems() == []


def test_command_says_how_many_orders_go_on_though_nobody_watches_circuits(here: System) -> None:
    shut(here)
    here.order("late")
    context = here.context("hand")
    assert run_order(context, "late") == f"snoozed: breaker:{JOB}"
    assert "orders that waited for a circuit and go on now: 1" in here.cli(
        "circuit", "reset", JOB, "--reason", "ok", "--by", "anna"
    )
    assert here.row("late").not_before_ms <= SystemClock().now_ms()


def test_reasons_of_snoozed_orders_are_cut_alike_wherever_they_are_written(journal: Journal, clock: FakeClock) -> None:
    put(journal, clock, "k", snoozed.reason_of("x" * 600))
    with journal.write() as connection:
        assert snoozed.bring_forward(connection, why="x" * 600, now_ms=clock.now_ms(), limit=1) == 1
        assert connection.execute(select(schema.intents.c.run_at_ms)).scalar() == clock.now_ms()
