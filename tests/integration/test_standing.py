"""What decides about a dispatch, and the connections it is read on: behind locks, restarts and other sessions."""

import contextlib
import threading
import time
from collections.abc import Iterator

import pytest
from sqlalchemy import text

from app.job_safety.errors import StoreUnavailableError
from app.job_safety.kill_switch import KillSource, KillState
from app.job_safety.state import IntentState
from app.journal import intents, kill_latches, meta, migrate, standing
from app.journal.engine import Journal
from app.journal.intents import NewIntent
from app.journal.kill_latches import Change
from app.journal.standing import Standing

CLOSING = (IntentState.QUARANTINED,)
HALT = Change(source=KillSource.OPERATOR, state=KillState.HALT, actor="a person", reason="a test", config_hash="c")


@pytest.fixture
def journal(postgres_url: str) -> Iterator[Journal]:
    opened = opened_at(postgres_url)
    yield opened
    opened.close()


def opened_at(url: str) -> Journal:
    journal = Journal(url)
    migrate.upgrade(journal)
    meta.claim(journal, account="main", mode="paper", now_ms=1)
    return journal


def new(key: str) -> NewIntent:
    return NewIntent(
        key=key, type="order", queue="orders", content="{}", content_hash=key, opens_risk=True, created_at_ms=1,
        run_at_ms=1, venue="usdm", symbol="BTCUSDT", client_order_id=f"fo-{key}",
    )  # fmt: skip


def terminate_all_sessions(url: str) -> None:
    others = "datname = current_database() AND pid <> pg_backend_pid()"
    with contextlib.closing(Journal(url)) as journal, journal.read() as connection:
        connection.execute(text(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}"))


def test_connections_of_before_a_restart_cost_one_failure_each_and_no_more(journal: Journal, postgres_url: str) -> None:
    for enter in (journal.look, journal.read, journal.write):
        with enter() as connection:
            assert meta.load(connection).account == "main"
    terminate_all_sessions(postgres_url)
    for enter in (journal.look, journal.write):  # what reads in a transaction shares the connection of what writes
        with pytest.raises(StoreUnavailableError), enter() as connection:
            meta.load(connection)
        with enter() as connection:
            assert meta.load(connection).account == "main"
    with journal.read() as connection:
        assert meta.load(connection).account == "main"


def test_order_that_was_quarantined_while_the_stamp_was_waited_for_closes_the_symbol(
    journal: Journal, postgres_url: str
) -> None:
    with journal.write() as connection:
        intents.insert(connection, [new("a"), new("b")])
        for after in (IntentState.DISPATCHED, IntentState.IN_DOUBT):
            assert intents.move(connection, intents.load(connection, "b"), after, now_ms=1, attempt=1)
    held: list[Standing] = []

    def hold() -> None:
        with contextlib.closing(Journal(postgres_url)) as other, other.write() as connection:
            held.append(standing.hold(connection, "a", closing=CLOSING))

    waiting = threading.Thread(target=hold)
    with journal.write() as connection:
        kill_latches.lock(connection)  # a kill command that is under way
        waiting.start()
        deadline_s = time.monotonic() + 60
        while not is_anybody_waiting(postgres_url):
            assert time.monotonic() < deadline_s, "nobody waits for the stamp"
        with contextlib.closing(Journal(postgres_url)) as other, other.write() as third:
            assert intents.move(third, intents.load(third, "b"), IntentState.QUARANTINED, now_ms=2)
    waiting.join()
    assert held[0].closed_by == "b"


def test_what_was_waited_for_is_told_as_it_was_left(journal: Journal, postgres_url: str) -> None:
    """Both locks are taken by one statement, whose view of the tables is older than what it waits for."""
    with journal.write() as connection:
        intents.insert(connection, [new("a")])
    held: list[Standing] = []

    def hold() -> None:
        with contextlib.closing(Journal(postgres_url)) as other, other.write() as connection:
            held.append(standing.hold(connection, "a", closing=CLOSING))

    waiting = threading.Thread(target=hold)
    with journal.write() as connection:
        row = intents.load(connection, "a", lock=True)
        waiting.start()
        deadline_s = time.monotonic() + 60
        while not is_anybody_waiting(postgres_url):
            assert time.monotonic() < deadline_s, "nobody waits for the row"
        assert intents.touch(connection, row, now_ms=2, cancel_requested=True)
        kill_latches.change(connection, HALT, now_ms=2)
    waiting.join()
    assert held[0].row.cancel_requested
    assert (held[0].stamp.kill_state, held[0].stamp.kill_epoch) == ("HALT", 1)


def is_anybody_waiting(url: str) -> bool:
    with contextlib.closing(Journal(url)) as journal, journal.read() as connection:
        return bool(connection.execute(text("SELECT count(*) FROM pg_locks WHERE NOT granted")).scalar_one())
