"""What the exporter asks the journal: by indexes only, whatever is finished, on both databases; counts that hold."""

import contextlib
import re
from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, func, insert, select, text

from app.job_safety.retry_metrics import Ended
from app.job_safety.state import IntentState
from app.journal import attempt_history, intents, measures, meta, migrate, schema, tallies
from app.journal.attempt_history import Wanted
from app.journal.engine import Journal
from app.journal.intents import NewIntent
from app.journal.rows import IntentRow
from app.journal.tallies import Tally
from tests.support import migrated
from tests.support.attempts import insert as insert_attempt
from tests.support.postgres import Postgres

NOW_MS = 1_795_725_870_000
FINISHED = 5_000


@pytest.fixture
def journal(database_url: str) -> Iterator[Journal]:
    opened = Journal(database_url)
    migrate.upgrade(opened)
    meta.claim(opened, account="main", mode="paper", now_ms=1)
    yield opened
    opened.close()


def fill(connection: Connection, *, finished: int = FINISHED, opened: int = 30) -> None:
    """Write finished intents with an attempt each, one in fifty of them retried, and a few that are not finished."""
    rows, tries = [], []
    for number in range(finished + opened):
        is_open = number >= finished
        retried = number % 50 == 0
        at_ms = NOW_MS - (finished - number) * 10_000
        state = ("RECEIVED", "IN_DOUBT", "ACCEPTED")[number % 3] if is_open else "FILLED"
        rows.append(
            {
                "key": f"k{number}", "type": "order", "state": state, "attempt": 2 if retried else 1, "queue": "orders",
                "venue": "usdm", "symbol": "BTCUSDT", "content": "{}", "content_hash": "h", "opens_risk": True,
                "run_at_ms": at_ms if is_open else None, "created_at_ms": at_ms, "updated_at_ms": at_ms,
                "finished_at_ms": None if is_open else at_ms, "in_doubt_since_ms": at_ms if is_open else None,
                "is_algo": False, "cancel_requested": False,
            }
        )  # fmt: skip
        tries += [_attempt(f"k{number}", n, at_ms) for n in range(1, 3 if retried else 2)]
    connection.execute(insert(schema.intents), rows)
    connection.execute(insert(schema.attempts), tries)
    connection.execute(
        insert(schema.followups),
        [
            {
                "key": f"f{number}", "kind": "fetch_fills", "queue": "positions", "payload": "{}", "run_at_ms": NOW_MS,
                "created_at_ms": NOW_MS, "done_at_ms": None if number % 500 == 7 else NOW_MS,
            }
            for number in range(max(finished, 1))
        ],
    )  # fmt: skip


def _attempt(key: str, number: int, at_ms: int, **changes: object) -> dict[str, object]:
    return {
        "key": key, "attempt": number, "owner": "w1", "fence": number, "client_order_id": key, "timestamp_ms": at_ms,
        "recv_window_ms": 3000, "payload_hash": "p", "config_hash": "c", "dispatched_at_ms": at_ms + number,
        "outcome": "ACCEPTED", **changes,
    }  # fmt: skip


def plan(connection: Connection, query: measures.AnySelect) -> str:
    compiled = query.compile(connection, compile_kwargs={"render_postcompile": True})
    word = "EXPLAIN" if connection.dialect.name == "postgresql" else "EXPLAIN QUERY PLAN"
    statement = f"{word} {compiled}"
    return "\n".join(str(tuple(row)) for row in connection.exec_driver_sql(statement, _bound(compiled)))


def _bound(compiled: object) -> object:
    parameters = compiled.params  # type: ignore[attr-defined]
    order = compiled.positiontup  # type: ignore[attr-defined]
    return tuple(parameters[name] for name in order) if order else parameters


INDEXES = {
    "open_states": "intents_by_state",
    "named": "intents_by_state",
    "odd": "intents_by_state",
    "retries": "attempts_retried",
    "ended": "intents_retried",
    "intents_lag": "intents_due",
    "followups_lag": "followups_due",
}
SMALL = "intents_due|followups_due|intents_retried|attempts_retried"
SCAN = re.compile(
    "Seq Scan on (intents|attempts|followups)"
    rf"|SCAN (intents|attempts|followups)(?! USING (COVERING )?INDEX ({SMALL}))"
)


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def filled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Journal]:
    """A journal with a long past, of which plans are asked; nobody writes to it."""
    with contextlib.ExitStack() as stack:
        if request.param == "sqlite":
            url = migrated.sqlite_url(tmp_path_factory.mktemp("filled") / "journal.db")
        else:
            server: Postgres = request.getfixturevalue("postgres_server")
            template: str = request.getfixturevalue("journal_template")
            url = stack.enter_context(server.fresh_database(template=template))
        opened = Journal(url)
        stack.callback(opened.close)
        with opened.write() as connection:
            fill(connection)
            connection.execute(text("ANALYZE"))
        yield opened


@pytest.mark.parametrize("name", sorted(measures.queries(now_ms=NOW_MS)))
def test_question_of_a_scrape_is_answered_from_an_index_over_what_is_open_or_recent(filled: Journal, name: str) -> None:
    """Partial indexes hold nothing that is finished (or never retried), so that reading one of them whole is fine."""
    with filled.read() as connection:
        told = plan(connection, measures.queries(now_ms=NOW_MS)[name])
    assert SCAN.search(told) is None, told
    assert INDEXES[name] in told, told


def test_the_search_for_scans_sees_one(journal: Journal) -> None:
    """Else the test above would pass by being blind."""
    with journal.write() as connection:
        fill(connection, finished=50)
    with journal.read() as connection:
        table = schema.intents
        told = plan(connection, select(func.count()).select_from(table).where(table.c.reason == "x"))
    assert SCAN.search(told) is not None, told


def test_steps_of_a_scrape_do_not_grow_with_what_is_finished(journal: Journal) -> None:
    """Counted by SQLite itself, in steps of its machine; on PostgreSQL by the rows that its plans have touched."""
    with journal.write() as connection:
        fill(connection, finished=1_000)
        connection.execute(text("ANALYZE"))
    few = _work(journal)
    with journal.write() as connection:
        _more_finished(connection, 20_000)
        connection.execute(text("ANALYZE"))
    many = _work(journal)
    assert many <= few * 1.5 + 200, (few, many)


def _more_finished(connection: Connection, count: int) -> None:
    old_ms = NOW_MS - 30 * 24 * 3_600_000
    rows = [
        {
            "key": f"old{number}", "type": "order", "state": "FILLED", "attempt": 1 + (number % 50 == 0),
            "queue": "orders", "venue": "usdm", "symbol": "BTCUSDT", "content": "{}", "content_hash": "h",
            "opens_risk": True, "created_at_ms": old_ms, "updated_at_ms": old_ms, "finished_at_ms": old_ms,
            "is_algo": False, "cancel_requested": False,
        }
        for number in range(count)
    ]  # fmt: skip
    connection.execute(insert(schema.intents), rows)
    connection.execute(
        insert(schema.attempts),
        [_attempt(f"old{n}", a, old_ms) for n in range(count) for a in range(1, 3 if n % 50 == 0 else 2)],
    )


_TOUCHED = r"(?:actual.*rows=|Rows Removed by Filter: )([\d.]+)"


def _work(journal: Journal) -> int:
    work = 0
    with journal.read() as connection:
        for query in measures.queries(now_ms=NOW_MS).values():
            compiled = query.compile(connection, compile_kwargs={"render_postcompile": True})
            if journal.is_sqlite:
                raw = connection.connection.driver_connection
                steps: list[int] = []
                raw.set_progress_handler(lambda steps=steps: steps.append(1) and None, 1)  # type: ignore[union-attr,misc]
                connection.execute(query).all()
                raw.set_progress_handler(None, 0)  # type: ignore[union-attr]
                work += len(steps)
            else:
                rows = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT TEXT) {compiled}", _bound(compiled))
                work += sum(int(float(n)) for row in rows for n in re.findall(_TOUCHED, row[0]))
    return work


def test_open_states_are_counted_and_finished_ones_are_not(journal: Journal) -> None:
    with journal.write() as connection:
        fill(connection, finished=60, opened=30)
        states = measures.open_states(connection)
        assert {state.value: one.count for state, one in states.items() if one.count} == {
            "RECEIVED": 10, "IN_DOUBT": 10, "ACCEPTED": 10,
        }  # fmt: skip
        assert states[IntentState.IN_DOUBT].doubt_since_ms is not None
        assert len(measures.named(connection, IntentState.IN_DOUBT)) == 10


def test_retries_and_ends_are_those_of_the_window_only(journal: Journal) -> None:
    with journal.write() as connection:
        fill(connection, finished=1_000, opened=0)  # one every 10 s, so 360 within an hour, of which one in 50 retried
        since_ms = NOW_MS - 3_600_000
        found = measures.retries(connection, since_ms=since_ms, step_ms=10**15)
        assert found["order_usdm"][0] == measures.Retried(retries=7, intents=7)
        assert measures.ended(connection, since_ms=since_ms) == {
            "order_usdm": Ended(succeeded=7, failed=0, attempts=14)
        }
        assert measures.ended(connection, since_ms=NOW_MS) == {}


def test_lag_is_that_of_the_most_overdue_work_and_zero_without_any(journal: Journal) -> None:
    with journal.write() as connection:
        assert measures.lag(connection, now_ms=NOW_MS) == measures.Lag()
        fill(connection, finished=0, opened=1)
        assert measures.lag(connection, now_ms=NOW_MS + 2_000).intents_ms == 2_000


# Counts that must be right


def received(connection: Connection, key: str, **changes: object) -> IntentRow:
    values: dict[str, object] = {
        "key": key, "type": "order", "queue": "orders", "content": "{}", "content_hash": "h", "opens_risk": True,
        "created_at_ms": 1, "run_at_ms": 2, "venue": "usdm", "symbol": "BTCUSDT", **changes,
    }  # fmt: skip
    intents.insert(connection, [NewIntent(**values)])  # type: ignore[arg-type]  # the dataclass checks at run time
    return intents.load(connection, key)


def step(connection: Connection, key: str, after: IntentState, **changes: object) -> None:
    assert intents.move(connection, intents.load(connection, key), after, now_ms=5, **changes)


def test_order_that_succeeds_at_once_counts_nothing(journal: Journal) -> None:
    with journal.write() as connection:
        received(connection, "a")
        insert_attempt(connection, _attempt("a", 1, 10))
        step(connection, "a", IntentState.DISPATCHED, attempt=1)
        step(connection, "a", IntentState.FILLED)
        assert not any(tallies.read(connection).values())


@pytest.mark.parametrize(
    ("ends", "tally"), [(IntentState.FILLED, Tally.RETRY_SUCCESSES), (IntentState.REJECTED, Tally.RETRY_FAILURES)]
)
def test_retry_and_its_end_are_counted_once(journal: Journal, ends: IntentState, tally: Tally) -> None:
    with journal.write() as connection:
        received(connection, "a")
        for number in (1, 2):
            insert_attempt(connection, _attempt("a", number, 10))
            step(connection, "a", IntentState.DISPATCHED, attempt=number)
            if number == 1:
                step(connection, "a", IntentState.RETRY_WAIT)
        step(connection, "a", ends)
        counts = tallies.read(connection)
    assert counts[Tally.RETRIES] == {"order_usdm": 1}
    assert counts[tally] == {"order_usdm": 1}
    assert sum(sum(one.values()) for one in counts.values()) == 2 + (ends is IntentState.REJECTED)


def test_transaction_that_is_rolled_back_counts_nothing(journal: Journal) -> None:
    with pytest.raises(ZeroDivisionError), journal.write() as connection:  # noqa: PT012 - it must fail inside
        tallies.add(connection, Tally.RETRIES, "order_usdm", 5)
        raise ZeroDivisionError
    with journal.read() as connection:
        assert tallies.read(connection)[Tally.RETRIES] == {}


def test_same_intent_enqueued_again_is_a_blocked_duplicate_and_another_under_its_key_is_not(journal: Journal) -> None:
    with journal.write() as connection:
        received(connection, "a")
        received(connection, "a")
        received(connection, "a", content_hash="other")
        assert tallies.read(connection)[Tally.DUPLICATES_AT_ENQUEUE] == {"order_usdm": 1}


def test_quarantine_is_counted_in_the_transaction_that_moves_there(journal: Journal) -> None:
    with journal.write() as connection:
        received(connection, "a")
        step(connection, "a", IntentState.QUARANTINED)
        assert tallies.read(connection)[Tally.QUARANTINED] == {"order_usdm": 1}


# The history


def test_history_comes_whole_and_in_order_over_many_pages(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempt_history, "PAGE", 7)
    with journal.write() as connection:
        fill(connection, finished=100, opened=3)
    pages = list(attempt_history.pages(journal, Wanted()))
    listed = [(one.key, one.attempt) for page in pages for one in page]
    assert len(listed) == len(set(listed)) == 103 + 3
    assert max(map(len, pages)) == 7
    newest = [(o.key, o.attempt) for p in attempt_history.pages(journal, Wanted(), newest_first=True) for o in p]
    assert newest == listed[::-1]


def test_history_of_attempts_at_one_instant_loses_none_between_pages(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt_history, "PAGE", 2)
    with journal.write() as connection:
        for key in ("a", "b", "c", "d", "e"):
            received(connection, key)
            for number in (1, 2, 3):
                insert_attempt(connection, _attempt(key, number, 100, dispatched_at_ms=100))
    listed = [(one.key, one.attempt) for page in attempt_history.pages(journal, Wanted()) for one in page]
    assert listed == [(key, number) for key in "abcde" for number in (1, 2, 3)]


def test_history_is_filtered_by_time_type_class_and_retry(journal: Journal) -> None:
    with journal.write() as connection:
        received(connection, "a")
        received(connection, "s", venue="spot")
        insert_attempt(connection, _attempt("a", 1, 100, failure_class="rate_limited", outcome="REFUSED"))
        insert_attempt(connection, _attempt("a", 2, 200, outcome=None))
        insert_attempt(connection, _attempt("s", 1, 300))

    def keys(**wanted: object) -> list[tuple[str, int, str]]:
        pages = attempt_history.pages(journal, Wanted(**wanted))  # type: ignore[arg-type]
        return [(one.key, one.attempt, one.result) for page in pages for one in page]

    assert keys() == [("a", 1, "REFUSED"), ("a", 2, "OPEN"), ("s", 1, "ACCEPTED")]
    assert keys(since_ms=202) == [("a", 2, "OPEN"), ("s", 1, "ACCEPTED")]
    assert keys(job_type="order_spot") == [("s", 1, "ACCEPTED")]
    assert len(keys(job_type="order")) == 3
    assert keys(job_type="cancel") == []
    assert keys(failure_class="rate_limited") == [("a", 1, "REFUSED")]
    assert keys(only_retries=True) == [("a", 2, "OPEN")]


def test_page_of_the_history_is_read_by_its_index(filled: Journal) -> None:
    with filled.read() as connection:
        query = attempt_history.page_query(Wanted(since_ms=NOW_MS - 60_000), None, newest_first=False, size=100)
        assert "attempts_by_time" in plan(connection, query)
