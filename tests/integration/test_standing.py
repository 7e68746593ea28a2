"""What decides about a dispatch, and the connections it is read on: behind locks, restarts and other sessions."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal

import pytest
from sqlalchemy import Connection, text

from app.job_safety.errors import InvariantViolatedError, StoreUnavailableError
from app.job_safety.kill_switch import KillSource, KillState
from app.job_safety.state import IntentState
from app.journal import intents, kill_latches, meta, migrate, restore, schema, sql, standing
from app.journal.engine import Journal
from app.journal.intents import NewIntent
from app.journal.kill_latches import Change
from app.journal.prepared import Bound, counts_if_first, counts_of
from app.journal.standing import Standing
from app.settings import MOST_THREADS

CLOSING = (IntentState.QUARANTINED,)
HALT = Change(source=KillSource.OPERATOR, state=KillState.HALT, actor="a person", reason="a test", config_hash="c")


@pytest.fixture
def journal(postgres_url: str) -> Iterator[Journal]:
    opened = opened_at(postgres_url)
    yield opened
    opened.close()


@pytest.fixture
def either(database_url: str) -> Iterator[Journal]:
    opened = opened_at(database_url)
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


def test_connections_of_before_a_restart_cost_one_failure_and_no_more(journal: Journal, postgres_url: str) -> None:
    for enter in (journal.look, journal.read, journal.write):
        with enter() as connection:
            assert meta.load(connection).account == "main"
    terminate_all_sessions(postgres_url)
    with pytest.raises(StoreUnavailableError), journal.look() as connection:
        meta.load(connection)
    for enter in (journal.look, journal.write, journal.read):
        with enter() as connection:
            assert meta.load(connection).account == "main"


@pytest.mark.parametrize("how", ["read", "look"])
def test_each_thread_that_a_process_may_have_gets_a_connection_while_all_others_hold_theirs(
    either: Journal, how: str
) -> None:
    all_hold_one = threading.Barrier(MOST_THREADS, timeout=20)

    def hold(_: int) -> str:
        with getattr(either, how)() as connection:
            all_hold_one.wait()
            return meta.load(connection).account

    with ThreadPoolExecutor(MOST_THREADS) as threads:
        assert set(threads.map(hold, range(MOST_THREADS))) == {"main"}


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


def dispatching(journal: Journal, key: str) -> Bound:
    """Return the move to DISPATCHED that insists on what stands in the journal now."""
    with journal.look() as connection:
        row, stamp = standing.look(connection, key)
    looked = Standing(row=row, stamp=stamp, has_proof=False, closed_by=None)
    move, _ = intents.moving(row, IntentState.DISPATCHED, now_ms=9, attempt=1, fence=7)
    return standing.unless_changed(move, looked, closing=CLOSING)


def touch(connection: Connection, **changes: object) -> None:
    assert intents.touch(connection, intents.load(connection, "a"), now_ms=2, **changes)


def move_it(connection: Connection) -> None:
    assert intents.move(connection, intents.load(connection, "a"), IntentState.EXPIRED, now_ms=2)


def raise_its_fence(connection: Connection) -> None:
    touch(connection, fence=3)


def ask_to_cancel(connection: Connection) -> None:
    touch(connection, cancel_requested=True)


def shorten_its_validity(connection: Connection) -> None:
    touch(connection, valid_until_ms=5)


def archive_it(connection: Connection) -> None:
    connection.execute(schema.intents.update().where(schema.intents.c.key == "a").values(content=""))


def prove_it(connection: Connection) -> None:
    sql.insert_or_ignore(
        connection, schema.proofs, key="a", order_id=1, status="NEW", executed_quantity=Decimal(0), source="a test",
        state_before="RECEIVED", recorded_at_ms=2,
    )  # fmt: skip


def quarantine_another(connection: Connection) -> None:
    for after in (IntentState.DISPATCHED, IntentState.IN_DOUBT, IntentState.QUARANTINED):
        assert intents.move(connection, intents.load(connection, "b"), after, now_ms=1, attempt=1)


def halt(connection: Connection) -> None:
    kill_latches.change(connection, HALT, now_ms=2)


def halt_and_run(connection: Connection) -> None:
    halt(connection)
    kill_latches.change(connection, replace(HALT, state=KillState.RUN), now_ms=3)


def halt_by_hand(connection: Connection) -> None:
    connection.execute(schema.journal_meta.update().values(kill_state="HALT"))


def begin_an_epoch(connection: Connection) -> None:
    restore.new_epoch(connection, now_ms=2)


@pytest.mark.parametrize(
    "change",
    [
        move_it,
        raise_its_fence,
        ask_to_cancel,
        shorten_its_validity,
        archive_it,
        prove_it,
        quarantine_another,
        halt,
        halt_and_run,
        halt_by_hand,
        begin_an_epoch,
    ],
)
@pytest.mark.parametrize("valid_until_ms", [None, 10_000])
def test_dispatch_at_once_writes_nothing_if_anything_that_decides_has_changed(
    either: Journal, change: Callable[[Connection], None], valid_until_ms: int | None
) -> None:
    with either.write() as connection:
        intents.insert(connection, [replace(new("a"), valid_until_ms=valid_until_ms), new("b"), new("c")])
    move, control = dispatching(either, "a"), dispatching(either, "c")
    assert either.at_once(control) == []
    with either.write() as connection:
        change(connection)
    with either.read() as connection:
        left = intents.rows_from(connection.execute(schema.intents.select()).all())

    assert either.at_once(move) is None

    with either.read() as connection:
        assert intents.rows_from(connection.execute(schema.intents.select()).all()) == left


PROOFS_BEHIND_A_GATE = """
ALTER TABLE proofs RENAME TO proofs_kept;
CREATE FUNCTION proofs_behind_a_gate() RETURNS SETOF proofs_kept LANGUAGE plpgsql STABLE AS $$
BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN QUERY SELECT * FROM proofs_kept; END $$;
CREATE VIEW proofs AS SELECT * FROM proofs_behind_a_gate();
"""


def find_it(connection: Connection) -> None:
    """Take in that the exchange has it, as whoever hears of that does: with a move, whatever state it is in."""
    assert intents.move(connection, intents.load(connection, "a", lock=True), IntentState.ACCEPTED, now_ms=2)


@pytest.mark.parametrize(
    "change",
    [
        move_it,
        find_it,
        raise_its_fence,
        ask_to_cancel,
        shorten_its_validity,
        archive_it,
        halt,
        halt_and_run,
        halt_by_hand,
        begin_an_epoch,
    ],
)
def test_dispatch_at_once_sees_what_is_committed_between_its_view_of_the_tables_and_its_locks(
    journal: Journal, postgres_url: str, change: Callable[[Connection], None]
) -> None:
    with journal.write() as connection:
        intents.insert(connection, [new("a")])
        connection.execute(text(PROOFS_BEHIND_A_GATE))
    move = dispatching(journal, "a")
    did: list[object] = []
    under_way = threading.Thread(target=lambda: did.append(journal.at_once(move)))
    with contextlib.closing(Journal(postgres_url)) as other, other.engine.connect() as gate:
        gate.execute(text("SELECT pg_advisory_lock(1)"))
        under_way.start()
        deadline_s = time.monotonic() + 60
        while not is_anybody_waiting(postgres_url):
            assert time.monotonic() < deadline_s, "the dispatch does not wait at the gate"
        with other.write() as connection:
            change(connection)
        gate.execute(text("SELECT pg_advisory_unlock(1)"))
        under_way.join(60)
    assert did == [None]


def test_dispatch_at_once_insists_on_nothing_that_speaks_against_it(either: Journal) -> None:
    with either.write() as connection:
        intents.insert(connection, [new("a")])
        stands = standing.hold(connection, "a", closing=CLOSING)
    move, _ = intents.moving(stands.row, IntentState.DISPATCHED, now_ms=9, attempt=1)
    for against in (replace(stands, has_proof=True), replace(stands, closed_by="b")):
        with pytest.raises(InvariantViolatedError, match="speaks against"):
            standing.unless_changed(move, against, closing=CLOSING)


def test_change_that_is_kept_open_can_be_broken_off_behind_its_statements(either: Journal) -> None:
    with either.write() as connection:
        intents.insert(connection, [new("a")])
    move = dispatching(either, "a")

    def broken_off(connection: Connection) -> None:
        assert counts_if_first(connection, move) == []
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        either.make(broken_off, kept_open=True)
    assert either.make(lambda connection: counts_if_first(connection, move), kept_open=True) == []
    assert either.make(lambda connection: counts_if_first(connection, move), kept_open=True) is None


def test_dispatch_at_once_waits_for_nobody(journal: Journal, postgres_url: str) -> None:
    """What it reads would be older than what it waited for."""
    with journal.write() as connection:
        intents.insert(connection, [new("a")])
    move = dispatching(journal, "a")
    with contextlib.closing(Journal(postgres_url)) as other:
        with other.write() as connection:
            intents.load(connection, "a", lock=True)
            assert journal.at_once(move) is None
        with other.write() as connection:
            kill_latches.lock(connection)
            assert journal.at_once(move) is None
        with other.write() as connection:  # another dispatch holds the stamp as this one does
            meta.load(connection, share=True)
            assert journal.at_once(move) == []


def test_dispatch_at_once_keeps_a_kill_command_waiting_until_it_is_committed(
    journal: Journal, postgres_url: str
) -> None:
    with journal.write() as connection:
        intents.insert(connection, [new("a")])
    move = dispatching(journal, "a")
    with contextlib.closing(Journal(postgres_url)) as other, journal.write() as connection:
        assert counts_of(connection, move) == [1]
        with pytest.raises(StoreUnavailableError, match="could not obtain lock"), other.write() as killing:
            killing.execute(text("SELECT 1 FROM journal_meta FOR UPDATE NOWAIT"))


def is_anybody_waiting(url: str) -> bool:
    with contextlib.closing(Journal(url)) as journal, journal.read() as connection:
        return bool(connection.execute(text("SELECT count(*) FROM pg_locks WHERE NOT granted")).scalar_one())
