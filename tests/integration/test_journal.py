"""The journal on both databases: schema, compare-and-set, submissions, exact decimals, audit chain, writers' lock."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, Engine, bindparam, insert, inspect, select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError

from app.job_safety.errors import (
    IllegalTransitionError,
    IntentNotFoundError,
    StoreUnavailableError,
    WrongInstallationError,
)
from app.job_safety.state import IntentState
from app.journal import attempts, audit, followups, intents, meta, migrate, restore, schema
from app.journal.engine import FileLock, Journal
from app.journal.fence import unpack
from app.journal.followups import Followup
from app.journal.intents import NewIntent, Taken
from app.journal.prepared import Bound, Prepared
from app.journal.rows import AttemptRow, IntentRow
from tests.support.attempts import insert as insert_attempt
from workers.children import MAX_DESCRIPTORS

SOON_S = 20
"""Far more than anything here takes, and less than a writer waits for another."""


@pytest.fixture
def journal(database_url: str) -> Iterator[Journal]:
    opened = Journal(database_url)
    migrate.upgrade(opened)
    meta.claim(opened, account="main", mode="paper", now_ms=1)
    yield opened
    opened.close()


def new(key: str, content: str = "{}", **changes: object) -> NewIntent:
    values: dict[str, object] = {
        "key": key,
        "type": "order",
        "queue": "orders",
        "content": content,
        "content_hash": f"hash of {content}",
        "opens_risk": True,
        "created_at_ms": 1_000,
        "run_at_ms": 6_000,
        "venue": "usdm",
        "symbol": "BTCUSDT",
        "client_order_id": f"fo-{key}",
    }
    return NewIntent(**{**values, **changes})  # type: ignore[arg-type]  # the dataclass checks at run time


def attempt(key: str, number: int, **changes: object) -> dict[str, object]:
    row = AttemptRow(
        key=key,
        attempt=number,
        owner="w1",
        fence=1,
        client_order_id=f"fo-{key}",
        timestamp_ms=10_000,
        recv_window_ms=3_000,
        payload_hash="p",
        config_hash="c",
        dispatched_at_ms=10_000,
    )
    return {**row._asdict(), **changes}


def test_migrations_make_exactly_the_tables_that_the_code_declares(empty_database_url: str) -> None:
    journal = Journal(empty_database_url)
    assert migrate.upgrade(journal) is True
    with journal.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        differences = compare_metadata(context, schema.metadata)
    journal.close()
    assert [one for one in differences if "alembic_version" not in str(one)] == []


def test_upgrading_twice_does_nothing_the_second_time(journal: Journal) -> None:
    assert migrate.upgrade(journal) is False


def test_journal_with_rows_in_it_gets_the_indexes_of_today(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(empty_database_url)
    with monkeypatch.context() as before:
        upgrade = command.upgrade
        before.setattr(command, "upgrade", lambda config, _: upgrade(config, "0006"))
        migrate.upgrade(journal)
    with journal.write() as connection:
        intents.insert(connection, [new("a"), new("b")])
        row = intents.load(connection, "a")
        assert intents.move(connection, row, IntentState.DISPATCHED, now_ms=1, attempt=1)
        connection.execute(schema.attempts.insert().values(**attempt("a", 1)))
    assert migrate.upgrade(journal) is True
    with journal.read() as connection:
        assert attempts.open_by_owner(connection) == [("w1", "a")]
        names = {one["name"] for one in inspect(connection).get_indexes("attempts")}
    journal.close()
    assert "attempts_unknown" in names
    assert "attempts_open" not in names


def test_journal_of_a_newer_version_is_refused(journal: Journal) -> None:
    with journal.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(migrate.SchemaError, match="9999"):
        migrate.upgrade(journal)


def test_two_processes_that_open_a_new_journal_at_once_both_find_it_ready(empty_database_url: str) -> None:
    def open_it(_: int) -> str:
        opened = Journal(empty_database_url)
        migrate.upgrade(opened)
        stamp = meta.claim(opened, account="main", mode="paper", now_ms=1)
        opened.close()
        return stamp.installation

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(open_it, range(4)))) == 1


@pytest.mark.parametrize(("account", "mode"), [("other", "paper"), ("main", "testnet")])
def test_journal_of_another_account_or_mode_is_refused(journal: Journal, account: str, mode: str) -> None:
    with pytest.raises(WrongInstallationError, match="belongs to account 'main' in mode 'paper'"):
        meta.claim(journal, account=account, mode=mode, now_ms=2)


def test_changes_at_once_are_all_made_or_none(journal: Journal) -> None:
    def ask(key: str) -> Bound:
        one = Followup(key=key, kind="fetch_fills", queue="positions", intent_key="a", payload={}, run_at_ms=1)
        return followups.addition(one, now_ms=1)

    with journal.write() as connection:
        intents.insert(connection, [new("a")])
        row = intents.load(connection, "a")
    move, moved = intents.moving(row, IntentState.DISPATCHED, now_ms=2, attempt=1, fence=3)
    assert journal.at_once(move, ask("first"), ask("first again")) == [1, 1]
    with journal.read() as connection:
        assert intents.load(connection, "a") == moved
        assert followups.load_open(connection, "first again") is not None
    assert journal.at_once(move, ask("second")) is None  # the row is no longer as it was read
    with journal.read() as connection:
        assert followups.load_open(connection, "second") is None
        assert intents.load(connection, "a") == moved
    doubt, _ = intents.moving(moved, IntentState.IN_DOUBT, now_ms=4)
    with pytest.raises(IntegrityError):
        journal.at_once(doubt, attempts.insertion(AttemptRow(**attempt("nobody", 1))))  # type: ignore[arg-type]
    with journal.read() as connection:
        assert intents.load(connection, "a") == moved
    assert journal.at_once(doubt) == []


def test_same_key_and_content_is_a_duplicate_and_other_content_a_conflict(journal: Journal) -> None:
    with journal.write() as connection:
        first = intents.insert(connection, [new("a"), new("b"), new("a"), new("b", "other")])
    with journal.write() as connection:
        second = intents.insert(connection, [new("a"), new("b", "other"), new("c")])
        stored = intents.load(connection, "b")
    assert first == [Taken.ACCEPTED, Taken.ACCEPTED, Taken.DUPLICATE, Taken.CONFLICT]
    assert second == [Taken.DUPLICATE, Taken.CONFLICT, Taken.ACCEPTED]
    assert stored.content == "{}"


def test_what_was_submitted_stands_in_the_journal_as_it_was(journal: Journal) -> None:
    """However the rows travel: quotes and other alphabets stay what they are, and what is not known stays NULL."""
    hard = [
        new("a", r'{"description":"\u00e9 \" \\ {},"}', is_algo=True, opens_risk=False, valid_until_ms=2**53 + 1),
        new("b", "é 漢 𝄞 ' % :key", venue=None, symbol=None, client_order_id=None, parent_key="a", leg="L"),
    ]
    with journal.write() as connection:
        assert intents.insert(connection, hard) == [Taken.ACCEPTED] * 2
        for one in hard:
            row = intents.load(connection, one.key)
            assert (row.state, row.updated_at_ms) == (IntentState.RECEIVED, one.created_at_ms)
            for name in NewIntent.__dataclass_fields__.keys() - {"description"}:
                assert getattr(row, name) == getattr(one, name), name


def test_a_key_is_accepted_in_one_of_many_submissions_at_once(journal: Journal, database_url: str) -> None:
    def submit(_: int) -> list[Taken]:
        mine = Journal(database_url)
        with mine.write() as connection:
            taken = intents.insert(connection, [new(f"k{number:03d}") for number in range(50)])
        mine.close()
        return taken

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(submit, range(4)))
    for number in range(50):
        assert sorted(taken[number] for taken in results) == [Taken.ACCEPTED] + [Taken.DUPLICATE] * 3


def test_only_one_of_two_moves_from_the_same_reading_happens(journal: Journal) -> None:
    with journal.write() as connection:
        intents.insert(connection, [new("a")])
        row = intents.load(connection, "a")
    moves = []
    for fence in (10, 11):
        with journal.write() as connection:
            moves.append(intents.move(connection, row, IntentState.DISPATCHED, now_ms=2_000, attempt=1, fence=fence))
    with journal.read() as connection:
        assert intents.load(connection, "a").fence == 10
    assert moves == [True, False]


def test_a_move_that_the_state_machine_lacks_is_refused(journal: Journal) -> None:
    with journal.write() as connection:
        intents.insert(connection, [new("a")])
        row = intents.load(connection, "a")
        intents.move(connection, row, IntentState.DISPATCHED, now_ms=2_000, attempt=1)
        dispatched = intents.load(connection, "a")
        with pytest.raises(IllegalTransitionError):
            intents.move(connection, dispatched, IntentState.EXPIRED, now_ms=3_000)


def test_unknown_key_is_an_error_of_its_own(journal: Journal) -> None:
    with journal.read() as connection, pytest.raises(IntentNotFoundError, match="nobody"):
        intents.load(connection, "nobody")


def test_second_attempt_with_one_number_fails_in_the_database(journal: Journal) -> None:
    with journal.write() as connection:
        intents.insert(connection, [new("a")])
        insert_attempt(connection, attempt("a", 1))
    with pytest.raises(IntegrityError), journal.write() as connection:
        insert_attempt(connection, attempt("a", 1))


def test_one_client_order_id_belongs_to_one_intent_in_the_database(journal: Journal) -> None:
    with journal.write() as connection:
        intents.insert(connection, [new("a")])
    row = {"key": "b", "type": "order", "state": "RECEIVED", "queue": "orders", "content": "{}"}
    more = {"content_hash": "", "client_order_id": "fo-a", "opens_risk": True, "created_at_ms": 1}
    with pytest.raises(IntegrityError), journal.write() as connection:
        connection.execute(insert(schema.intents).values(**row, **more, updated_at_ms=1))


@pytest.mark.parametrize(
    "amount",
    [
        Decimal("0.1") + Decimal("0.2"),
        Decimal("123456789.123456789123456789"),
        Decimal("0.000000000000000001"),
        Decimal("-99999999999999999999.99999999"),
        Decimal(0),
        Decimal("1E-8"),
        Decimal("1E+3"),
    ],
)
def test_decimal_survives_to_the_last_digit(journal: Journal, amount: Decimal) -> None:
    with journal.write() as connection:
        row = {"account": "wallet:usdm", "asset": "USDT", "amount": amount}
        connection.execute(insert(schema.ledger_balances).values(**row))
    with journal.read() as connection:
        stored = connection.execute(select(schema.ledger_balances.c.amount)).scalar_one()
    assert isinstance(stored, Decimal)
    assert stored == amount


@pytest.mark.parametrize("amount", [Decimal("NaN"), Decimal("Infinity")])
def test_what_is_no_amount_is_refused_before_it_reaches_the_database(journal: Journal, amount: Decimal) -> None:
    row = {"account": "wallet:usdm", "asset": "USDT", "amount": amount}
    with pytest.raises(Exception, match="NaN and infinity"), journal.write() as connection:
        connection.execute(insert(schema.ledger_balances).values(**row))


def test_followup_is_written_once_and_finished_once(journal: Journal) -> None:
    followup = Followup(key="f", kind="k", queue="ledger", intent_key=None, payload={"n": 1}, run_at_ms=5)
    with journal.write() as connection:
        added = [followups.add(connection, followup, now_ms=1) for _ in range(2)]
        finished = [followups.finish(connection, "f", now_ms=2) for _ in range(2)]
        assert followups.load_open(connection, "f") is None
    assert (added, finished) == ([True, False], [True, False])


def test_due_rows_leave_out_what_the_reconciler_looks_after(journal: Journal) -> None:
    with journal.write() as connection:
        intents.insert(connection, [new("a"), new("b"), new("c", run_at_ms=99_000)])
        row = intents.load(connection, "b")
        intents.move(connection, row, IntentState.DISPATCHED, now_ms=2_000, attempt=1, run_at_ms=6_000)
    with journal.read() as connection:
        mine = [row.key for row in intents.due_for_delivery(connection, now_ms=7_000, limit=10)]
        doubts = [row.key for row in intents.doubts_due(connection, venue="usdm", now_ms=7_000, limit=10)]
    assert (mine, doubts) == (["a"], ["b"])


def test_new_epoch_raises_every_later_fence_above_all_earlier_ones(journal: Journal) -> None:
    with journal.write() as connection:
        before = meta.raise_fence(connection, 0)
        for _ in range(3):
            before = meta.raise_fence(connection, before)
        restore.new_epoch(connection, now_ms=5)
        after = meta.raise_fence(connection, 0)
    assert after > before
    assert (unpack(before), unpack(after)) == ((1, 4), (2, 1))


def test_audit_trail_finds_changed_missing_and_swapped_rows(journal: Journal) -> None:
    with journal.write() as connection:
        for number in range(4):
            audit.append(connection, now_ms=number, actor="me", action="test", subject="s", detail={"number": number})
        assert audit.verify(connection) == []
        connection.execute(update(schema.audit).where(schema.audit.c.seq == 2).values(actor="you"))
        assert audit.verify(connection) == ["row 2 was changed"]
        connection.execute(update(schema.audit).where(schema.audit.c.seq == 2).values(actor="me"))
        connection.execute(schema.audit.delete().where(schema.audit.c.seq == 3))
        assert len(audit.verify(connection)) == 2


def test_writers_take_turns_and_none_is_lost(journal: Journal, database_url: str) -> None:
    with journal.write() as connection:
        connection.execute(insert(schema.ledger_balances).values(account="x", asset="USDT", amount=Decimal(0)))

    def add(by: Journal) -> None:
        for _ in range(20):
            with by.write() as connection:
                query = select(schema.ledger_balances.c.amount).with_for_update()
                amount = connection.execute(query).scalar_one()
                connection.execute(update(schema.ledger_balances).values(amount=amount + 1))

    other = Journal(database_url)
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(add, [journal, journal, journal, other, other, other]))
    other.close()
    with journal.read() as connection:
        assert connection.execute(select(schema.ledger_balances.c.amount)).scalar_one() == 120


def test_threads_that_open_the_journal_at_the_same_time_share_its_connections(database_url: str) -> None:
    """One that made its own would leave a connection behind that nobody closes."""
    threads, rounds = 8, 20
    at_once = threading.Barrier(threads)

    def engine_of(journal: Journal) -> Engine:
        at_once.wait(SOON_S)
        return journal.engine

    with ThreadPoolExecutor(threads) as pool:
        for _ in range(rounds):
            fresh = Journal(database_url)
            assert len(set(pool.map(engine_of, [fresh] * threads))) == 1
            fresh.close()


def test_process_that_was_forked_while_a_thread_had_the_lock_is_not_kept_out_by_it(tmp_path: Path) -> None:
    lock = FileLock(str(tmp_path / "lock"))
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        descriptor = lock.take()
        inside.set()
        leave.wait(SOON_S)
        lock.give(descriptor)

    thread = threading.Thread(target=hold)
    thread.start()
    assert inside.wait(SOON_S)
    pid = os.fork()
    if pid == 0:
        os.closerange(3, MAX_DESCRIPTORS)  # as our own children do: an inherited descriptor holds the lock on
        signal.alarm(SOON_S)
        lock.give(lock.take())
        os._exit(0)
    leave.set()
    thread.join(SOON_S)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_reader_is_not_held_up_by_a_writer(journal: Journal, database_url: str) -> None:
    inside, leave = threading.Event(), threading.Event()

    def write() -> None:
        mine = Journal(database_url)
        with mine.write() as connection:
            intents.insert(connection, [new("slow")])
            inside.set()
            leave.wait(10)
        mine.close()

    thread = threading.Thread(target=write)
    thread.start()
    assert inside.wait(10)
    with journal.read() as connection:
        found = intents.find(connection, "slow")
    leave.set()
    thread.join()
    # The writer commits only when told, or when its patience ends: a reader that waited would have found the row.
    assert found is None


def test_commit_that_was_answered_is_on_disk(journal: Journal) -> None:
    """DISPATCHED would be a promise on water otherwise: asked of the very connections that write it."""
    with journal.write() as connection:
        if journal.is_sqlite:
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2, "2 is FULL"
        else:
            assert connection.exec_driver_sql("SHOW synchronous_commit").scalar() == "on"


def test_fields_of_a_row_are_the_columns_in_their_order() -> None:
    """Rows are made of values by their place alone."""
    assert IntentRow._fields == intents.COLUMNS
    assert AttemptRow._fields == tuple(column.name for column in schema.attempts.c)


_ADD: Prepared = Prepared(
    insert(schema.ledger_balances).values(account=bindparam("to"), asset="USDT", amount=Decimal(1))
)
_ADDED: Prepared = Prepared(select(schema.ledger_balances.c.account))


def lose_transaction(journal: Journal, connection: Connection) -> None:
    """Have the database end the transaction by itself: it is gone, or can only be rolled back."""
    if journal.is_sqlite:
        connection.connection.cursor().execute("ROLLBACK")  # as it does for a full disk
        return
    driver = connection.connection.driver_connection
    assert driver is not None
    with psycopg.connect(journal.url.set(drivername="postgresql").render_as_string(False)) as other:
        other.execute("SELECT pg_terminate_backend(%s)", [driver.info.backend_pid])


def test_rest_of_a_transaction_that_was_lost_is_not_taken_for_the_whole(journal: Journal) -> None:
    """An error that nobody passed on must not turn into a commit of what came after it."""

    def write() -> None:
        with journal.write() as connection:
            _ADD.count(connection, to="first")
            lose_transaction(journal, connection)
            with contextlib.suppress(DBAPIError):
                _ADD.count(connection, to="lost")
            _ADD.count(connection, to="last")

    with pytest.raises(StoreUnavailableError):
        write()
    with journal.read() as connection:
        assert ("first",) not in _ADDED.rows(connection)


def test_transaction_with_an_error_that_nobody_passed_on_is_not_taken_for_committed(postgres_url: str) -> None:
    """PostgreSQL answers its COMMIT without an error, and rolls back."""
    journal = Journal(postgres_url)

    def write() -> None:
        with journal.write() as connection:
            _ADD.count(connection, to="first")
            with contextlib.suppress(DBAPIError):
                _ADD.count(connection, to="first")

    with pytest.raises(StoreUnavailableError):
        write()
    journal.close()


def test_venue_that_nobody_knows_is_not_read_as_none(journal: Journal) -> None:
    with journal.write() as connection:
        intents.insert(connection, [new("strange", venue="coinm")])
    with journal.read() as connection, pytest.raises(ValueError, match="coinm"):
        intents.load(connection, "strange")
