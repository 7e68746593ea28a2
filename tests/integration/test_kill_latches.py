"""What holds the kill switch in the journal: one latch per source; and the way there from the first schema."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from alembic import command
from sqlalchemy import select, text

from app.job_safety.kill_switch import KillSource, KillState
from app.journal import audit, followups, kill_latches, meta, migrate, schema
from app.journal.engine import Journal
from app.journal.kill_latches import Change, Changed

S, K = KillSource, KillState


@pytest.fixture
def journal(database_url: str) -> Iterator[Journal]:
    opened = Journal(database_url)
    migrate.upgrade(opened)
    meta.claim(opened, account="main", mode="paper", now_ms=1)
    yield opened
    opened.close()


def change(journal: Journal, source: KillSource, state: KillState, reason: str = "why") -> Changed | None:
    with journal.write() as connection:
        wish = Change(source=source, state=state, actor="anna", reason=reason, config_hash="c")
        return kill_latches.change(connection, wish, now_ms=5)


def stamp(journal: Journal) -> tuple[str, str, int]:
    with journal.read() as connection:
        found = meta.load(connection)
    return found.kill_state, found.kill_reason, found.kill_epoch


def test_strictest_latch_rules_and_the_next_one_does_when_it_is_released(journal: Journal) -> None:
    change(journal, S.REDIS_KEY, K.REDUCE_ONLY, "key")
    change(journal, S.FILE, K.HALT, "file")
    change(journal, S.OPERATOR, K.CANCEL_ONLY, "person")
    assert stamp(journal) == ("HALT", "file", 3)
    change(journal, S.FILE, K.RUN)
    assert stamp(journal) == ("CANCEL_ONLY", "person", 4)
    change(journal, S.OPERATOR, K.RUN)
    assert stamp(journal) == ("REDUCE_ONLY", "key", 5)
    change(journal, S.REDIS_KEY, K.RUN)
    assert stamp(journal) == ("RUN", "", 6)


def test_change_that_changes_nothing_leaves_no_trace(journal: Journal) -> None:
    assert change(journal, S.OPERATOR, K.RUN) is None
    assert change(journal, S.OPERATOR, K.HALT) is not None
    assert change(journal, S.OPERATOR, K.HALT, "again") is None
    with journal.read() as connection:
        assert len(audit.rows(connection)) == 1
        assert len(followups.open_of_kind(connection, followups.ALERT, now_ms=9, limit=9)) == 1
    assert stamp(journal) == ("HALT", "why", 1)


def test_second_latch_changes_no_state_and_is_audited_all_the_same(journal: Journal) -> None:
    change(journal, S.OPERATOR, K.HALT)
    changed = change(journal, S.FILE, K.REDUCE_ONLY)
    assert changed is not None
    assert (changed.before, changed.after, changed.epoch) == (K.HALT, K.HALT, 2)
    with journal.read() as connection:
        assert [row.head for row in audit.rows(connection)][-1] == changed.audit_head


def test_change_rolled_back_leaves_neither_audit_row_nor_alert(journal: Journal) -> None:
    def attempt() -> None:
        with journal.write() as connection:
            wish = Change(source=S.OPERATOR, state=K.HALT, actor="anna", reason="r")
            kill_latches.change(connection, wish, now_ms=5)
            raise RuntimeError("the process dies here")

    with pytest.raises(RuntimeError):
        attempt()
    with journal.read() as connection:
        assert audit.rows(connection) == []
        assert connection.execute(select(schema.followups)).all() == []
    assert stamp(journal) == ("RUN", "", 0)


def test_change_waits_for_every_dispatch_that_has_read_the_switch(postgres_url: str) -> None:
    """On SQLite there is one writer anyway."""
    journal = Journal(postgres_url)
    migrate.upgrade(journal)
    meta.claim(journal, account="main", mode="paper", now_ms=1)
    waiting = text(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    with ThreadPoolExecutor(1) as other, journal.read() as watcher:
        with journal.write() as dispatching:
            assert meta.load(dispatching, share=True).kill_state == "RUN"
            thrown = other.submit(change, journal, S.OPERATOR, K.HALT)
            deadline = time.monotonic() + 30
            while not watcher.execute(waiting).scalar():
                watcher.execute(text("SELECT pg_stat_clear_snapshot()"))
                assert not thrown.done(), "the switch was thrown while a dispatch believed that it was off"
                assert time.monotonic() < deadline
        assert thrown.result(30) is not None
    journal.close()


def test_alerts_wait_for_the_keeper_and_are_no_work_of_a_queue(journal: Journal) -> None:
    change(journal, S.OPERATOR, K.HALT)
    with journal.read() as connection:
        assert followups.overdue(connection, now_ms=10**15, limit=10) == []


@pytest.mark.parametrize(
    ("state", "reason", "source"),
    [
        ("HALT", "by Redis key", "redis_key"),
        ("HALT", "this journal is new, and the account has orders of ours: reconcile first", "system"),
        ("CANCEL_ONLY", "anna", "operator"),
        ("RUN", "", None),
    ],
)
def test_journal_of_the_first_schema_goes_on_to_hold_what_it_held(
    empty_database_url: str, state: str, reason: str, source: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(empty_database_url)
    with monkeypatch.context() as first:  # as the first version made it
        upgrade = command.upgrade
        first.setattr(command, "upgrade", lambda config, _: upgrade(config, "0001"))
        migrate.upgrade(journal)
    columns = "installation, account, mode, created_at_ms, kill_state, kill_reason"
    with journal.write() as connection:
        connection.execute(
            text(f"INSERT INTO journal_meta (id, {columns}) VALUES (1, 'i', 'main', 'paper', 1, :state, :reason)"),
            {"state": state, "reason": reason},
        )
        connection.execute(text("INSERT INTO audit VALUES (1, 1, 'a', 'b', 'c', '{}', 'p', 'h')"))
    assert migrate.upgrade(journal)
    with journal.read() as connection:
        held = [(latch.source.value, latch.state.value, latch.reason) for latch in kill_latches.held(connection)]
        anchor = connection.execute(select(schema.audit_anchor.c.seq, schema.audit_anchor.c.hash)).all()
    journal.close()
    assert held == ([] if source is None else [(source, state, reason)])
    assert anchor == [(1, "h")]
