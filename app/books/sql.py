"""Statements on sets of rows that SQLite and PostgreSQL do alike: what is new, running sums, locks.

Lists of rows go to the driver as parameter sets of one cached statement, so that fifty trades cost as many statements
as one. Building a statement costs more than running it, so each is built once. Rows are sorted by their keys before
they are written: two transactions that touch the same rows meet in the same order and never wait in a circle.

Order of locks on PostgreSQL, kept by all of this package: intents, positions, then transactions and running sums.
"""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from functools import cache
from typing import Any

from sqlalchemy import Column, Connection, Executable, Table, select, tuple_
from sqlalchemy.dialects import postgresql, sqlite

from app.journal import schema
from app.money import EXACT


def is_postgres(connection: Connection) -> bool:
    """Return whether rows must be locked one by one; on SQLite a write transaction is alone by itself."""
    return connection.dialect.name == "postgresql"


def insert_new(
    connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]], *returning: Column[Any]
) -> set[tuple[Any, ...]]:
    """Insert `rows`, passing over those whose unique key exists; return `returning` of those that were new.

    A row that another transaction is inserting is waited for, and counts as new only if that one rolls back.
    """
    if not rows:
        return set()
    statement = _insert_new(connection.dialect.name, table, returning)
    return {tuple(row) for row in connection.execute(statement, [dict(row) for row in rows])}


def insert_all(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert `rows`; one that exists already is an error of the database."""
    if rows:
        connection.execute(table.insert(), [dict(row) for row in rows])


def replace_all(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert `rows`, or replace the other columns of those whose primary key exists. All rows name the same columns."""
    if not rows:
        return
    statement = _replace(connection.dialect.name, table, tuple(rows[0]))
    connection.execute(statement, [dict(row) for row in rows])


def add_to_sums(
    connection: Connection, table: Table, sums: Mapping[tuple[str, ...], Mapping[str, Decimal | int]]
) -> None:
    """Add to the running sums of `table`: primary key -> column -> what to add. Exact on both databases.

    PostgreSQL adds in the statement itself (NUMERIC addition is exact), since others write at the same time. SQLite
    keeps decimals as text and has one writer at a time, so there they are read, added and written.
    """
    if not sums:
        return
    keys = [column.name for column in table.primary_key]
    columns = list(next(iter(sums.values())))
    rows: list[dict[str, Any]] = [dict(zip(keys, key, strict=True)) | dict(sums[key]) for key in sorted(sums)]
    if not is_postgres(connection):
        key_columns = [table.c[name] for name in keys]
        query = select(*key_columns, *(table.c[name] for name in columns)).where(tuple_(*key_columns).in_(sorted(sums)))
        before = {tuple(row[: len(keys)]): row[len(keys) :] for row in connection.execute(query)}
        for row in rows:
            for name, old in zip(columns, before.get(tuple(row[key] for key in keys), ()), strict=False):
                row[name] = EXACT.add(old, row[name]) if isinstance(old, Decimal) else old + row[name]
        replace_all(connection, table, rows)
        return
    connection.execute(_add(connection.dialect.name, table, tuple(columns)), rows)


def lock_intents(connection: Connection, keys: Iterable[str]) -> None:
    """Hold the rows of these intents until the transaction ends, in the order of their keys.

    FOR NO KEY UPDATE: inserting a fill that refers to the row need not wait.
    """
    wanted = sorted(set(keys))
    if not wanted or not is_postgres(connection):
        return
    table = schema.intents
    query = select(table.c.key).where(table.c.key.in_(wanted)).order_by(table.c.key).with_for_update(key_share=True)
    connection.execute(query).all()


def lock_positions(connection: Connection, keys: Iterable[tuple[str, str, str]]) -> None:
    """Hold the positions (account, venue, symbol) until the transaction ends, so that nobody re-runs their entries."""
    wanted = sorted(set(keys))
    if not wanted or not is_postgres(connection):
        return
    c = schema.positions.c
    query = (
        select(c.symbol)
        .where(tuple_(c.account, c.venue, c.symbol).in_(wanted))
        .order_by(c.account, c.venue, c.symbol)
        .with_for_update(key_share=True)
    )
    connection.execute(query).all()


def _insert(dialect: str, table: Table) -> postgresql.Insert | sqlite.Insert:
    return postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)


@cache
def _insert_new(dialect: str, table: Table, returning: tuple[Column[Any], ...]) -> Executable:
    return _insert(dialect, table).on_conflict_do_nothing().returning(*returning)


@cache
def _replace(dialect: str, table: Table, columns: tuple[str, ...]) -> Executable:
    keys = [column.name for column in table.primary_key]
    statement = _insert(dialect, table)
    rest = {name: statement.excluded[name] for name in columns if name not in keys}
    return statement.on_conflict_do_update(index_elements=keys, set_=rest)


@cache
def _add(dialect: str, table: Table, columns: tuple[str, ...]) -> Executable:
    keys = [column.name for column in table.primary_key]
    statement = _insert(dialect, table)
    # An ExactDecimal is text to SQLAlchemy, whose own `+` would be a concatenation.
    added = {name: table.c[name].op("+")(statement.excluded[name]) for name in columns}
    return statement.on_conflict_do_update(index_elements=keys, set_=added)
