"""Changes of several threads that wait for SQLite's one writer go in one commit, and fail each for itself."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, column, func, select, table, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from app.job_safety.errors import StoreUnavailableError
from app.journal import together
from app.journal.engine import Journal
from app.journal.file_lock import FileLock
from app.journal.prepared import Prepared
from bench.throughput import wal
from workers.children import MAX_DESCRIPTORS

SOON_S = 20
_NOTE = Prepared(text("INSERT INTO notes (who) VALUES (:who)"))
_COUNT = Prepared(select(func.count()).select_from(table("notes")))
_ALL = Prepared(select(column("who")).select_from(table("notes")).order_by(column("at")))

Change = Callable[[Connection], int]
Lent = contextlib.AbstractContextManager[Connection]


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = Journal(f"sqlite:///{tmp_path / 'journal.db'}")
    with opened.write() as connection:
        connection.execute(text("CREATE TABLE notes (at INTEGER PRIMARY KEY AUTOINCREMENT, who TEXT)"))
        connection.execute(text("CREATE UNIQUE INDEX ones ON notes (who) WHERE who LIKE 'one %'"))
    yield opened
    opened.close()


def note(who: str) -> Change:
    """Return a change that notes `who`, and says behind how many."""

    def change(connection: Connection) -> int:
        behind = int(_COUNT.rows(connection)[0][0])
        _NOTE.count(connection, who=who)
        return behind

    return change


def noted(journal: Journal) -> list[str]:
    with journal.read() as connection:
        return [who for (who,) in _ALL.rows(connection)]


def commits(journal: Journal) -> int:
    return wal.commits(Path(f"{journal.url.database}-wal"))


def until(is_so: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + SOON_S
    while not is_so():
        assert time.monotonic() < deadline_s, what
        time.sleep(0.001)


def waiting(journal: Journal) -> int:
    """Return how many wait, whoever has the turn and is not yet the writer included."""
    return len(journal._ours.together._waiting) + journal._ours.together._turn.locked()


def made(journal: Journal, changes: Sequence[Change]) -> list[Future[int]]:
    """Have each change made by a thread of its own, all of which wait in this order before the first can write."""
    begun: list[Future[int]] = []
    with contextlib.closing(Journal(journal.url.render_as_string())) as other, ThreadPoolExecutor(16) as threads:
        with other.write():
            for number, change in enumerate(changes, start=1):
                begun.append(threads.submit(journal.make, change))
                until(lambda number=number: waiting(journal) == number, "they do not wait")  # type: ignore[misc]
        for one in begun:
            one.exception(SOON_S)
    assert waiting(journal) == 0
    return begun


def errors(begun: Sequence[Future[int]]) -> list[type[BaseException] | None]:
    return [None if (error := one.exception()) is None else type(error) for one in begun]


class Lending:
    """Lends as the journal does, but breaks off: the first who asks, before or after what it lends."""

    def __init__(self, journal: Journal, error: type[BaseException], *, is_late: bool) -> None:
        self._lend, self._error, self._is_late = journal.write, error, is_late
        self.others = threading.Event()

    @contextlib.contextmanager
    def write(self) -> Iterator[Connection]:
        error, self._error = self._error, None  # type: ignore[assignment]
        if error is not None and not self._is_late:
            self.others.wait(SOON_S)
            raise error("struck")
        with self._lend() as connection:
            yield connection
        if error is not None:
            raise error("struck")


def test_changes_that_wait_for_the_writer_go_in_one_commit_in_their_order(journal: Journal) -> None:
    before = commits(journal)
    begun = made(journal, [note(f"w{number}") for number in range(8)])
    assert commits(journal) - before == 1
    assert [one.result() for one in begun] == list(range(8)), "each thread gets what its own change returned"
    assert noted(journal) == [f"w{number}" for number in range(8)]


def test_change_that_comes_while_another_is_made_goes_along(journal: Journal) -> None:
    before, inside = commits(journal), threading.Event()

    def first(connection: Connection) -> int:
        inside.set()
        until(lambda: waiting(journal) == 2, "nobody comes")
        return note("first")(connection)

    with ThreadPoolExecutor(2) as threads:
        leader = threads.submit(journal.make, first)
        assert inside.wait(SOON_S)
        other = threads.submit(journal.make, note("second"))
        assert (leader.result(SOON_S), other.result(SOON_S)) == (0, 1)
    assert commits(journal) - before == 1


def test_one_who_is_alone_has_a_commit_of_its_own(journal: Journal) -> None:
    before = commits(journal)
    assert [journal.make(note(who)) for who in "ab"] == [0, 1]
    assert commits(journal) - before == 2


def test_change_that_is_kept_open_has_the_transaction_for_itself(journal: Journal) -> None:
    with ThreadPoolExecutor(1) as threads:

        def first(connection: Connection) -> int:
            other.append(threads.submit(journal.make, note("second")))
            until(lambda: waiting(journal) == 1, "nobody comes")
            return note("first")(connection)

        other: list[Future[int]] = []
        before = commits(journal)
        assert journal.make(first, kept_open=True) == 0
        assert other[0].result(SOON_S) == 1
    assert commits(journal) - before == 2


def test_writer_that_does_not_get_its_turn_fails_alone(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    lending = Lending(journal, StoreUnavailableError, is_late=False)
    monkeypatch.setattr(journal, "write", lending.write)
    with ThreadPoolExecutor(3) as threads:
        begun = []
        for number, who in enumerate("abc", start=1):
            begun.append(threads.submit(journal.make, note(who)))
            until(lambda number=number: waiting(journal) == number, "it does not wait")  # type: ignore[misc]
        lending.others.set()
        for one in begun:
            one.exception(SOON_S)
    assert errors(begun) == [StoreUnavailableError, None, None]
    assert sorted(noted(journal)) == ["b", "c"]


@pytest.mark.parametrize("error", [StoreUnavailableError, KeyboardInterrupt])
def test_commit_that_was_not_answered_is_won_by_none_and_repeated_by_none(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    monkeypatch.setattr(journal, "write", Lending(journal, error, is_late=True).write)
    begun = made(journal, [note(who) for who in "abc"])
    assert errors(begun) == [error, StoreUnavailableError, StoreUnavailableError]
    assert noted(journal) == ["a", "b", "c"]


def test_commit_of_a_transaction_that_was_lost_under_way_is_won_by_none(journal: Journal) -> None:
    def lost(connection: Connection) -> int:
        connection.connection.cursor().execute("ROLLBACK")  # as SQLite does for a full disk
        return 0

    begun = made(journal, [note("a"), lost, note("c")])
    assert errors(begun) == [StoreUnavailableError] * 3
    assert "a" not in noted(journal)


@pytest.mark.parametrize("guilty", range(3))
def test_only_the_change_that_fails_raises_and_the_others_are_made_once(journal: Journal, guilty: int) -> None:
    journal.make(note("one of a kind"))
    changes = [note(f"w{number}") for number in range(3)]
    changes[guilty] = note("one of a kind")
    begun = made(journal, changes)
    expected: list[type[Exception] | None] = [None] * 3
    expected[guilty] = IntegrityError
    assert errors(begun) == expected
    assert sorted(noted(journal)) == ["one of a kind", *(f"w{number}" for number in range(3) if number != guilty)]


def test_change_that_finds_a_store_away_takes_no_other_with_it(journal: Journal) -> None:
    """A dispatch reads Redis in its change; that this fails says nothing about the rest."""

    def away(connection: Connection) -> int:
        note("away")(connection)
        raise StoreUnavailableError("redis: away")

    begun = made(journal, [note("a"), away, note("c")])
    assert errors(begun) == [None, StoreUnavailableError, None]
    assert str(begun[1].exception()) == "redis: away"
    assert sorted(noted(journal)) == ["a", "c"]


@pytest.mark.parametrize("struck", range(3))
def test_thread_that_is_broken_off_while_it_makes_all_leaves_the_others_to_themselves(
    journal: Journal, struck: int
) -> None:
    changes = [note(who) for who in "abc"]
    is_first = True

    def broken_off(connection: Connection) -> int:
        nonlocal is_first
        behind = note("abc"[struck])(connection)
        if is_first:
            is_first = False
            raise KeyboardInterrupt
        return behind

    changes[struck] = broken_off
    begun = made(journal, changes)
    assert errors(begun) == [KeyboardInterrupt, None, None]
    assert sorted(noted(journal)) == ["b", "c"]


def test_change_whose_thread_was_broken_off_as_it_waited_is_made_by_nobody(journal: Journal) -> None:
    inside, leave = threading.Event(), threading.Event()

    def first(connection: Connection) -> int:
        inside.set()
        assert leave.wait(SOON_S)
        return note("first")(connection)

    def strike(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    def strike_soon() -> None:
        until(lambda: waiting(journal) == 2, "it does not wait")
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, strike)
    try:
        with ThreadPoolExecutor(2) as threads:
            leader = threads.submit(journal.make, first)
            assert inside.wait(SOON_S)
            striker = threads.submit(strike_soon)
            with pytest.raises(KeyboardInterrupt):
                journal.make(note("second"))
            leave.set()
            assert (leader.result(SOON_S), striker.result(SOON_S)) == (0, None)
    finally:
        leave.set()
        signal.signal(signal.SIGUSR1, before)
    assert noted(journal) == ["first"]


def test_one_who_has_waited_too_long_for_other_threads_gives_up(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as impatient:
        impatient.setattr(together, "LOCK_TIMEOUT_S", -1)
        with pytest.raises(StoreUnavailableError, match="other threads"):
            journal.make(note("late"))
    assert journal.make(note("soon")) == 0


def test_process_that_was_forked_while_a_thread_had_the_turn_makes_its_own_changes(journal: Journal) -> None:
    journal.close()  # SQLite's own connections survive no fork; they are opened behind the lock
    lock = FileLock(f"{journal.url.database}.lock")
    held = lock.take()
    with ThreadPoolExecutor(2) as threads:
        begun = []
        for number, who in enumerate("ab", start=1):
            begun.append(threads.submit(journal.make, note(who)))
            until(lambda number=number: waiting(journal) == number, "it does not wait")  # type: ignore[misc]
        pid = os.fork()
        if pid == 0:
            os.closerange(3, MAX_DESCRIPTORS)  # as our own children do: an inherited descriptor holds the lock on
            signal.alarm(SOON_S)
            journal.make(note("child"))
            os._exit(0)
        lock.give(held)
        for one in begun:
            one.result(SOON_S)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert sorted(noted(journal)) == ["a", "b", "child"]


class StrangeError(Exception):
    pass


def _failing(who: str, kind: str, runs: list[str]) -> Change:
    def change(connection: Connection) -> int:
        runs.append(who)
        if kind == "early":
            raise StrangeError(who)
        behind = note("one of a kind" if kind == "second" else who)(connection)
        if kind == "late":
            raise StrangeError(who)
        return behind

    return change


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(["good", "good", "early", "late", "second"]), min_size=1, max_size=6))
def test_any_changes_end_as_if_each_had_been_made_alone_in_some_order(journal: Journal, kinds: list[str]) -> None:
    with journal.write() as connection:
        connection.execute(text("DELETE FROM notes"))
        _NOTE.count(connection, who="one of a kind")
    runs: list[str] = []
    begun = made(journal, [_failing(f"w{number}", kind, runs) for number, kind in enumerate(kinds)])

    in_order = ["one of a kind"]
    for behind, who in sorted((one.result(), f"w{number}") for number, one in enumerate(begun) if not one.exception()):
        assert behind == len(in_order), "each sees what was made before it, and no more"
        in_order.append(who)
    assert noted(journal) == in_order
    assert max(runs.count(who) for who in runs) <= (1 if len(kinds) == 1 or set(kinds) == {"good"} else 2)
    for number, (kind, one) in enumerate(zip(kinds, begun, strict=True)):
        error = one.exception()
        assert (error is None) == (kind == "good")
        assert kind not in {"early", "late"} or (isinstance(error, StrangeError) and str(error) == f"w{number}")
        assert kind != "second" or isinstance(error, DBAPIError)
