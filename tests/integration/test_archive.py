"""Archiving on both databases: keys stay refused, a crash loses nothing, and all that is needed again comes back."""

import contextlib
import gzip
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, delete, func, select, text, update

from app.cli.archive_file import CopyFile
from app.cli.dossier import collect
from app.job_safety.errors import InvariantViolatedError
from app.job_safety.outcome import ExchangeOrder, Venue
from app.job_safety.state import IntentState
from app.journal import (
    archive,
    archiving,
    attempt_seal_check,
    attempt_seals,
    attempts,
    audit,
    followups,
    intents,
    meta,
    migrate,
    restore,
    schema,
)
from app.journal.engine import Journal
from app.journal.followups import Followup
from app.journal.intents import NewIntent, Taken
from app.journal.prepared import counts_of
from tests.support.attempts import insert as insert_attempt
from tests.support.clock import FakeClock

DAY_MS = 24 * 3_600_000
THEN_MS = 1_795_725_870_000
NOW_MS = THEN_MS + 100 * DAY_MS
OLD_MS = 90 * DAY_MS
S = IntentState
I = schema.intents  # noqa: E741 - the table of intents, as everywhere


@pytest.fixture
def journal(database_url: str) -> Iterator[Journal]:
    opened = Journal(database_url)
    migrate.upgrade(opened)
    meta.claim(opened, account="main", mode="paper", now_ms=1)
    yield opened
    opened.close()


def new(key: str, **changes: Any) -> NewIntent:
    fields: dict[str, Any] = {
        "key": key, "type": "order", "queue": "orders", "venue": "usdm", "symbol": "BTCUSDT",
        "content": json.dumps({"key": key, "quantity": "0.010"}), "content_hash": f"hash of {key}",
        "client_order_id": f"id-{key}", "opens_risk": True, "created_at_ms": THEN_MS, "run_at_ms": THEN_MS,
    } | changes  # fmt: skip
    return NewIntent(**fields)


def over(journal: Journal, key: str, *, order_id: int = 7, **changes: Any) -> str:
    """Write an order that was sent, filled and booked 100 days ago, as the code does it; seal its attempt."""
    with journal.write() as connection:
        intents.insert(connection, [new(key, **changes)])
        row = intents.load(connection, key, lock=True)
        dispatched(connection, key)
        assert intents.move(connection, row, S.DISPATCHED, now_ms=THEN_MS, attempt=1)
        order = ExchangeOrder(
            venue=Venue.USDM, symbol="BTCUSDT", order_id=order_id, client_order_id=f"id-{key}", status="FILLED",
            side="BUY", order_type="MARKET", quantity=Decimal("0.010"), executed_quantity=Decimal("0.010"),
        )  # fmt: skip
        told = attempts.proof(
            key=key, order=order, source="dispatch", before="DISPATCHED", now_ms=THEN_MS
        )  # fmt: skip
        assert counts_of(connection, told) == [1]
        assert attempts.settle(
            connection, key=key, attempt=1, outcome="ACCEPTED", by="dispatch", now_ms=THEN_MS, answer="FILLED 0.010"
        )
        name = f"fetch_fills:{key}"
        add_followup(connection, name, key)
        followups.finish(connection, name, now_ms=THEN_MS)
        row = intents.load(connection, key)
        assert intents.move(
            connection, row, S.FILLED, now_ms=THEN_MS, exchange_order_id=order_id,
            executed_quantity=Decimal("0.010"), booked_at_ms=THEN_MS,
        )  # fmt: skip
        attempt_seals.seal(connection, now_ms=THEN_MS, by="keeper")
    return key


def dispatched(connection: Connection, key: str) -> None:
    attempt = {
        "key": key, "attempt": 1, "owner": "w1", "fence": 1, "client_order_id": f"id-{key}", "timestamp_ms": THEN_MS,
        "recv_window_ms": 3_000, "payload_hash": "p", "config_hash": "c", "dispatched_at_ms": THEN_MS,
    }  # fmt: skip
    insert_attempt(connection, attempt)


def add_followup(connection: Connection, name: str, key: str) -> None:
    one = Followup(key=name, kind="fetch_fills", queue="positions", intent_key=key, payload={"n": 1}, run_at_ms=THEN_MS)
    followups.add(connection, one, now_ms=THEN_MS)


def archived(journal: Journal, *, now_ms: int = NOW_MS, **options: Any) -> archiving.Report:
    return archiving.run(journal, FakeClock(now_ms), older_than_ms=OLD_MS, by="test", **options)


def counts(journal: Journal) -> dict[str, int]:
    with journal.read() as connection:
        return {
            name: connection.execute(select(func.count()).select_from(schema.metadata.tables[name])).scalar_one()
            for name in ("intents", "attempts", "proofs", "followups", "inbox", "archive")
        }


def problems(journal: Journal) -> list[str]:
    with journal.read() as connection:
        trail = audit.verify(connection)
    return trail + attempt_seal_check.verify(journal, now_ms=NOW_MS).problems


def taken(journal: Journal, intent: NewIntent) -> Taken:
    with journal.write() as connection:
        return intents.insert(connection, [intent])[0]


# The key


def test_key_of_an_archived_intent_is_refused_as_before(journal: Journal) -> None:
    over(journal, "a")
    before = [taken(journal, new("a")), taken(journal, new("a", content_hash="other"))]
    assert archived(journal).archived == 1
    assert counts(journal) == {"intents": 1, "attempts": 0, "proofs": 0, "followups": 0, "inbox": 0, "archive": 1}
    after = [taken(journal, new("a")), taken(journal, new("a", content_hash="other"))]
    assert before == after == [Taken.DUPLICATE, Taken.CONFLICT]
    assert counts(journal)["intents"] == 1


def test_archived_order_is_found_by_its_ids_and_read_whole(journal: Journal) -> None:
    over(journal, "a", order_id=11)
    with journal.read() as connection:
        before = intents.load(connection, "a")
    archived(journal)
    with journal.read() as connection:
        assert intents.load(connection, "a") == before
        assert set(intents.by_client_order_ids(connection, ["id-a"])) == {"id-a"}
        owners = intents.by_order_ids(connection, venue="usdm", symbol="BTCUSDT", order_ids=[11])
    assert (owners[11].key, owners[11].state) == ("a", S.FILLED)


def test_whoever_takes_an_archived_intent_to_change_it_gets_everything_back(journal: Journal) -> None:
    over(journal, "a")
    over(journal, "b", order_id=8)
    with journal.read() as connection:
        before = whole(connection, "a")
    archived(journal)
    over(journal, "c", order_id=9)  # takes the numbers that the database gave to proofs of what is archived now
    with journal.write() as connection:
        assert intents.load(connection, "a", lock=True).content == new("a").content
    with journal.read() as connection:
        assert whole(connection, "a") == before
        assert archive.find(connection, "a") is None
        assert archive.find(connection, "b") is not None
    assert problems(journal) == []
    assert archived(journal).archived == 2, "what came back and did not change is archived again"


def whole(connection: Connection, key: str) -> dict[str, Any]:
    """Return all that the hot tables hold of an intent, but for numbers that the database gives."""
    of = {"attempts": schema.attempts.c.key, "proofs": schema.proofs.c.key, "followups": schema.followups.c.intent_key}
    found: dict[str, Any] = {"intent": intents.load(connection, key)}
    for name, column in of.items():
        table = schema.metadata.tables[name]
        rows = connection.execute(select(table).where(column == key).order_by(*table.primary_key)).mappings()
        found[name] = [{c: v for c, v in row.items() if (name, c) != ("proofs", "id")} for row in rows]
        assert found[name]
    names = [row["key"] for row in found["followups"]]
    inbox = connection.execute(select(schema.inbox).where(schema.inbox.c.key.in_(names))).all()
    assert inbox
    return {**found, "inbox": [tuple(row) for row in inbox]}


# What stays


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"state": "ACCEPTED"}, "not finished"),
        ({"state": "QUARANTINED"}, "not finished"),
        ({"booked_at_ms": None}, "not booked"),
        ({"updated_at_ms": NOW_MS - OLD_MS}, "ended or changed too recently"),
        ({"run_at_ms": THEN_MS}, "still looked after"),
        ({"watch_until_ms": NOW_MS}, "still looked after"),
        ("followup", "a follow-up is open"),
        ("open attempt", "an attempt is not settled or not sealed"),
        ("unsealed attempt", "an attempt is not settled or not sealed"),
        ("child", "its order, or a part of it, is not finished"),
        ("parent", "its order, or a part of it, is not finished"),
    ],
)
def test_intent_that_may_still_move_is_left_alone(journal: Journal, change: Any, why: str) -> None:
    over(journal, "a")
    over(journal, "b", order_id=8)
    with journal.write() as connection:
        if isinstance(change, dict):
            connection.execute(update(I).where(I.c.key == "a").values(**change))
        elif change == "followup":
            add_followup(connection, "verify_single:a", "a")
        elif change == "child":
            intents.insert(connection, [new("c", parent_key="a", created_at_ms=NOW_MS)])
        elif change == "parent":
            intents.insert(connection, [new("c", created_at_ms=NOW_MS)])
            connection.execute(update(I).where(I.c.key == "a").values(parent_key="c"))
        else:
            values = {"outcome": None, "seal": None} if change == "open attempt" else {"seal": None}
            connection.execute(update(schema.attempts).where(schema.attempts.c.key == "a").values(**values))
    report = archived(journal)
    assert (report.archived, dict(report.kept)) == (1, {why: 1})
    with journal.read() as connection:
        assert archive.find(connection, "a") is None
        assert archive.find(connection, "b") is not None


def test_intent_that_changes_between_the_search_and_the_move_is_left_alone(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    over(journal, "a")
    search = archiving._pages

    def and_then_somebody_comes(*arguments: Any) -> Iterator[list[str]]:
        for page in search(*arguments):
            with journal.write() as connection:
                connection.execute(update(I).where(I.c.key == "a").values(state="PARTIALLY_FILLED"))
            yield page

    monkeypatch.setattr(archiving, "_pages", and_then_somebody_comes)
    assert archived(journal).archived == 0
    assert counts(journal)["attempts"] == 1


def test_intent_that_somebody_holds_is_passed_over(postgres_url: str) -> None:
    journal = Journal(postgres_url)
    migrate.upgrade(journal)
    over(journal, "held")
    over(journal, "free", order_id=8)
    with journal.write() as holder:
        intents.load(holder, "held", lock=True)
        assert archived(journal).archived == 1
    assert archived(journal).archived == 1
    journal.close()


def test_nothing_younger_than_a_day_is_archived(journal: Journal) -> None:
    with pytest.raises(ValueError, match="24 hours"):
        archiving.run(journal, FakeClock(NOW_MS), older_than_ms=DAY_MS - 1, by="test")


def test_trying_out_changes_nothing(journal: Journal) -> None:
    over(journal, "a")
    before = counts(journal)
    assert archived(journal, is_dry=True).archived == 1
    assert counts(journal) == before


def test_many_pages_and_batches_leave_nothing_out(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archiving, "PAGE", 4)
    monkeypatch.setattr(archiving, "BATCH", 3)
    for number in range(11):
        over(journal, f"k{number:02d}", order_id=number + 1)
    report = archived(journal)
    assert (report.archived, report.batches) == (11, 5)
    assert archived(journal).archived == 0
    assert problems(journal) == []


# What proves it


def test_books_of_seals_and_trail_verify_after_archiving(journal: Journal) -> None:
    over(journal, "a")
    over(journal, "b", order_id=8)
    before = attempt_seal_check.verify(journal, now_ms=NOW_MS)
    archived(journal)
    after = attempt_seal_check.verify(journal, now_ms=NOW_MS)
    assert problems(journal) == []
    assert (before.sealed, after.sealed, after.unsealed) == (2, 2, 0)
    with journal.read() as connection:
        entry = audit.last(connection)
    assert entry is not None
    assert (entry.action, entry.actor, json.loads(entry.detail)["intents"]) == ("archived", "test", 2)


@pytest.mark.parametrize(
    ("tamper", "told"),
    [
        ("deleted", "attempt 1 of a was deleted: row 1 of the trail sealed it"),
        ("broken", "attempt 1 of a was deleted: row 1 of the trail sealed it"),
        ("outcome", "attempt 1 of a was changed after row 1 of the trail sealed it"),
        ("content", "attempt 1 of a was changed after row 1 of the trail sealed it"),
        ("slipped in", "attempt 1 of a is there beside the archived one"),
    ],
)
def test_whatever_is_done_to_an_archived_attempt_is_named(journal: Journal, tamper: str, told: str) -> None:
    over(journal, "a")
    over(journal, "b", order_id=8)
    archived(journal)
    table = schema.archive
    with journal.write() as connection:
        found = archive.of_keys(connection, ["a"])["a"]
        if tamper == "deleted":
            connection.execute(delete(table).where(table.c.key == "a"))
        elif tamper == "slipped in":
            dispatched(connection, "a")
        else:
            rows = {**found.rows, "attempts": [{**found.rows["attempts"][0], "outcome": "REFUSED"}]}
            body = {
                "broken": b"not what it was",
                "outcome": archive.pack(found.content, rows),
                "content": archive.pack(found.content.replace("0.010", "0.020"), found.rows),
            }[tamper]
            connection.execute(update(table).where(table.c.key == "a").values(body=body))
    assert told in problems(journal)


def test_archived_intent_without_its_archive_is_not_taken_for_anything_else(journal: Journal) -> None:
    over(journal, "a")
    archived(journal)
    with journal.write() as connection:
        connection.execute(delete(schema.archive))
    with journal.read() as connection, pytest.raises(InvariantViolatedError, match="a: archived, and missing"):
        intents.load(connection, "a")
    assert taken(journal, new("a")) is Taken.DUPLICATE


def test_reader_of_an_archived_intent_finds_it_though_it_comes_back_meanwhile(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    over(journal, "a")
    archived(journal)
    find = archive.find

    def find_late(connection: Connection, key: str) -> archive.Archived | None:
        monkeypatch.setattr(archive, "find", find)
        if not journal.is_sqlite:  # whose readers see one moment
            with journal.write() as other:
                intents.load(other, key, lock=True)
        return find(connection, key)

    monkeypatch.setattr(archive, "find", find_late)
    with journal.read() as connection:
        assert json.loads(intents.load(connection, "a").content)["quantity"] == "0.010"


def test_journal_whose_whole_history_is_archived_has_a_history(journal: Journal) -> None:
    """Else a start would take it for a lost journal."""
    over(journal, "a")
    archived(journal)
    with journal.read() as connection:
        assert restore.has_no_history(connection, venue="usdm") is False
        assert restore.has_no_history(connection, venue="spot") is True


def test_what_was_archived_once_can_be_read_for_ever() -> None:
    """A body as the first version wrote it. Another dictionary, or another form, must go on to read it."""
    body = bytes.fromhex("78f95619e5b2c39e83d1921a7278a27900c9aad85a00e2f619db")
    assert archive.unpack(body) == {
        "form": 1,
        "content": "{}",
        "attempts": [],
        "proofs": [],
        "followups": [],
        "inbox": [],
    }


# Killed


@pytest.mark.parametrize("when", ["in the transaction", "between batches"])
def test_archiver_that_is_killed_loses_nothing_and_goes_on(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    monkeypatch.setattr(archiving, "BATCH", 2)
    journal = Journal(database_url)
    migrate.upgrade(journal)
    for number in range(6):
        over(journal, f"k{number}", order_id=number + 1)
    before = everything(journal)
    journal.close()
    pid = os.fork()
    if pid == 0:
        archive_and_die(database_url, tmp_path / "first.jsonl.gz", when)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL
    assert counts(journal)["archive"] == 2
    assert everything(journal) == before
    assert problems(journal) == []
    with contextlib.closing(CopyFile(tmp_path / "second.jsonl.gz")) as copies:
        assert archived(journal, copies=copies).archived == 4
    assert everything(journal) == before
    assert problems(journal) == []
    assert {line["key"] for name in ("first", "second") for line in lines(tmp_path / f"{name}.jsonl.gz")} == set(before)
    journal.close()


def archive_and_die(database_url: str, path: Path, when: str) -> None:
    """Die in the second batch, once its rows are gone from their tables, or behind the first one's commit."""
    try:
        take_out = archiving._take_out
        calls: list[int] = []

        def dies(*arguments: Any) -> None:
            take_out(*arguments)
            calls.append(1)
            if len(calls) > 1:
                os.kill(os.getpid(), signal.SIGKILL)

        if when == "in the transaction":
            archiving._take_out = dies
            on_progress = None
        else:

            def on_progress(_: object) -> None:
                os.kill(os.getpid(), signal.SIGKILL)

        options = {} if on_progress is None else {"on_progress": on_progress}
        archived(Journal(database_url), copies=CopyFile(path), **options)
    finally:
        os._exit(1)


def everything(journal: Journal) -> dict[str, Any]:
    """Return every dossier, but for where it is kept."""
    with journal.read() as connection:
        keys = connection.execute(select(I.c.key)).scalars().all()
        dossiers = {key: collect(connection, key) for key in keys}
    unlike = ("archived_at", "archived_in", "audit")
    return {
        key: {
            name: [{c: v for c, v in row.items() if c != "id"} for row in value] if name == "proofs" else value
            for name, value in one.items()
            if name not in unlike
        }
        for key, one in dossiers.items()
    }


def lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a copy, up to where a killed process was cut off."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


# The command


def fillonce(database_url: str, home: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = {
        "PATH": os.environ["PATH"], "HOME": str(home), "FILLONCE_HOME": str(home), "DATABASE_URL": database_url,
        "TRADING_MODE": "paper",
    }  # fmt: skip
    command = [sys.executable, "-m", "app", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_command_archives_with_a_copy_and_show_says_when_and_where(
    journal: Journal, database_url: str, tmp_path: Path
) -> None:
    """The orders are from November 2026: as old as this test's clock says, for the command goes by the real one."""
    over(journal, "a")
    age(journal, days=100)
    path = tmp_path / "old.jsonl.gz"

    tried = fillonce(database_url, tmp_path, "archive", "--older-than", "90d", "--dry-run", "--json")
    assert json.loads(tried.stdout) == {"archived": 1, "dry_run": True, "kept": {}, "file": None}
    assert fillonce(database_url, tmp_path, "archive", "--older-than", "2h").returncode == 2
    done = fillonce(database_url, tmp_path, "archive", "--older-than", "90d", "--to", str(path), "--json")
    assert (done.returncode, json.loads(done.stdout)["archived"]) == (0, 1), done.stderr

    (line,) = lines(path)
    assert (line["key"], line["state"], line["executed_quantity"]) == ("a", "FILLED", "0.010")
    assert (len(line["attempts"]), len(line["proofs"]), len(line["followups"])) == (1, 1, 1)
    shown = fillonce(database_url, tmp_path, "intents", "show", "a", "--json")
    dossier = json.loads(shown.stdout)
    assert dossier["archived_in"] == f"table archive of this journal, copy in {path}"
    assert dossier["archived_at"] is not None
    assert (dossier["intent"]["quantity"], len(dossier["dispatches"])) == ("0.010", 1)
    assert "archived in" in fillonce(database_url, tmp_path, "intents", "show", "a").stdout
    again = fillonce(database_url, tmp_path, "archive", "--older-than", "90d", "--to", str(path))
    assert (again.returncode, len(lines(path))) == (2, 1), "a file that is there is not touched"
    assert fillonce(database_url, tmp_path, "audit", "verify").returncode == 0


def age(journal: Journal, *, days: int) -> None:
    """Move the rows of intents so that they ended so many days before the real present."""
    with journal.write() as connection:
        now = (
            "CAST(strftime('%s', 'now') AS INTEGER)"
            if journal.is_sqlite
            else "CAST(extract(epoch FROM now()) AS BIGINT)"
        )
        at = f"{now} * 1000 - {days * DAY_MS}"
        names = ("created_at_ms", "updated_at_ms", "finished_at_ms", "booked_at_ms")
        connection.execute(text(f"UPDATE intents SET {', '.join(f'{name} = {at}' for name in names)}"))
