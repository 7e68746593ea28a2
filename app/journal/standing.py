"""Where an intent stands: its row and whatever decides, read together, with the fewest round trips."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import Connection, String, bindparam, exists, literal, literal_column, or_, select, text, true

from app.job_safety.errors import InvariantViolatedError
from app.job_safety.state import SENDABLE, IntentState
from app.journal import meta, schema
from app.journal.intents import COLUMNS, unknown
from app.journal.meta import Meta
from app.journal.prepared import Bound, Prepared, rows_of
from app.journal.rows import IntentRow, intent_row

_T = schema.intents
_P = schema.proofs
_WITH_STAMP = select(*_T.c, *meta.COLUMNS).join(schema.journal_meta, true()).where(_T.c.key == bindparam("key"))
_LOOK = Prepared(_WITH_STAMP)
# PostgreSQL locks in the order of the clauses, and returns what it had to wait for as it was left.
_HOLD = Prepared(
    _WITH_STAMP.with_for_update(of=_T).suffix_with(text("FOR SHARE OF journal_meta"), dialect="postgresql")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """An intent that is about to be dispatched, and what decides: as true as the transaction that commits on it.

    Attributes:
        row: The intent; nobody moves it until the transaction ends.
        stamp: The journal's; nobody changes it (a kill command, say) until then either.
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


def _with_stamp(key: str, found: Sequence[tuple[Any, ...]]) -> tuple[IntentRow, Meta]:
    if not found:
        raise unknown(key)
    values = found[0]
    return intent_row(values[: len(COLUMNS)]), meta.stamp_from([values[len(COLUMNS) :]])


@cache
def _facts(closing: tuple[IntentState, ...]) -> Prepared:
    """Return the statement. The symbol is its own row's: an intent's venue and symbol never change.

    Symbols are compared as values that no index knows: few orders close a symbol, and a planner without statistics
    (nobody runs ANALYZE on SQLite) would read all that the symbol ever had.
    """
    own, other = _T.alias("own"), _T.alias("other")
    nothing = literal_column("''", type_=String)
    closed_by: Any = (
        select(other.c.key)
        .select_from(other)
        .join(own, (own.c.venue == other.c.venue + nothing) & (own.c.symbol == other.c.symbol + nothing))
        .where(
            own.c.key == bindparam("key"),
            or_(*(other.c.state == literal(state.value) for state in closing)),
            other.c.attempt > literal_column("0"),
            other.c.type == literal_column("'order'"),
            other.c.key != bindparam("key"),
        )
        .limit(literal_column("1"))
        .scalar_subquery()
    )
    has_proof = exists().where(_P.c.key == bindparam("key"))
    return Prepared(select(has_proof, closed_by))


__all__ = ["Standing", "hold", "look"]
