"""The statements that SQLite and PostgreSQL spell alike and SQLAlchemy does not."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import Column, Connection, Table, bindparam
from sqlalchemy.dialects import postgresql, sqlite

from app.journal.prepared import Bound, Prepared, counts_of

MAX_ROWS_PER_STATEMENT = 500
"""Bounds the keys of one IN list: SQLite's limit is 32,766 bound parameters."""


def insert_or_ignore(connection: Connection, table: Table, **row: object) -> bool:
    """Insert one row unless its unique key exists; return whether it was new. Compiled once per table."""
    return counts_of(connection, insertion(connection, table, **row)) == [1]


def insertion(connection: Connection, table: Table, **row: object) -> Bound:
    """Return the statement that inserts one row unless its unique key exists, to be run with others."""
    return Bound(_single(table, tuple(row), connection.dialect.name), row)


@cache
def _single(table: Table, columns: tuple[str, ...], database: str) -> Prepared:
    dialect = postgresql if database == "postgresql" else sqlite
    return Prepared(dialect.insert(table).values({name: bindparam(name) for name in columns}).on_conflict_do_nothing())


def insert_ignore(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> int:
    """Insert `rows`, passing over those whose unique key exists; return how many were new."""
    return len(insert_new(connection, table, rows, returning=next(iter(table.primary_key))))


def insert_new(
    connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]], *, returning: Column[Any]
) -> list[Any]:
    """Insert `rows`, passing over those whose unique key exists; return column `returning` of the new ones."""
    if not rows:
        return []
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    # The rows are parameters, so that one compiled statement serves every number of them.
    statement = dialect.insert(table).on_conflict_do_nothing().returning(returning)
    return list(connection.execute(statement, [dict(row) for row in rows]).scalars())


def upsert(connection: Connection, table: Table, row: Mapping[str, Any]) -> None:
    """Insert `row`, or replace the other columns of the row with its primary key."""
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    keys = [column.name for column in table.primary_key]
    statement = dialect.insert(table).values(dict(row))
    rest = {name: statement.excluded[name] for name in row if name not in keys}
    connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=rest))
