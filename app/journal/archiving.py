"""Moves the bulk of intents that are long over out of the tables that are worked on, a small batch at a time.

Each batch is one transaction: whoever is killed has moved all of it or nothing, and goes on where it stands when it
runs again. What may still move is left where it is: the rules are in `_verdict`, and are asked again once the rows are
held.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    case,
    delete,
    insert,
    literal_column,
    or_,
    select,
    tuple_,
    update,
)

from app.clock import Clock
from app.job_safety.state import TERMINAL_STATES
from app.journal import archive, audit, schema
from app.journal.engine import Journal
from app.journal.sql import MAX_ROWS_PER_STATEMENT

BATCH: Final = 200
"""Intents per transaction: on SQLite nobody else writes while a batch is moved."""

PAGE: Final = 2_000
"""Intents that one question looks at."""

MIN_AGE_MS: Final = 24 * 3_600_000
"""Younger ones are in the windows of metrics, and the exchange may still show them late."""

ARCHIVED: Final = "archived"
"""The action in the audit trail."""

READY: Final = "ready"
_MOVED: Final = "archived before"

_I, _A, _F = schema.intents, schema.attempts, schema.followups
_PARENT, _CHILD = _I.alias("parent"), _I.alias("child")
_FINAL: Final = tuple(sorted(state.value for state in TERMINAL_STATES))


class Copies(Protocol):
    """Gets a copy of what is archived, before it is."""

    name: str
    """How it is called in the journal and the trail."""

    def keep(self, batch: Sequence[tuple[archive.Row, bytes]], *, at_ms: int) -> None:
        """Keep rows of `intents` with their bodies for good, on disk when this returns."""


@dataclass(slots=True, kw_only=True)
class Report:
    """What a run did. `kept`: why how many intents of that age stay for now."""

    archived: int = 0
    batches: int = 0
    kept: Counter[str] = field(default_factory=Counter)


def run(
    journal: Journal,
    clock: Clock,
    *,
    older_than_ms: int,
    by: str,
    copies: Copies | None = None,
    is_dry: bool = False,
    on_progress: Callable[[Report], None] = lambda _: None,
) -> Report:
    """Archive every intent that ended more than `older_than_ms` ago and of which nothing is left to be done.

    Between two batches it waits as long as the last one took, so that others get to write.

    Args:
        journal: The journal.
        clock: The clock.
        older_than_ms: At least `MIN_AGE_MS`.
        by: Who does it, for the audit trail.
        copies: Where a copy goes.
        is_dry: Only count what would be archived.
        on_progress: Called after each batch.

    Raises:
        ValueError: `older_than_ms` is too short.
        StoreUnavailableError: the journal does not answer; what was archived is, and the rest can be by another run.
    """
    if older_than_ms < MIN_AGE_MS:
        raise ValueError(f"archive nothing younger than {MIN_AGE_MS // 3_600_000} hours")
    report = Report()
    cutoff_ms = clock.now_ms() - older_than_ms
    for ready in _pages(journal, cutoff_ms, report):
        if is_dry:
            report.archived += len(ready)
            continue
        for start in range(0, len(ready), BATCH):
            began_s = clock.monotonic()
            with journal.write() as connection:
                moved = move(
                    connection, ready[start : start + BATCH], cutoff_ms=cutoff_ms, now_ms=clock.now_ms(), by=by,
                    copies=copies,
                )  # fmt: skip
            report.archived += moved
            report.batches += 1
            on_progress(report)
            clock.sleep(clock.monotonic() - began_s)
    return report


def move(
    connection: Connection,
    keys: Sequence[str],
    *,
    cutoff_ms: int,
    now_ms: int,
    by: str,
    copies: Copies | None = None,
) -> int:
    """Archive those of `keys` that may be, in the caller's transaction; return how many. Nothing may come after it.

    Rows that somebody holds are passed over. The copy is on disk before the transaction commits: a crash between the
    two leaves a copy of what is in its place still.
    """
    held = list(connection.execute(_held(keys)).scalars())
    # Asked only now: what was decided before the rows were held may be over.
    going = _rows(connection, select(_I).where(_I.c.key.in_(held), _verdict(cutoff_ms) == READY).order_by(_I.c.key))
    if not going:
        return 0
    moved = [row["key"] for row in going]
    rows = _bulk(connection, moved)
    packed = [(row, archive.pack(row["content"], rows[row["key"]])) for row in going]
    file = None
    if copies is not None:
        copies.keep(packed, at_ms=now_ms)
        file = copies.name
    connection.execute(
        insert(schema.archive),
        [{"key": row["key"], "archived_at_ms": now_ms, "file": file, "body": body} for row, body in packed],
    )
    _take_out(connection, moved, rows)
    audit.append(
        connection, now_ms=now_ms, actor=by, action=ARCHIVED, subject="archive",
        detail={"intents": len(moved), "first": moved[0], "last": moved[-1], "file": file,
                "why": f"ended before {cutoff_ms} ms"},
    )  # fmt: skip
    return len(moved)


def _pages(journal: Journal, cutoff_ms: int, report: Report) -> Iterator[list[str]]:
    """Yield the keys that may be archived, page by page, in the order in which they were made."""
    after: tuple[int, str] | None = None
    while True:
        with journal.read() as connection:
            page = connection.execute(page_query(after, cutoff_ms=cutoff_ms)).all()
        if not page:
            return
        report.kept.update(row.verdict for row in page if row.verdict not in {READY, _MOVED})
        yield [row.key for row in page if row.verdict == READY]
        after = (page[-1].created_at_ms, page[-1].key)


def page_query(after: tuple[int, str] | None, *, cutoff_ms: int) -> Any:
    """The question for the page behind `after`: keys, and what is to be done with each."""
    page = select(_I.c.key, _I.c.created_at_ms).where(_I.c.created_at_ms <= cutoff_ms)
    if after is not None:
        # The second says less than the first, in the form that the index on created_at_ms can use.
        page = page.where(tuple_(_I.c.created_at_ms, _I.c.key) > after, _I.c.created_at_ms >= after[0])
    here = page.order_by(_I.c.created_at_ms, _I.c.key).limit(PAGE).subquery("page")
    query = select(here.c.key, here.c.created_at_ms, _verdict(cutoff_ms).label("verdict"))
    return query.join_from(here, _I, _I.c.key == here.c.key).order_by(here.c.created_at_ms, here.c.key)


def _verdict(cutoff_ms: int) -> ColumnElement[str]:
    """What is to be done with an intent: `ready`, `archived before`, or why it stays."""
    open_parent = _has(_PARENT, _PARENT.c.key == _I.c.parent_key, _is_open(_PARENT))
    open_child = _has(_CHILD, _CHILD.c.parent_key == _I.c.key, _is_open(_CHILD))
    return case(
        (_I.c.content == "", _MOVED),
        (_I.c.state.not_in(_FINAL), "not finished"),
        (_I.c.booked_at_ms.is_(None), "not booked"),
        (or_(_I.c.finished_at_ms.is_(None), _I.c.updated_at_ms >= cutoff_ms), "ended or changed too recently"),
        (or_(_I.c.run_at_ms.is_not(None), _I.c.watch_until_ms >= cutoff_ms), "still looked after"),
        (_has(_F, _F.c.intent_key == _I.c.key, _F.c.done_at_ms.is_(None)), "a follow-up is open"),
        (
            _has(_A, _A.c.key == _I.c.key, or_(_A.c.outcome.is_(None), _A.c.seal.is_(None))),
            "an attempt is not settled or not sealed",
        ),
        (or_(open_parent, open_child), "its order, or a part of it, is not finished"),
        else_=READY,
    )


def _held(keys: Sequence[str]) -> Any:
    return select(_I.c.key).where(_I.c.key.in_(keys)).order_by(_I.c.key).with_for_update(skip_locked=True)


def _bulk(connection: Connection, keys: Sequence[str]) -> dict[str, dict[str, list[archive.Row]]]:
    """Return all that moves with these intents: by key, then by table."""
    found: dict[str, dict[str, list[archive.Row]]] = {key: {name: [] for name in archive.TABLES} for key in keys}
    owners: dict[str, str] = {}
    proofs, inbox = schema.proofs, schema.inbox
    for row in _rows(connection, select(_A).where(_A.c.key.in_(keys)).order_by(_A.c.key, _A.c.attempt)):
        found[row["key"]]["attempts"].append(row)
    for row in _rows(connection, select(proofs).where(proofs.c.key.in_(keys)).order_by(proofs.c.id)):
        found[row["key"]]["proofs"].append(row)
    for row in _rows(connection, select(_F).where(_F.c.intent_key.in_(keys)).order_by(_F.c.key)):
        found[row["intent_key"]]["followups"].append(row)
        owners[row["key"]] = row["intent_key"]
    for some in _chunks(sorted(owners)):
        for row in _rows(connection, select(inbox).where(inbox.c.key.in_(some)).order_by(inbox.c.key)):
            found[owners[row["key"]]]["inbox"].append(row)
    return found


def _take_out(
    connection: Connection, keys: Sequence[str], rows: Mapping[str, Mapping[str, Sequence[archive.Row]]]
) -> None:
    """Delete what has been packed, and nothing that came since."""
    for table, of_intent in ((_A, _A.c.key), (schema.proofs, schema.proofs.c.key)):
        connection.execute(delete(table).where(of_intent.in_(keys)))
    for name, table in (("followups", _F), ("inbox", schema.inbox)):
        packed = sorted(row["key"] for each in rows.values() for row in each[name])
        for some in _chunks(packed):
            connection.execute(delete(table).where(table.c.key.in_(some)))
    connection.execute(update(_I).where(_I.c.key.in_(keys)).values(content=""))


def _rows(connection: Connection, query: Any) -> list[archive.Row]:
    return [dict(row) for row in connection.execute(query).mappings()]


def _chunks(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(keys), MAX_ROWS_PER_STATEMENT):
        yield keys[start : start + MAX_ROWS_PER_STATEMENT]


def _has(table: FromClause, *conditions: ColumnElement[bool]) -> ColumnElement[bool]:
    """Whether a row meets the conditions. Not EXISTS: for that, PostgreSQL may read all of `table` into memory."""
    return select(literal_column("1")).select_from(table).where(*conditions).limit(1).scalar_subquery().is_not(None)


def _is_open(table: Any) -> ColumnElement[bool]:
    return or_(table.c.state.not_in(_FINAL), table.c.booked_at_ms.is_(None))
