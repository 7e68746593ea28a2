"""A process that has used the journal and forks: neither takes anything from the other, and nothing is lost."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import text

from app.job_safety.errors import StoreUnavailableError
from app.journal.engine import Journal
from app.journal.file_lock import FileLock
from tests.support.migrated import sqlite_url

SOON_S = 20
ROOT = Path(__file__).parents[2]
READER = "import sys; from app.journal.engine import Journal; from tests.integration.test_journal_forks import names; "
READER += "print(*names(Journal(sys.argv[1])))"


@pytest.fixture
def journal(empty_database_url: str) -> Iterator[Journal]:
    opened = Journal(empty_database_url)
    with opened.write() as connection:
        connection.execute(text("CREATE TABLE said (name TEXT PRIMARY KEY)"))
    yield opened
    opened.close()


def said_in(file: Path) -> Journal:
    journal = Journal(f"sqlite:///{file}")
    with journal.write() as connection:
        connection.execute(text("CREATE TABLE said (name TEXT PRIMARY KEY)"))
    return journal


def say(journal: Journal, name: str) -> None:
    with journal.write() as connection:
        connection.execute(text("INSERT INTO said VALUES (:name)"), {"name": name})


def names(journal: Journal) -> list[str]:
    with journal.read() as connection:
        return list(connection.execute(text("SELECT name FROM said ORDER BY name")).scalars())


class Child:
    """Runs `body` in a forked child, which begins at `go`; `end` tells what went wrong in it."""

    def __init__(self, body: Callable[[], None]) -> None:
        told, go = os.pipe(), os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.read(go[0], 1)
                body()
            except BaseException as error:  # noqa: BLE001 - whatever it is, the parent is told
                os.write(told[1], repr(error).encode())
            os._exit(0)
        os.close(told[1])
        os.close(go[0])
        self._told, self._go = told[0], go[1]

    def go(self) -> None:
        os.write(self._go, b"x")

    def end(self) -> str:
        self.go()
        with os.fdopen(self._told, "rb") as told:
            problem = told.read().decode()
        os.close(self._go)
        os.waitpid(self.pid, 0)
        return problem


def at_once(journal: Journal, threads: int) -> None:
    """Have so many threads use the journal at the same time, and end."""
    meet = threading.Barrier(threads)

    def read(_: int) -> None:
        with journal.read() as connection:
            meet.wait(SOON_S)
            connection.execute(text("SELECT 1"))

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(read, range(threads)))


@pytest.mark.parametrize("threads", [1, 10, 20])
def test_parent_goes_on_after_its_child_has_used_the_journal(journal: Journal, threads: int) -> None:
    at_once(journal, threads)
    assert Child(lambda: say(journal, "child")).end() == ""
    at_once(journal, threads)
    say(journal, "parent")
    assert names(journal) == ["child", "parent"]


def test_what_a_child_writes_is_there_although_its_parent_has_closed_the_journal(
    journal: Journal, empty_database_url: str
) -> None:
    say(journal, "a")
    written, close = os.pipe()

    def child() -> None:
        say(journal, "b")
        os.write(close, b"x")
        os.read(gone, 1)
        say(journal, "c")

    gone, parent_has_gone = os.pipe()
    one = Child(child)
    one.go()
    assert os.read(written, 1) == b"x"
    journal.close()
    os.write(parent_has_gone, b"x")
    assert one.end() == ""
    for end in (written, close, gone, parent_has_gone):
        os.close(end)
    command = [sys.executable, "-c", READER, empty_database_url]
    other = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert other.stdout.split() == ["a", "b", "c"], other.stderr


def in_use(journal: Journal, body: Callable[[], None]) -> None:
    """Run `body` while another thread has a connection in a transaction."""
    inside, leave = threading.Event(), threading.Event()

    def use() -> None:
        with journal.write() as connection:
            connection.execute(text("INSERT INTO said VALUES ('thread')"))
            inside.set()
            assert leave.wait(SOON_S)

    with ThreadPoolExecutor(1) as pool:
        using = pool.submit(use)
        assert inside.wait(SOON_S)
        try:
            body()
        finally:
            leave.set()
        using.result(SOON_S)


def test_child_does_not_write_into_a_file_that_a_thread_was_using_at_the_fork(tmp_path: Path) -> None:
    journal = said_in(tmp_path / "journal.db")
    children: list[Child] = []
    another = Journal(str(journal.url))
    elsewhere = said_in(tmp_path / "elsewhere.db")

    def fork() -> None:
        children.append(Child(lambda: say(journal, "child")))
        children.append(Child(lambda: say(another, "child")))
        children.append(Child(lambda: say(elsewhere, "child")))

    in_use(journal, fork)
    same, other, one_elsewhere = (child.end() for child in children)
    assert (one_elsewhere, names(elsewhere)) == ("", ["child"])
    elsewhere.close()
    for problem in (same, other):
        assert problem.startswith(StoreUnavailableError.__name__)
        assert "forked" in problem
        assert "spawn" in problem
    say(journal, "parent")
    assert names(journal) == ["parent", "thread"]
    journal.close()


def test_child_on_postgresql_may_be_forked_at_any_time(postgres_url: str) -> None:
    journal = Journal(postgres_url)
    with journal.write() as connection:
        connection.execute(text("CREATE TABLE said (name TEXT PRIMARY KEY)"))
    children: list[Child] = []
    in_use(journal, lambda: children.append(Child(lambda: say(journal, "child"))))
    assert children[0].end() == ""
    assert names(journal) == ["child", "thread"]
    journal.close()


def test_writer_that_was_forked_away_from_keeps_nobody_out(tmp_path: Path) -> None:
    """The child has a copy of the descriptor that the lock is held by, for as long as it lives."""
    lock = FileLock(str(tmp_path / "lock"))
    held = lock.take()
    child = Child(lambda: lock.give(lock.take()))
    lock.give(held)
    again = FileLock(str(tmp_path / "lock"))
    again.give(again.take())
    assert child.end() == ""


def test_writer_that_was_forked_away_from_while_it_waited_keeps_nobody_out_when_it_dies(tmp_path: Path) -> None:
    mine, other = FileLock(str(tmp_path / "lock")), FileLock(str(tmp_path / "lock"))
    held = other.take()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(mine.take)
        deadline_s = time.monotonic() + SOON_S
        while not mine._here.locked() or mine._held is None:
            assert time.monotonic() < deadline_s, "who waits for the lock must have its descriptor told"
            time.sleep(0.001)
        child = Child(lambda: None)
        other.give(held)
        os.close(waiting.result(SOON_S))  # all that a death does
    other.give(other.take())
    assert child.end() == ""


def test_child_of_a_fork_that_was_broken_off_half_way_is_refused_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python forks although what it is to do before has raised, as a handler of SIGINT does."""
    journal = said_in(tmp_path / "journal.db")
    ignored: list[object] = []
    with monkeypatch.context() as broken:
        broken.setattr(sys, "unraisablehook", lambda what: ignored.append(what.exc_value))
        broken.setattr(type(journal._ours), "let_go", raising)
        child = Child(lambda: say(journal, "child"))
    assert [type(one) for one in ignored] == [KeyboardInterrupt]
    assert "forked" in child.end()
    assert Child(lambda: say(journal, "second")).end() == ""
    assert names(journal) == ["second"]
    journal.close()


def raising(_: object) -> int:
    raise KeyboardInterrupt


def test_server_that_was_restarted_fails_one_that_asks_and_not_each_of_those_that_are_kept(postgres_url: str) -> None:
    journal = Journal(postgres_url)
    at_once(journal, 8)
    other = Journal(postgres_url)
    with other.write() as connection:
        mine = "pid <> pg_backend_pid() AND datname = current_database()"
        ended = connection.execute(text(f"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE {mine}"))
        assert ended.scalar_one() == 8
    other.close()
    with pytest.raises(StoreUnavailableError):
        names_of_tables(journal)
    at_once(journal, 8)
    journal.close()


def test_threads_that_need_a_connection_wait_for_the_end_of_a_fork(tmp_path: Path) -> None:
    """One that opened the file between the look at who uses it and the fork would be inherited unnoticed."""
    journal = Journal(sqlite_url(tmp_path / "journal.db"))
    journal.before_fork()
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(names_of_tables, journal)
        with pytest.raises(TimeoutError):
            reading.result(0.3)
        journal.after_fork()
        assert "intents" in reading.result(SOON_S)
    journal.close()


def names_of_tables(journal: Journal) -> list[str]:
    with journal.read() as connection:
        tables = "sqlite_master" if journal.is_sqlite else "(SELECT tablename AS name FROM pg_tables) AS tables"
        return list(connection.execute(text(f"SELECT name FROM {tables}")).scalars())
