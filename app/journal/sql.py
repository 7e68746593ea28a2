"""The two statements that SQLite and PostgreSQL spell alike and SQLAlchemy does not."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Column, Connection, Table
from sqlalchemy.dialects import postgresql, sqlite

MAX_ROWS_PER_STATEMENT = 500
"""Bounds the number of bound parameters: SQLite's limit is 32,766."""


def insert_ignore(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> int:
    """Insert `rows`, passing over those whose unique key exists; return how many were new."""
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    count = 0
    for start in range(0, len(rows), MAX_ROWS_PER_STATEMENT):
        chunk = [dict(row) for row in rows[start : start + MAX_ROWS_PER_STATEMENT]]
        # Counted by what comes back: for such an insert psycopg's rowcount is -1, whatever happened.
        statement = dialect.insert(table).values(chunk).on_conflict_do_nothing().returning(*table.primary_key.columns)
        count += len(connection.execute(statement).all())
    return count


def insert_new(
    connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]], *, returning: Column[Any]
) -> list[Any]:
    """Insert `rows`, passing over those whose unique key exists; return column `returning` of the new ones."""
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    new: list[Any] = []
    for start in range(0, len(rows), MAX_ROWS_PER_STATEMENT):
        chunk = [dict(row) for row in rows[start : start + MAX_ROWS_PER_STATEMENT]]
        statement = dialect.insert(table).values(chunk).on_conflict_do_nothing().returning(returning)
        new.extend(connection.execute(statement).scalars())
    return new


def upsert(connection: Connection, table: Table, row: Mapping[str, Any]) -> None:
    """Insert `row`, or replace the other columns of the row with its primary key."""
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    keys = [column.name for column in table.primary_key]
    statement = dialect.insert(table).values(dict(row))
    rest = {name: statement.excluded[name] for name in row if name not in keys}
    connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=rest))
