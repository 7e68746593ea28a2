"""The cost of work does not grow with what is finished: statements find their rows by an index, on both databases."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import text

from app.cli.dossier import collect
from app.cli.intent_pages import pages
from app.cli.waiting import wait_until_settled
from app.clock import SystemClock
from app.execution.context import ExecutionContext
from app.job_safety.state import IntentState
from app.journal import archiving
from app.journal.engine import Journal
from app.monitor import readings
from bench import history
from tests.support.clock import FakeClock
from tests.support.kill import composed
from tests.support.nursery import Nursery
from tests.support.paper_process import PaperProcess
from tests.support.redis_server import RedisServer
from tests.support.statements import Told, listening, scans, scans_planned_once
from tests.support.system import System, system
from workers import jobs, sealer
from workers.opener import Opener
from workers.reconciler import Reconciler
from workers.rescue import rescue
from workers.sweeper import run_urgent, sweep


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    one = Nursery()
    yield one
    one.close()


@dataclass(slots=True, kw_only=True)
class Worked:
    """What one pass of everything told its journal."""

    journal: Journal
    told: Told


def work(here: System) -> None:
    """Do once, in this process, what a running system does: enqueue, dispatch, book, sweep, reconcile, look."""
    with composed(here) as (context, _):
        Opener(context).step()
        here.order("filled", valid_for_s=300)
        here.order("resting", order_type="LIMIT", price="15000")
        here.cancel("cancel", "resting")
        assert here.submit({"type": "order", "key": "filled", "symbol": "BTCUSDT", "side": "BUY", "quantity": "0.010",
                            "valid_for_s": 300}).status == "duplicate"  # fmt: skip
        token = jobs.CONTEXT.set(context)
        try:
            for run, key in ((jobs.run_order, "filled"), (jobs.run_order, "resting"), (jobs.run_cancel, "cancel")):
                run(key)
            do_followups(context)
        finally:
            jobs.CONTEXT.reset(token)
        doubt(here, "doubt", context)
        sweep(context)
        run_urgent(context)
        reconciler = Reconciler(context, poll_s=0, weight_share_percent=90)
        for _ in range(2):
            reconciler.step()
        sealer.seal_batch(context)
        rescue(here.installation, "somebody-dead")
        readings.read(here.installation, here.installation.redis, {})
        look(here.installation.journal)
    assert here.row("filled").booked_at_ms is not None


def do_followups(context: ExecutionContext) -> None:
    """Do what is open, as the workers of the other queues would."""
    for _ in range(4):
        with context.journal.read() as connection:
            names = connection.execute(text("SELECT key FROM followups WHERE done_at_ms IS NULL AND kind <> 'alert'"))
            names = list(names.scalars())
        for name in names:
            jobs.run_followup(name)


def doubt(here: System, key: str, context: ExecutionContext) -> None:
    """Leave an order in doubt: its answer is lost."""
    here.exchange.faults({"action": "answer_lost_after_execution", "match": {"method": "POST", "times": 1}})
    here.order(key)
    with contextlib.suppress(Exception):
        token = jobs.CONTEXT.set(context)
        try:
            jobs.run_order(key)
        finally:
            jobs.CONTEXT.reset(token)


def look(journal: Journal) -> None:
    """Ask what people ask."""
    for states in ([], [IntentState.IN_DOUBT], [IntentState.RECEIVED, IntentState.QUARANTINED], [IntentState.FILLED]):
        for _, page in zip(range(2), pages(journal, states=states, limit=50), strict=False):
            assert page is not None
    with journal.read() as connection:
        assert collect(connection, "filled")["state"] == "FILLED"
    with contextlib.suppress(Exception):
        wait_until_settled(journal, ["filled"], timeout_s=1)


@pytest.fixture
def worked(
    tmp_path: Path, redis_server: RedisServer, redis_url: str, nursery: Nursery
) -> Iterator[Callable[..., Worked]]:
    """Yield what fills a journal with so many finished orders, and then works on it once."""
    assert redis_url
    with contextlib.ExitStack() as stack:

        def fill_and_work(database_url: str, finished: int, *, analyzed: bool = True) -> Worked:
            redis_server.renew()
            folder = tmp_path / f"with-{finished}-{analyzed}"
            exchange = stack.enter_context(
                PaperProcess(folder / "exchange", "--price", "BTCUSDT=20000", "--deposit", "futures:USDT:100000")
            )
            here = stack.enter_context(
                system(
                    folder / "system", redis=redis_server, database_url=database_url, exchange=exchange, nursery=nursery
                )
            )
            journal = here.installation.journal
            with journal.write() as connection:
                history.write(connection, finished, now_ms=here.installation.clock.now_ms())
                if analyzed:
                    connection.execute(text("ANALYZE"))
            journal.close()
            told = stack.enter_context(listening(journal))
            work(here)
            return Worked(journal=journal, told=told)

        yield fill_and_work


def test_every_statement_of_the_work_finds_its_rows_by_an_index(
    worked: Callable[..., Worked], database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A page is to be as small a part of the table as it is in a real one: else reading all of it is the better plan.
    monkeypatch.setattr(archiving, "PAGE", 50)
    done = worked(database_url, 4_000)
    old = FakeClock(SystemClock().now_ms())
    assert archiving.run(done.journal, old, older_than_ms=20 * 24 * 3_600_000, by="test", is_dry=True).archived > 1_000
    statements = dict(done.told.statements)
    for table in ("intents", "attempts", "fills", "postings", "followups"):
        assert any(table in one for one in statements), f"nothing was told of {table}"
    assert len(statements) > 60
    with done.journal.write() as connection:
        connection.execute(text("ANALYZE"))
    with done.journal.read() as connection:
        found = {one: whole for one, told in statements.items() if (whole := scans(connection, one, told))}
        assert not found, "\n\n".join(f"{one}\n  reads whole: {whole}" for one, whole in found.items())
        # Else this would pass by being blind.
        assert scans(connection, "SELECT count(*) FROM intents WHERE reason = 'x'", ())
        assert scans(connection, "SELECT f.price FROM fills AS f WHERE f.side = 'BUY' ORDER BY f.price LIMIT 1", ())


@pytest.mark.parametrize("analyzed", [True, False], ids=["with-statistics", "without-statistics"])
def test_statement_that_is_planned_once_finds_its_rows_by_an_index_whatever_is_asked(
    worked: Callable[..., Worked], postgres_url: str, *, analyzed: bool
) -> None:
    """Of a parameter the one plan knows only that most rows are alike, and finished."""
    done = worked(postgres_url, 4_000, analyzed=analyzed)
    single = {one: told for one, told in done.told.statements.items() if one in done.told.single}
    assert any("intents" in one and "ORDER BY" in one for one in single), "nobody looked for orders by their state"
    with done.journal.look() as connection:
        found = {one: whole for one, told in single.items() if (whole := scans_planned_once(connection, one, told))}
        assert not found, "\n\n".join(f"{one}\n  reads whole: {whole}" for one, whole in found.items())
        blind = "SELECT key FROM intents WHERE state = %(state)s ORDER BY created_at_ms LIMIT 9"
        assert not analyzed or scans_planned_once(connection, blind, {"state": "ACCEPTED"}), "this would pass blind"


@pytest.mark.parametrize("analyzed", [True, False], ids=["with-statistics", "without-statistics"])
def test_steps_of_the_work_do_not_grow_with_what_is_finished(
    worked: Callable[..., Worked], tmp_path: Path, *, analyzed: bool
) -> None:
    """Counted by SQLite's own machine, in hundreds: twelve times as many finished orders are a step or two more.

    Nobody runs ANALYZE on a journal in SQLite, so that the planner knows nothing of its tables.
    """
    few, many = (
        worked(f"sqlite:///{tmp_path / f'{finished}.db'}", finished, analyzed=analyzed).told.steps
        for finished in (1_000, 12_000)
    )
    grown = (many - few).most_common(3)
    assert 100 < many.total() <= few.total() * 1.2 + 20, f"statements that take more steps: {grown}"
