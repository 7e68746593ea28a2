"""SQLite has one writer at a time: what an order would write is made before its turn, and anew when that is old.

What several threads wait to write goes in one commit.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Connection

from app.composition import compose
from app.exchange.exchange_clock import ExchangeClock
from app.execution.context import ExecutionContext
from app.execution.order import run_order
from app.job_safety.errors import StoreUnavailableError
from app.job_safety.outcome import Venue
from app.journal.engine import Journal
from tests.support import kill
from tests.support.migrated import sqlite_url
from tests.support.nursery import Nursery
from tests.support.paper_process import PaperProcess
from tests.support.redis_server import RedisServer
from tests.support.system import System, system

SOON_S = 20
A_MOMENT_S = 0.05


@pytest.fixture
def here(tmp_path: Path, redis_server: RedisServer, redis_url: str, nursery: Nursery) -> Iterator[System]:
    with (
        PaperProcess(tmp_path / "exchange", "--price", "BTCUSDT=20000") as exchange,
        system(
            tmp_path / "system", redis=redis_server, database_url=sqlite_url(tmp_path / "journal.db"),
            exchange=exchange, nursery=nursery,
        ) as one,
    ):  # fmt: skip
        yield one


@contextlib.contextmanager
def waiting(here: System, do_meanwhile: Callable[[ExecutionContext], None]) -> Iterator[ExecutionContext]:
    """Have an order wait for another writer from its plan on, until something was done; yield who has run it."""
    here.order("first")
    assert here.run("worker", "orders", "--burst") == 0
    here.order("order", valid_for_s=600)
    context = compose(here.installation, "waiting")
    is_pinned, known = threading.Event(), context.exchange_clock

    class Told(ExchangeClock):
        def lower_bound_ms(self, venue: Venue) -> int:
            is_pinned.set()
            return known.lower_bound_ms(venue)

        def freshen(self, venue: Venue) -> None:
            known.freshen(venue)

    told = Told(context.gateway, context.clock)
    writer = Journal(here.environment["DATABASE_URL"])
    try:
        with ThreadPoolExecutor(1) as pool:
            with writer.write():
                done = pool.submit(run_order, replace(context, exchange_clock=told), "order")
                assert is_pinned.wait(SOON_S), "what it would write must be made while another one writes"
                do_meanwhile(context)
            done.result(SOON_S)
        yield context
    finally:
        writer.close()
        context.record.close()
        context.gateway.close()


def test_order_that_has_waited_long_for_its_turn_to_write_is_pinned_anew(here: System) -> None:
    """It would be held back else, as one whose timestamp is too old to be sent."""

    def take_long(context: ExecutionContext) -> None:
        context.clock.sleep(context.horizons.pin_to_send_limit_ms / 1000 + 0.1)

    with waiting(here, take_long):
        assert [attempt.outcome for attempt in here.attempts("order")] == ["ACCEPTED"]


def test_switch_that_is_thrown_while_an_order_waits_for_its_turn_to_write_stops_it(here: System) -> None:
    """The key is read once it is its turn, however short the wait was."""

    def throw(_: ExecutionContext) -> None:
        time.sleep(A_MOMENT_S)  # in which it would be read if that were done before
        here.installation.redis.set(kill.KEY, "true")

    with waiting(here, throw):
        assert here.attempts("order") == []
        assert here.exchange.orders_of(here.row("order").client_order_id) == []


def test_orders_of_a_commit_that_was_not_answered_are_not_sent_by_it_and_sent_once_afterwards(
    here: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.order("first")
    assert here.run("worker", "orders", "--burst") == 0
    keys = ("a", "b")
    for key in keys:
        here.order(key, valid_for_s=600)
    journal = here.installation.journal
    contexts = [compose(here.installation, f"deaf-{key}") for key in keys]
    lend, is_heard = journal.write, iter([False])

    @contextlib.contextmanager
    def write() -> Iterator[Connection]:
        with lend() as connection:
            yield connection
        if not next(is_heard, True):
            raise StoreUnavailableError("the answer of the commit was lost")

    with ThreadPoolExecutor(2) as pool, contextlib.closing(Journal(here.environment["DATABASE_URL"])) as other:
        with monkeypatch.context() as deaf, other.write():
            deaf.setattr(journal, "write", write)
            begun = [pool.submit(run_order, context, key) for context, key in zip(contexts, keys, strict=True)]
            deadline_s = time.monotonic() + SOON_S
            while not journal._ours.together._waiting:
                assert time.monotonic() < deadline_s, "one must wait behind the other"
                time.sleep(0.001)
        for one in begun:
            assert isinstance(one.exception(SOON_S), StoreUnavailableError)
    for context in contexts:
        context.record.close()
        context.gateway.close()

    for key in keys:
        (unsent,) = here.attempts(key)
        assert (unsent.owner, unsent.outcome, unsent.settled_by) == (f"deaf-{key}", "NOT_SENT", "own")
        assert here.exchange.orders_of(here.row(key).client_order_id) == []
    here.start_all()
    for key in keys:
        here.wait_until_booked(key)
        assert here.row(key).attempt == 2
        assert len(here.exchange.orders_of(here.row(key).client_order_id)) == 1
    assert here.problems() == []
