"""Seals of attempts on both databases: whatever is done to what they cover shows, and nothing is left unsealed."""

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, delete, insert, select, text, update

from app.journal import attempt_seal_check, attempt_seals, attempts, audit, intents, meta, migrate, schema
from app.journal.attempt_seal_check import SealReport
from app.journal.engine import Journal
from app.journal.intents import NewIntent
from tests.support.attempts import insert as insert_attempt
from tests.support.kill import run_cli
from tests.support.nursery import Nursery
from tests.support.paper_process import PaperProcess
from tests.support.redis_server import RedisServer
from tests.support.system import System, system

NOW_MS = 1_795_725_870_000
A, N, R, T = schema.attempts, schema.intents, schema.attempt_seals, schema.audit


@pytest.fixture
def journal(database_url: str) -> Iterator[Journal]:
    """Seven settled attempts, sealed in two batches, and one that is open."""
    opened = Journal(database_url)
    migrate.upgrade(opened)
    meta.claim(opened, account="main", mode="paper", now_ms=1)
    for number in range(1, 8):
        settled(opened, f"k{number}")
    assert [sealed(opened, limit=4), sealed(opened, limit=4), sealed(opened, limit=4)] == [4, 3, 0]
    dispatched(opened, "open")
    yield opened
    opened.close()


def dispatched(journal: Journal, key: str, *, attempt: int = 1) -> None:
    with journal.write() as connection:
        if attempt == 1:
            content = json.dumps({"quantity": "0.010", "price": "20000.5", "key": key})
            new = NewIntent(
                key=key, type="order", queue="orders", venue="usdm", symbol="BTCUSDT", content=content,
                content_hash=f"hash of {key}", client_order_id=f"id-{key}", opens_risk=True, valid_until_ms=None,
                created_at_ms=NOW_MS, run_at_ms=None,
            )  # fmt: skip
            intents.insert(connection, [new])
        connection.execute(update(N).where(N.c.key == key).values(attempt=attempt))
        insert_attempt(
            connection,
            {
                "key": key, "attempt": attempt, "owner": "w1", "fence": attempt, "client_order_id": f"id-{key}",
                "timestamp_ms": NOW_MS, "recv_window_ms": 3_000, "payload_hash": "p", "config_hash": "c",
                "dispatched_at_ms": NOW_MS,
            },
        )  # fmt: skip


def settle(journal: Journal, key: str, *, attempt: int = 1, outcome: str = "ACCEPTED", at_ms: int = NOW_MS) -> None:
    with journal.write() as connection:
        assert attempts.settle(
            connection, key=key, attempt=attempt, outcome=outcome, by="dispatch", now_ms=at_ms, answer="FILLED 0.010"
        )


def settled(journal: Journal, key: str, *, outcome: str = "ACCEPTED", at_ms: int = NOW_MS) -> None:
    dispatched(journal, key)
    settle(journal, key, outcome=outcome, at_ms=at_ms)


def sealed(journal: Journal, *, limit: int = attempt_seals.BATCH) -> int:
    with journal.write() as connection:
        return attempt_seals.seal(connection, now_ms=NOW_MS, by="keeper", limit=limit)


def reopened(journal: Journal, key: str) -> None:
    with journal.write() as connection:
        attempts.reopen(connection, key, now_ms=NOW_MS, by="w1", why="refused after it was declared absent")


def verified(journal: Journal, *, now_ms: int = NOW_MS) -> SealReport:
    with journal.read() as connection:
        trail = audit.verify(connection)
    report = attempt_seal_check.verify(journal, now_ms=now_ms)
    return attempt_seal_check.SealReport(
        problems=trail + report.problems, seals=report.seals, sealed=report.sealed, unsealed=report.unsealed,
        late=report.late, oldest_unsealed_ms=report.oldest_unsealed_ms, more_problems=report.more_problems,
    )  # fmt: skip


# What shows

Tamper = Callable[[Connection], Any]


def attempt_of(key: str, **values: object) -> Tamper:
    return lambda connection: connection.execute(update(A).where(A.c.key == key).values(**values))


def content(key: str, before: str, after: str) -> Tamper:
    def tamper(connection: Connection) -> None:
        text_ = connection.execute(select(N.c.content).where(N.c.key == key)).scalar_one()
        assert before in text_
        connection.execute(update(N).where(N.c.key == key).values(content=text_.replace(before, after)))

    return tamper


def deleted(connection: Connection) -> None:
    connection.execute(delete(A).where(A.c.key == "k2"))


def swapped(connection: Connection) -> None:
    """Let two attempts change places, each with its seal's mark left where it was."""
    rows = {row["key"]: dict(row) for row in connection.execute(select(A).where(A.c.key.in_(["k2", "k3"]))).mappings()}
    for key, other in (("k2", "k3"), ("k3", "k2")):
        values = {**rows[other], "key": key, "owner": f"worker of {other}"}
        connection.execute(update(A).where(A.c.key == key).values(**values))


def slipped_in(**values: object) -> Tamper:
    def tamper(connection: Connection) -> None:
        row = dict(connection.execute(select(A).where(A.c.key == "k2")).mappings().one())
        connection.execute(insert(A).values(**{**row, "attempt": 2, **values}))

    return tamper


def records(*conditions: Any) -> Tamper:
    return lambda connection: connection.execute(delete(R).where(*conditions))


def attempt_and_record(connection: Connection) -> None:
    deleted(connection)
    connection.execute(delete(R).where(R.c.key == "k2"))


def forged_record(connection: Connection) -> None:
    """Change an attempt, and its record so that they agree."""
    connection.execute(update(A).where(A.c.key == "k2").values(outcome="REFUSED"))
    query = select(*attempt_seals.CONTENT).join_from(A, N, A.c.key == N.c.key).where(A.c.key == "k2")
    fits = attempt_seals.digest(connection.execute(query).mappings().one())
    connection.execute(update(R).where(R.c.key == "k2").values(digest=fits))


CHANGED = "attempt 1 of k2 was changed after row 1 of the trail sealed it"


@pytest.mark.parametrize(
    ("tamper", "told"),
    [
        pytest.param(attempt_of("k2", outcome="REFUSED"), CHANGED, id="outcome"),
        pytest.param(attempt_of("k2", outcome=None), CHANGED, id="opened"),
        pytest.param(attempt_of("k2", settled_at_ms=NOW_MS + 1), CHANGED, id="time"),
        pytest.param(attempt_of("k2", timestamp_ms=1), CHANGED, id="pin"),
        pytest.param(attempt_of("k2", fence=99), CHANGED, id="fence"),
        pytest.param(attempt_of("k2", retry_delay_ms=7), CHANGED, id="delay"),
        pytest.param(attempt_of("k2", failure_class="banned"), CHANGED, id="class"),
        pytest.param(attempt_of("k2", rule="-1003"), CHANGED, id="rule"),
        pytest.param(attempt_of("k2", answer="FILLED 0.020"), CHANGED, id="answer"),
        pytest.param(content("k2", "20000.5", "20000.50"), CHANGED, id="price"),
        pytest.param(content("k2", "0.010", "0.01"), CHANGED, id="quantity"),
        pytest.param(swapped, CHANGED, id="swapped-one"),
        pytest.param(swapped, "attempt 1 of k3 was changed after row 1 of the trail sealed it", id="swapped-other"),
        pytest.param(deleted, "attempt 1 of k2 was deleted: row 1 of the trail sealed it", id="deleted"),
        pytest.param(deleted, "attempt 1 of k2 is missing: its intent was dispatched 1 times", id="missing"),
        pytest.param(
            slipped_in(), "attempt 2 of k2 says that row 1 of the trail sealed it, which has no record of it", id="in"
        ),
        pytest.param(
            slipped_in(seal=None), "attempt 2 of k2 was slipped in: its intent was dispatched 1 times", id="in-unsealed"
        ),
        pytest.param(
            attempt_of("k2", seal=None),
            "attempt 1 of k2 is not marked as sealed any more: row 1 of the trail sealed it",
            id="unmarked",
        ),
        pytest.param(
            attempt_of("k2", seal=None, outcome="REFUSED"),
            "attempt 1 of k2 is not marked as sealed any more and it was changed: row 1 of the trail sealed it",
            id="unmarked-and-changed",
        ),
        pytest.param(
            records(R.c.key == "k2"),
            "the seal in row 1 of the trail: record 2 is missing, behind attempt 1 of k1",
            id="record",
        ),
        pytest.param(
            records(R.c.key == "k2"),
            "attempt 1 of k2 says that row 1 of the trail sealed it, which has no record of it",
            id="record-named",
        ),
        pytest.param(
            attempt_and_record,
            "the seal in row 1 of the trail: record 2 is missing, behind attempt 1 of k1",
            id="attempt-and-record",
        ),
        pytest.param(
            records(R.c.seal == 2),
            "the seal in row 2 of the trail does not hold what it sealed: 0 of 3 records are there, or one was changed",
            id="all-records-of-a-seal",
        ),
        pytest.param(
            forged_record,
            "the seal in row 1 of the trail does not hold what it sealed: 4 of 4 records are there, or one was changed",
            id="forged-record",
        ),
        pytest.param(
            lambda connection: connection.execute(delete(T).where(T.c.seq == 1)),
            "row 1 of the trail seals nothing, yet 4 attempts are named as sealed by it",
            id="seal-deleted",
        ),
        pytest.param(
            lambda connection: connection.execute(delete(T).where(T.c.seq == 1)),
            "row 1 is missing: the trail goes on with row 2",
            id="seal-missing-in-the-trail",
        ),
        pytest.param(
            lambda connection: connection.execute(update(T).where(T.c.seq == 2).values(detail="[]")),
            "the seal in row 2 of the trail cannot be read",
            id="seal-unreadable",
        ),
    ],
)
def test_whatever_is_done_to_sealed_attempts_is_named(journal: Journal, tamper: Tamper, told: str) -> None:
    with journal.write() as connection:
        tamper(connection)
    assert told in verified(journal).problems


def test_attempt_whose_intent_was_deleted_is_named(journal: Journal) -> None:
    raw = journal.engine.raw_connection()  # by hand: SQLite minds this only outside of a transaction
    cursor = raw.cursor()
    cursor.execute("PRAGMA foreign_keys=OFF" if journal.is_sqlite else "SET session_replication_role = replica")
    cursor.execute("DELETE FROM intents WHERE key = 'k2'")
    raw.commit()
    raw.invalidate()
    told = "attempt 1 of k2: its intent was deleted; row 1 of the trail sealed it"
    assert verified(journal).problems == [told]


def test_what_nobody_touched_is_whole_and_counted(journal: Journal) -> None:
    settled(journal, "fresh", at_ms=NOW_MS - 5_000)
    report = verified(journal)
    assert (report.problems, report.seals, report.sealed, report.unsealed, report.late) == ([], 2, 7, 1, 0)
    late = verified(journal, now_ms=NOW_MS - 5_000 + attempt_seals.LATE_MS + 1)
    assert (late.problems, late.late, late.oldest_unsealed_ms) == ([], 1, NOW_MS - 5_000)


def test_very_many_problems_are_counted_and_not_all_named(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempt_seal_check, "MAX_PROBLEMS", 3)
    with journal.write() as connection:
        connection.execute(update(A).values(owner="mallory"))
    report = verified(journal)
    assert (len(report.problems), report.more_problems) == (3, 4)


def test_pages_end_at_the_end(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        settled(journal, f"more{number}")
        assert sealed(journal) == 1
    monkeypatch.setattr(attempt_seal_check, "SEALS_PER_PAGE", 2)
    monkeypatch.setattr(attempt_seal_check, "INTENTS_PER_PAGE", 3)
    report = verified(journal)
    assert (report.problems, report.seals, report.sealed) == ([], 22, 27)
    with journal.write() as connection:
        attempt_of("more19", owner="mallory")(connection)
        attempt_of("k1", owner="mallory")(connection)
    assert len(verified(journal).problems) == 2


def test_every_column_of_an_attempt_is_sealed() -> None:
    """A new column belongs into a new form of what is hashed, or here with the reason why it may change freely."""
    assert {column.name for column in A.columns} - set(attempt_seals.ATTEMPT_COLUMNS) == {"seal"}


def test_the_hash_of_an_attempt_is_the_same_for_ever_and_on_every_database(journal: Journal) -> None:
    with journal.read() as connection:
        query = select(R.c.digest).where(R.c.key == "k1")
        first = connection.execute(query).scalar_one()
    assert first == "0a1acb6903b8f332d044b7d4f18a364becef412843b7b71c66c57353fdc996e0"


# What changes in good order


def test_attempt_that_was_opened_again_is_sealed_again_and_the_trail_says_so(journal: Journal) -> None:
    settled(journal, "doubted", outcome="ABSENT")
    assert sealed(journal) == 1
    reopened(journal, "doubted")
    assert verified(journal).problems == []
    settle(journal, "doubted", outcome="ACCEPTED")
    between = verified(journal)
    assert (between.problems, between.sealed, between.unsealed) == ([], 7, 1)
    assert sealed(journal) == 1
    assert verified(journal).problems == []
    with journal.read() as connection:
        seal = audit.last(connection)
        (opened,) = audit.rows(connection, subject="doubted")
    assert seal is not None
    assert json.loads(seal.detail)["sealed_again"] == [["doubted", 1]]
    assert (opened.action, json.loads(opened.detail)["attempts"]) == ("attempts_reopened", [1])
    with journal.write() as connection:
        attempt_of("doubted", outcome="ABSENT")(connection)
    told = f"attempt 1 of doubted was changed after row {seal.seq} of the trail sealed it"
    assert verified(journal).problems == [told]


def test_change_that_the_sealer_was_made_to_seal_shows_for_lack_of_a_reopening(journal: Journal) -> None:
    with journal.write() as connection:
        attempt_of("k2", outcome="REFUSED", seal=None)(connection)
    assert sealed(journal) == 1
    told = "attempt 1 of k2 was sealed by row 1 and by row 3 of the trail, and nothing opened it between"
    assert verified(journal).problems == [told]


def test_reopening_before_a_seal_excuses_no_change_after_it(journal: Journal) -> None:
    settled(journal, "doubted", outcome="ABSENT")
    sealed(journal)
    reopened(journal, "doubted")
    settle(journal, "doubted", outcome="ABSENT")
    sealed(journal)
    with journal.write() as connection:
        attempt_of("doubted", outcome="ACCEPTED", seal=None)(connection)
    sealed(journal)
    told = "attempt 1 of doubted was sealed by row 5 and by row 6 of the trail, and nothing opened it between"
    assert told in verified(journal).problems


def test_reopening_leaves_alone_what_settled_by_its_own_answer(journal: Journal) -> None:
    settled(journal, "both", outcome="NOT_SENT")
    dispatched(journal, "both", attempt=2)
    settle(journal, "both", attempt=2, outcome="ABSENT")
    assert sealed(journal) == 2
    reopened(journal, "both")
    with journal.read() as connection:
        first, second = attempts.of_intent(connection, "both")
    assert (first.outcome, first.seal is not None) == ("NOT_SENT", True)
    assert (second.outcome, second.seal) == (None, None)
    assert verified(journal).problems == []


# Killed, and two at once


@pytest.mark.parametrize("when", ["before_commit", "after_commit"])
def test_sealer_killed_at_either_side_of_its_commit_leaves_nothing_unsealed_and_seals_nothing_twice(
    database_url: str, when: str
) -> None:
    journal = Journal(database_url)
    migrate.upgrade(journal)
    for number in range(6):
        settled(journal, f"k{number}")
    journal.close()
    pid = os.fork()
    if pid == 0:
        seal_and_die(database_url, when)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL
    left = {"before_commit": 6, "after_commit": 2}[when]
    assert verified(journal).unsealed == left
    assert (sealed(journal), sealed(journal)) == (left, 0)
    report = verified(journal)
    assert (report.problems, report.sealed, report.unsealed) == ([], 6, 0)
    with journal.read() as connection:
        assert len(connection.execute(select(R)).all()) == 6
    journal.close()


def seal_and_die(database_url: str, when: str) -> None:
    try:
        journal = Journal(database_url)
        with journal.write() as connection:
            attempt_seals.seal(connection, now_ms=NOW_MS, by="keeper", limit=4)
            if when == "before_commit":
                os.kill(os.getpid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)
    finally:
        os._exit(1)


def test_two_sealers_at_once_seal_each_attempt_once(database_url: str) -> None:
    journal = Journal(database_url)
    migrate.upgrade(journal)
    for number in range(60):
        settled(journal, f"k{number}")
    both = threading.Barrier(2)
    failed: list[BaseException] = []

    def run() -> None:
        try:
            both.wait()
            while verified(journal).unsealed:
                sealed(journal, limit=7)
        except BaseException as error:  # noqa: BLE001 - told by the test
            failed.append(error)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    report = verified(journal)
    assert (failed, report.problems, report.sealed) == ([], [], 60)
    with journal.read() as connection:
        assert len(connection.execute(select(R)).all()) == 60
    journal.close()


def test_attempt_that_somebody_holds_is_passed_over_and_sealed_later(postgres_url: str) -> None:
    journal = Journal(postgres_url)
    migrate.upgrade(journal)
    settled(journal, "held")
    settled(journal, "free")
    with journal.write() as holder:
        holder.execute(select(A).where(A.c.key == "held").with_for_update())
        assert sealed(journal) == 1
    assert sealed(journal) == 1
    assert verified(journal).problems == []
    journal.close()


# What it costs, and where it comes from


def test_dispatching_writes_nothing_for_the_seals(journal: Journal) -> None:
    """No index of theirs holds an open attempt; the search for the unsealed reads that index and nothing else."""
    unsealed = next(index for index in A.indexes if index.name == "attempts_unsealed")
    kind = "sqlite" if journal.is_sqlite else "postgresql"
    assert str(unsealed.dialect_options[kind]["where"]) == "seal IS NULL AND outcome IS NOT NULL"
    with journal.write() as connection:
        connection.execute(text("ANALYZE"))
        if not journal.is_sqlite:
            connection.execute(text("SET LOCAL enable_seqscan = off"))
            connection.execute(text("SET LOCAL enable_bitmapscan = off"))
        compiled = attempt_seals.unsealed_query(5).compile(connection, compile_kwargs={"literal_binds": True})
        word = "EXPLAIN QUERY PLAN" if journal.is_sqlite else "EXPLAIN"
        plan = "\n".join(str(tuple(row)) for row in connection.exec_driver_sql(f"{word} {compiled}"))
    assert "attempts_unsealed" in plan, plan


def test_attempts_from_before_there_were_seals_are_sealed_like_new_ones(journal: Journal) -> None:
    with journal.write() as connection:
        connection.execute(delete(R))
        connection.execute(delete(T))
        connection.execute(delete(schema.audit_anchor))
        connection.execute(text("DROP INDEX attempts_unsealed"))
        connection.execute(text("ALTER TABLE attempts DROP COLUMN seal"))
        connection.execute(text("DROP TABLE attempt_seals"))
        connection.execute(text("DROP TABLE archive"))
        connection.execute(text("CREATE INDEX attempts_open ON attempts (owner)"))
        connection.execute(text("UPDATE alembic_version SET version_num = '0004'"))
    assert migrate.upgrade(journal) is True
    assert verified(journal).unsealed == 7
    assert sealed(journal) == 7
    report = verified(journal)
    assert (report.problems, report.sealed, report.unsealed) == ([], 7, 0)


# The real keeper, and the command


@pytest.fixture
def here(
    tmp_path: Path, redis_server: RedisServer, redis_url: str, database_url: str, nursery: Nursery
) -> Iterator[System]:
    del redis_url
    with (
        PaperProcess(tmp_path / "exchange", "--price", "BTCUSDT=20000") as exchange,
        system(
            tmp_path / "system", redis=redis_server, database_url=database_url, exchange=exchange, nursery=nursery,
        ) as one,
    ):  # fmt: skip
        yield one


def test_keeper_seals_what_has_settled_and_the_command_names_what_is_changed_then(here: System) -> None:
    for key in ("first", "second"):
        here.order(key)
    assert here.run("worker", "orders", "--burst") == 0
    assert [one.seal for key in ("first", "second") for one in here.attempts(key)] == [None, None]
    here.start("reconciler")
    here.until(lambda: all(one.seal for key in ("first", "second") for one in here.attempts(key)), "the keeper to seal")
    words = here.cli("audit", "verify")
    assert "2 attempts sealed in 1 rows, 0 settled and not sealed yet" in words
    found = json.loads(next(line for line in here.cli("audit", "verify", "--json").splitlines() if line[0] == "{"))
    assert found["attempts"] == {"sealed": 2, "unsealed": 0, "late": 0, "oldest_unsealed_at": None, "seals": 1}
    assert "attempts_sealed" not in here.cli("audit", "list")
    assert "attempts_sealed" in here.cli("audit", "list", "--subject", "attempts")
    with here.installation.journal.write() as connection:
        attempt_of("second", outcome="REFUSED")(connection)
    ended = run_cli(here, "audit", "verify")
    assert ended.wait() == 1
    seal = here.attempts("second")[0].seal
    assert f"attempt 1 of second was changed after row {seal} of the trail sealed it" in ended.words()
