"""The audit trail on both databases: whatever is done to it behind our back shows."""

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Connection, delete, insert, select, update

from app.journal import audit, meta, migrate, schema
from app.journal.audit import AuditRow
from app.journal.engine import Journal

A = schema.audit
ROWS = 6


@pytest.fixture
def journal(database_url: str) -> Iterator[Journal]:
    opened = Journal(database_url)
    migrate.upgrade(opened)
    meta.claim(opened, account="main", mode="paper", now_ms=1)
    with opened.write() as connection:
        for number in range(ROWS):
            append(connection, number)
    yield opened
    opened.close()


def append(connection: Connection, number: int) -> AuditRow:
    return audit.append(
        connection, now_ms=number, actor="anna", action="kill_switch", subject="kill_switch", detail={"n": number}
    )


def verified(journal: Journal) -> list[str]:
    with journal.moment() as connection:
        return audit.verify(connection)


def changed(**values: object) -> Callable[[Connection], None]:
    return lambda connection: connection.execute(update(A).where(A.c.seq == 3).values(**values)) and None


def missing(*numbers: int) -> Callable[[Connection], None]:
    return lambda connection: connection.execute(delete(A).where(A.c.seq.in_(numbers))) and None


def swapped(connection: Connection) -> None:
    for before, after in ((2, 100), (3, 2), (100, 3)):
        connection.execute(update(A).where(A.c.seq == before).values(seq=after))


def rewritten_tail(connection: Connection) -> None:
    """Take the last row away and put another in its place, with a hash that fits the chain."""
    last = audit.newest(connection, limit=1)[0]
    connection.execute(delete(A).where(A.c.seq == last.seq))
    content = [last.seq, last.at_ms, "mallory", last.action, last.subject, last.detail]
    forged = {**{name: getattr(last, name) for name in AuditRow.__dataclass_fields__}, "actor": "mallory"}
    forged["hash"] = audit._hash(last.previous_hash, content)
    connection.execute(insert(A).values(**forged))


def added(connection: Connection) -> None:
    """Append a row, with a hash that fits, as somebody who forgets the anchor."""
    last = audit.newest(connection, limit=1)[0]
    content = [last.seq + 1, 9, "mallory", "x", "y", "{}"]
    row = dict(zip(("seq", "at_ms", "actor", "action", "subject", "detail"), content, strict=True))
    connection.execute(insert(A).values(**row, previous_hash=last.hash, hash=audit._hash(last.hash, content)))


def test_trail_that_nobody_touched_is_whole(journal: Journal) -> None:
    assert verified(journal) == []


@pytest.mark.parametrize(
    ("tamper", "told"),
    [
        pytest.param(changed(actor="bob"), "row 3 was changed", id="actor"),
        pytest.param(changed(at_ms=99), "row 3 was changed", id="time"),
        pytest.param(changed(detail='{"n": 7}'), "row 3 was changed", id="detail"),
        pytest.param(changed(hash="0" * 64), "row 3 was changed", id="hash"),
        pytest.param(missing(1), "row 1 is missing: the trail goes on with row 2", id="first"),
        pytest.param(missing(3, 4), "rows 3 to 4 are missing: the trail goes on with row 5", id="middle"),
        pytest.param(missing(6), "row 6 is missing at the end", id="last"),
        pytest.param(missing(4, 5, 6), "rows 4 to 6 are missing at the end", id="tail"),
        pytest.param(missing(*range(1, 7)), "rows 1 to 6 are missing at the end", id="all"),
        pytest.param(swapped, "row 2 was changed", id="swapped"),
        pytest.param(rewritten_tail, "row 6 is not the one that the anchor names", id="rewritten"),
        pytest.param(added, "row 7 is not ours: added past the anchor", id="added"),
        pytest.param(
            lambda connection: connection.execute(delete(schema.audit_anchor)) and None,
            "the anchor is missing: rows may be missing at the end",
            id="anchor",
        ),
    ],
)
def test_whatever_is_done_to_the_trail_shows(journal: Journal, tamper: Callable[[Connection], None], told: str) -> None:
    with journal.write() as connection:
        tamper(connection)
    assert told in verified(journal)


def test_trail_rewritten_from_a_row_on_with_its_anchor_shows_against_a_noted_head(journal: Journal) -> None:
    with journal.read() as connection:
        last = audit.last(connection)
        assert last is not None
    with journal.read() as connection:
        assert audit.verify(connection, head=(last.seq, last.hash)) == []
    with journal.write() as connection:
        connection.execute(delete(A).where(A.c.seq >= 5))
        fifth = audit.last(connection)
        assert fifth is not None
        connection.execute(update(schema.audit_anchor).values(seq=fifth.seq, hash=fifth.hash))
        append(connection, 1_000)
        append(connection, 1_001)
        assert audit.verify(connection) == [], "whoever can write everything can forge everything"
        assert audit.verify(connection, head=(last.seq, last.hash)) == [
            "row 6 is not the one that was noted: another hash"
        ]
        assert audit.verify(connection, head=(7, "x")) == ["row 7 is not the one that was noted: it is missing"]


def test_trail_longer_than_a_page_is_read_to_its_end(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "PAGE", 2)
    assert verified(journal) == []
    with journal.write() as connection:
        connection.execute(update(A).where(A.c.seq == 6).values(actor="bob"))
    assert verified(journal) == ["row 6 was changed"]


def test_row_that_is_appended_meanwhile_is_no_problem(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(postgres_url)
    migrate.upgrade(journal)
    read_all = audit._all

    def while_others_write(connection: Connection) -> Iterator[AuditRow]:
        for row in read_all(connection):
            yield row
            with journal.write() as other:
                append(other, row.seq)

    with journal.write() as connection:
        append(connection, 0)
        append(connection, 1)
    monkeypatch.setattr(audit, "PAGE", 1)
    monkeypatch.setattr(audit, "_all", while_others_write)
    assert verified(journal) == []
    with journal.read() as connection:
        assert connection.execute(select(schema.audit_anchor.c.seq)).scalar() == 4
    journal.close()


def test_append_that_is_rolled_back_moves_no_anchor(journal: Journal) -> None:
    def attempt() -> None:
        with journal.write() as connection:
            append(connection, 7)
            raise RuntimeError("the process dies here")

    with pytest.raises(RuntimeError):
        attempt()
    with journal.read() as connection:
        assert connection.execute(select(schema.audit_anchor.c.seq)).scalar() == ROWS
    assert verified(journal) == []


def test_newest_rows_come_in_their_order(journal: Journal) -> None:
    with journal.read() as connection:
        assert [row.seq for row in audit.newest(connection, limit=2)] == [5, 6]
        assert [row.seq for row in audit.newest(connection, subject="nothing")] == []
        assert len(audit.newest(connection)) == ROWS
