"""Where an intent stands: its row and whatever decides, read together, with the fewest round trips."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Exists,
    FromClause,
    Select,
    bindparam,
    exists,
    literal_column,
    or_,
    select,
    text,
)

from app.job_safety.errors import InvariantViolatedError
from app.job_safety.state import SENDABLE, IntentState
from app.journal import meta, schema
from app.journal.intents import COLUMNS, unknown
from app.journal.meta import Meta
from app.journal.prepared import Bound, Prepared, rows_of
from app.journal.rows import IntentRow, intent_row
from app.journal.sql import word

_T = schema.intents
_P = schema.proofs
_M = schema.journal_meta
_ONLY = _M.c.id == literal_column("1")  # by its key: whatever has no condition is read from end to end
_WITH_STAMP = select(*_T.c, *meta.COLUMNS).where(_T.c.key == bindparam("key"), _ONLY)
_LOOK = Prepared(_WITH_STAMP)
# PostgreSQL locks in the order of the clauses, and returns what it had to wait for as it was left.
_HOLD = Prepared(
    _WITH_STAMP.with_for_update(of=_T).suffix_with(text("FOR SHARE OF journal_meta"), dialect="postgresql")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """An intent that is about to be dispatched, and what decides: as true as the transaction that commits on it.

    One that `hold` returns is true until its transaction ends; `unless_changed` has the database insist on another.

    Attributes:
        row: The intent.
        stamp: The journal's, with the kill switch's latch.
        has_proof: Whether the exchange ever said that it has, or had, an order of this intent.
        closed_by: The key of a dispatched order that closes the symbol, or None.
    """

    row: IntentRow
    stamp: Meta
    has_proof: bool
    closed_by: str | None


def look(connection: Connection, key: str) -> tuple[IntentRow, Meta]:
    """Return an intent, without its content if it is archived, and the journal's stamp.

    Raises:
        IntentNotFoundError: the journal does not know the key.
        InvariantViolatedError: it is archived, and its row says that it may be sent: somebody has changed that.
    """
    row, stamp = _with_stamp(key, _LOOK.rows(connection, key=key))
    if not row.content and row.state in SENDABLE:
        raise InvariantViolatedError(f"{key} is archived, and must not be sent")
    return row, stamp


def hold(connection: Connection, key: str, *, closing: Sequence[IntentState]) -> Standing:
    """Return an intent, held until the transaction ends, and what decides about its dispatch.

    Args:
        connection: A write transaction.
        key: The intent.
        closing: The states in which another order of its venue and symbol closes the symbol for it.

    Raises:
        IntentNotFoundError: the journal does not know the key.
    """
    # The row first: proofs are written under its lock, and none is missed by whoever reads them behind it. Then the
    # stamp, whose lock may be waited for; what else decides is read as it stands after that.
    held, told = rows_of(connection, Bound(_HOLD, {"key": key}), Bound(_facts(tuple(closing)), {"key": key}))
    row, stamp = _with_stamp(key, held)
    has_proof, closed_by = told[0]
    # What is archived is over, and its proofs are in the archive: it bars a dispatch as they would.
    return Standing(row=row, stamp=stamp, has_proof=bool(has_proof) or not row.content, closed_by=closed_by)


def unless_changed(move: Bound, looked: Standing, *, closing: Sequence[IntentState]) -> Bound:
    """Return `move`, of the row of `looked`, as a statement that touches nothing unless `hold` would return `looked`.

    Nothing may speak against the dispatch in `looked`. The statement takes the locks of `hold`, but waits for nobody:
    what it reads would be older than what it waited for. Where somebody else is at the row or the stamp, it touches
    nothing either.
    """
    if looked.has_proof or looked.closed_by is not None:
        raise InvariantViolatedError(f"{looked.row.key}: something speaks against its dispatch")
    row, stamp = looked.row, looked.stamp
    so = {
        "so_key": row.key,
        "so_valid_until_ms": row.valid_until_ms,
        "so_cancel_requested": row.cancel_requested,
        "so_epoch": stamp.epoch,
        "so_kill_state": stamp.kill_state,
        "so_kill_epoch": stamp.kill_epoch,
    }
    return Bound(_unless_changed(move.prepared, tuple(closing)), {**move.parameters, **so})


def _with_stamp(key: str, found: Sequence[tuple[Any, ...]]) -> tuple[IntentRow, Meta]:
    if not found:
        raise unknown(key)
    values = found[0]
    return intent_row(values[: len(COLUMNS)]), meta.stamp_from([values[len(COLUMNS) :]])


@cache
def _facts(closing: tuple[IntentState, ...]) -> Prepared:
    """Return the statement. The symbol is its own row's: an intent's venue and symbol never change."""
    own = _T.alias("own")
    closed_by = _closing(own, closing).where(own.c.key == bindparam("key")).limit(literal_column("1"))
    return Prepared(select(_proof_of(bindparam("key")), closed_by.scalar_subquery()))


@cache
def _unless_changed(move: Prepared, closing: tuple[IntentState, ...]) -> Prepared:
    """Return the statement. State, attempt and fence are compared by the move itself.

    Of the stamp the epochs would do, since whatever decides changes with one of them; the state is there for a hand
    that has changed nothing else.
    """
    own = _T.alias("own")
    so = (
        select(own.c.key)
        .where(
            own.c.key == bindparam("so_key"),
            own.c.valid_until_ms.is_not_distinct_from(bindparam("so_valid_until_ms")),
            own.c.cancel_requested == bindparam("so_cancel_requested"),
            own.c.content != word(""),  # of what is archived, which is over
            _ONLY,
            _M.c.epoch == bindparam("so_epoch"),
            _M.c.kill_state == bindparam("so_kill_state"),
            _M.c.kill_epoch == bindparam("so_kill_epoch"),
            ~_proof_of(own.c.key),
            ~_closing(own, closing).correlate(own).exists(),
        )
        .with_for_update(of=own, key_share=True, skip_locked=True)
        .suffix_with(text("FOR SHARE OF journal_meta SKIP LOCKED"), dialect="postgresql")
    )
    return move.narrowed(_T.c.key == so.scalar_subquery())


def _proof_of(key: ColumnElement[str]) -> Exists:
    return exists().where(_P.c.key == key)


def _closing(own: FromClause, closing: Sequence[IntentState]) -> Select[tuple[str]]:
    """Return the orders that close the symbol of `own`.

    States are words of the statement, so that one plan knows how rare they are. Symbols are compared as values that no
    index knows: few orders close a symbol, and a planner without statistics (nobody runs ANALYZE on SQLite) would read
    all that the symbol ever had.
    """
    other = _T.alias("other")
    nothing = word("")
    return select(other.c.key).where(
        own.c.venue == other.c.venue + nothing,
        own.c.symbol == other.c.symbol + nothing,
        or_(*(other.c.state == word(state.value) for state in closing)),
        other.c.attempt > literal_column("0"),
        other.c.type == word("order"),
        other.c.key != own.c.key,
    )


__all__ = ["Standing", "hold", "look", "unless_changed"]
