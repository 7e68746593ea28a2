"""Intents in the journal: one row each for ever, moved only by compare-and-set on (state, attempt, fence)."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from operator import attrgetter
from typing import Any, Final

from sqlalchemy import Connection, Integer, Select, and_, bindparam, func, or_, select, update

from app.job_safety.errors import IntentNotFoundError, InvariantViolatedError
from app.job_safety.retry_metrics import job_type_of
from app.job_safety.state import DOUBTFUL, LIVE, ON_EXCHANGE, TERMINAL_STATES, IntentState, advance
from app.journal import archive, schema, tallies
from app.journal.prepared import Bound, Prepared, counts_of
from app.journal.rows import IntentRow, intent_row
from app.journal.sql import MAX_ROWS_PER_STATEMENT, insert_many, word
from app.journal.tallies import Tally

_T = schema.intents
COLUMNS: Final = tuple(column.name for column in _T.c)
_BY_KEY = select(_T).where(_T.c.key == bindparam("key"))
_FIND = Prepared(_BY_KEY)
_LOCK = Prepared(_BY_KEY.with_for_update())
_IN_DOUBT = Prepared(
    select(_T.c.venue, func.min(_T.c.run_at_ms))
    .where(or_(*(_T.c.state == word(state.value) for state in sorted(DOUBTFUL))), _T.c.type == word("order"))
    .group_by(_T.c.venue)
)

_ANY_DUE = (
    select(_T)
    .where(
        _T.c.run_at_ms <= bindparam("now_ms"),
        or_(
            _T.c.type == word("cancel"),
            and_(*(_T.c.state != word(state.value) for state in sorted(DOUBTFUL | LIVE))),
        ),
    )
    .order_by(_T.c.run_at_ms)
    .limit(bindparam("most", type_=Integer))
)
_DUE = Prepared(_ANY_DUE)
_DUE_OF_QUEUE = Prepared(_ANY_DUE.where(_T.c.queue == bindparam("in_queue")))

RETRIED_FROM: Final = 2
"""The number of the attempt from which an intent counts as retried."""


class Taken(StrEnum):
    """What became of a submission. The values are what `enqueue` prints."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewIntent:
    """An intent as it is first written. `run_at_ms` is when it may first be worked on.

    `description` is not written: it is what `describe` says of the content, where that is known already.
    """

    key: str
    type: str
    queue: str
    content: str
    content_hash: str
    opens_risk: bool
    created_at_ms: int
    run_at_ms: int
    venue: str | None = None
    symbol: str | None = None
    client_order_id: str | None = None
    parent_key: str | None = None
    leg: str | None = None
    is_algo: bool = False
    valid_until_ms: int | None = None
    description: str = ""


_NEW: Final = tuple(name for name in NewIntent.__dataclass_fields__ if name != "description")
_WRITTEN: Final = (*_NEW, "state", "updated_at_ms")
_values_of = attrgetter(*_NEW)


def insert(connection: Connection, new: Sequence[NewIntent]) -> list[Taken]:
    """Write intents that are not known yet; tell for each whether it is new, the same again, or another under its key.

    Two of the same key in one call are compared as well: the first one wins.
    """
    first: dict[str, NewIntent] = {}
    for intent in new:
        first.setdefault(intent.key, intent)
    rows = [(*_values_of(intent), IntentState.RECEIVED.value, intent.created_at_ms) for intent in first.values()]
    written = insert_many(connection, _T, _WRITTEN, rows)
    known = _hashes(connection, [key for key in first if key not in written])
    result: list[Taken] = []
    for intent in new:
        if intent.key in written:
            written.discard(intent.key)
            known[intent.key] = intent.content_hash
            result.append(Taken.ACCEPTED)
        else:
            result.append(Taken.DUPLICATE if known[intent.key] == intent.content_hash else Taken.CONFLICT)
    again = Counter(
        job_type_of(intent.type, intent.venue)
        for intent, taken in zip(new, result, strict=True)
        if taken is Taken.DUPLICATE
    )
    for job_type, count in sorted(again.items()):
        tallies.add(connection, Tally.DUPLICATES_AT_ENQUEUE, job_type, count)
    return result


def load(connection: Connection, key: str, *, lock: bool = False) -> IntentRow:
    """Return the intent; with `lock`, hold its row until the transaction ends.

    Raises:
        IntentNotFoundError: the journal does not know the key.
    """
    row = find(connection, key, lock=lock)
    if row is None:
        raise unknown(key)
    return row


def unknown(key: str) -> IntentNotFoundError:
    """Return the error of a key that the journal does not know."""
    return IntentNotFoundError(f"the journal knows no intent with key {key[:200]!r}")


def find(connection: Connection, key: str, *, lock: bool = False) -> IntentRow | None:
    """Return the intent, or None. What is archived is read from there, and with `lock` brought back first."""
    found = (_LOCK if lock else _FIND).rows(connection, key=key)
    if not found:
        return None
    row = rows_from(found)[0]
    if row.content:
        return row
    whole = archive.whole(connection, row, bring_back=lock)
    if whole is None and not lock:
        # PostgreSQL reads statement by statement: somebody may have brought it back in between.
        row = rows_from(_FIND.rows(connection, key=key))[0]
        whole = row if row.content else None
    if whole is None:
        raise InvariantViolatedError(f"{key}: archived, and missing in the table archive: take it from a backup")
    return whole


def move(connection: Connection, row: IntentRow, after: IntentState, *, now_ms: int, **changes: object) -> bool:
    """Move `row` to `after` if nobody has moved it since it was read; return whether it moved. See `move_with`."""
    return move_with(connection, row, after, [], now_ms=now_ms, **changes)[0] is not None


def move_with(
    connection: Connection, row: IntentRow, after: IntentState, also: Sequence[Bound], *, now_ms: int, **changes: object
) -> tuple[IntentRow | None, list[int]]:
    """Move `row` to `after` if nobody has moved it since it was read, and run `also` behind it.

    Args:
        connection: A write transaction.
        row: The row as it was read: its (state, attempt, fence) are compared.
        after: The new state.
        also: Statements that go to the database together with the move. Whoever gives any leaves the transaction by an
            exception if the row had been moved: they have run all the same.
        now_ms: Stamped on the row; a terminal state also gets `finished_at_ms`.
        **changes: Other columns to set.

    Returns:
        The row as it is now, or None if it had been moved; and how many rows each of `also` touched.

    Raises:
        IllegalTransitionError: the state machine has no such move.
    """
    statement, moved = moving(row, after, now_ms=now_ms, **changes)
    touched, *counts = counts_of(connection, statement, *also)
    if touched != 1:
        return None, counts
    _tally(connection, row, after, moved.attempt)
    return moved, counts


def moving(row: IntentRow, after: IntentState, *, now_ms: int, **changes: object) -> tuple[Bound, IntentRow]:
    """Return the statement of `move_with`, to be run with others, and the row as it is once that has touched it.

    What `move_with` counts besides is left to the caller; a first attempt that is taken by the exchange counts nothing.

    Raises:
        IllegalTransitionError: the state machine has no such move.
    """
    advance(row.type, row.state, after)
    values: dict[str, object] = {"state": after.value, "updated_at_ms": now_ms, "rescues": 0, **changes}
    if after in TERMINAL_STATES:
        values.setdefault("finished_at_ms", now_ms)
        values.setdefault("run_at_ms", None)
    moved = row._replace(**{**values, "state": after})  # type: ignore[arg-type]  # columns have the row's names
    return _compare_and_set(row, values), moved


def _tally(connection: Connection, row: IntentRow, after: IntentState, attempt: int) -> None:
    """Count in the same transaction what must be right whatever dies. The happy path counts nothing here."""
    if after is IntentState.QUARANTINED:
        tallies.add(connection, Tally.QUARANTINED, row.job_type)
    if after is IntentState.REJECTED and row.type == "order":
        tallies.add(connection, Tally.REJECTED, row.venue or "none")
    if attempt < RETRIED_FROM or row.state in ON_EXCHANGE:
        return
    if after in ON_EXCHANGE or after is IntentState.DONE:
        tallies.add(connection, Tally.RETRY_SUCCESSES, row.job_type)
    elif after in TERMINAL_STATES:
        tallies.add(connection, Tally.RETRY_FAILURES, row.job_type)


def touch(connection: Connection, row: IntentRow, *, now_ms: int, **changes: object) -> bool:
    """Change columns of `row` without a change of state, under the same comparison; return whether it happened."""
    return counts_of(connection, _compare_and_set(row, {"updated_at_ms": now_ms, **changes})) == [1]


def count_deaths(connection: Connection, keys: Sequence[str]) -> None:
    """Count for each intent that whoever worked on it died or broke; a change of state sets the count back."""
    unfinished = _T.c.state.not_in([state.value for state in TERMINAL_STATES])
    connection.execute(update(_T).where(_T.c.key.in_(list(keys)), unfinished).values(rescues=_T.c.rescues + 1))


def due_for_delivery(connection: Connection, *, now_ms: int, limit: int, queue: str | None = None) -> list[IntentRow]:
    """Return intents that a queue (or the one named) should be moving and whose `run_at_ms` has come, oldest first.

    Orders in doubt or resting at the exchange are others' to look after; cancels always are the queue's.
    """
    if queue is None:
        return rows_from(_DUE.rows(connection, now_ms=now_ms, most=limit))
    return rows_from(_DUE_OF_QUEUE.rows(connection, now_ms=now_ms, most=limit, in_queue=queue))


def venues_in_doubt(connection: Connection) -> dict[str, int | None]:
    """Return the venues that have an order in doubt, and when the first of each is due; None: none is for now."""
    return dict(_IN_DOUBT.rows(connection))


def doubts_due(connection: Connection, *, venue: str, now_ms: int, limit: int) -> list[IntentRow]:
    """Return orders of `venue` in doubt whose `run_at_ms` has come, oldest first."""
    doubtful = _T.c.state.in_([state.value for state in DOUBTFUL])
    wanted = and_(_T.c.type == "order", _T.c.venue == venue, doubtful, _T.c.run_at_ms <= now_ms)
    return _rows(connection, select(_T).where(wanted).order_by(_T.c.run_at_ms).limit(limit))


def in_states(
    connection: Connection, states: Sequence[IntentState], *, limit: int, intent_type: str | None = None
) -> list[IntentRow]:
    """Return intents in any of `states`, oldest first."""
    return rows_from(_of_states(tuple(states), intent_type).rows(connection, most=limit))


@cache
def _of_states(states: tuple[IntentState, ...], intent_type: str | None) -> Prepared:
    query = select(_T).where(or_(*(_T.c.state == word(state.value) for state in states)))
    if intent_type is not None:
        query = query.where(_T.c.type == word(intent_type))
    return Prepared(query.order_by(_T.c.created_at_ms).limit(bindparam("most", type_=Integer)))


def count_orders(connection: Connection, states: Collection[IntentState]) -> int:
    """Return how many orders are in any of `states`."""
    named = _T.c.state.in_([state.value for state in states])
    return connection.execute(select(func.count()).where(_T.c.type == "order", named)).scalar_one()


def by_order_ids(connection: Connection, *, venue: str, symbol: str, order_ids: Sequence[int]) -> dict[int, IntentRow]:
    """Return the intents that own these exchange orders, by order id."""
    found: dict[int, IntentRow] = {}
    here = and_(_T.c.venue == venue, _T.c.symbol == symbol)
    for start in range(0, len(order_ids), MAX_ROWS_PER_STATEMENT):
        chunk = list(order_ids[start : start + MAX_ROWS_PER_STATEMENT])
        # Two queries: an OR over two indexes makes SQLite read the whole symbol.
        for column in (_T.c.exchange_order_id, _T.c.actual_order_id):
            for row in _rows(connection, select(_T).where(here, column.in_(chunk), column.is_not(None))):
                order_id = row.actual_order_id or (None if row.is_algo else row.exchange_order_id)
                if order_id is not None:
                    found[order_id] = row
    return found


def by_client_order_ids(connection: Connection, ids: Sequence[str]) -> dict[str, IntentRow]:
    """Return the intents that own these client order ids."""
    found: dict[str, IntentRow] = {}
    for start in range(0, len(ids), MAX_ROWS_PER_STATEMENT):
        query = select(_T).where(_T.c.client_order_id.in_(list(ids[start : start + MAX_ROWS_PER_STATEMENT])))
        for row in _rows(connection, query):
            found[row.client_order_id or ""] = row
    return found


def rows_from(found: Sequence[tuple[Any, ...]]) -> list[IntentRow]:
    """Return the rows that a statement on all `COLUMNS` has yielded."""
    return [intent_row(values) for values in found]


def _rows(connection: Connection, query: Select[Any]) -> list[IntentRow]:
    return [intent_row(row) for row in connection.execute(query)]


def _compare_and_set(row: IntentRow, values: Mapping[str, object]) -> Bound:
    as_read = {"as_key": row.key, "as_state": row.state.value, "as_attempt": row.attempt, "as_fence": row.fence}
    return Bound(_change(tuple(values)), {**as_read, **values})


@cache
def _change(columns: tuple[str, ...]) -> Prepared:
    as_read = and_(
        _T.c.key == bindparam("as_key"),
        _T.c.state == bindparam("as_state"),
        _T.c.attempt == bindparam("as_attempt"),
        _T.c.fence == bindparam("as_fence"),
    )
    return Prepared(update(_T).where(as_read).values({name: bindparam(name) for name in columns}))


def _hashes(connection: Connection, keys: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for start in range(0, len(keys), MAX_ROWS_PER_STATEMENT):
        chunk = list(keys[start : start + MAX_ROWS_PER_STATEMENT])
        query = select(_T.c.key, _T.c.content_hash).where(_T.c.key.in_(chunk))
        found.update((key, value) for key, value in connection.execute(query))
    return found
