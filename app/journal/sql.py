"""The statements that SQLite and PostgreSQL spell alike and SQLAlchemy does not."""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, TypeAlias

from sqlalchemy import (
    ClauseElement,
    ColumnElement,
    Connection,
    String,
    Table,
    Text,
    bindparam,
    cast,
    func,
    literal_column,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite

from app.journal.prepared import Bound, Prepared, counts_of

Plain: TypeAlias = str | int | bool | None
"""A value that both drivers, and JSON, take as it is."""

MAX_ROWS_PER_STATEMENT = 500
"""Bounds the keys of one IN list: SQLite's limit is 32,766 bound parameters."""


def word(constant: str) -> ColumnElement[str]:
    """Return a constant of ours (a state, a kind) as a word of the statement, so that one plan knows how rare it is.

    A parameter would be planned for as if it were any value: most rows, where most are alike.
    """
    return literal_column(f"'{constant}'", type_=String)


def insert_or_ignore(connection: Connection, table: Table, **row: object) -> bool:
    """Insert one row unless its unique key exists; return whether it was new. Compiled once per table."""
    return counts_of(connection, insertion(table, **row)) == [1]


def insertion(table: Table, **row: object) -> Bound:
    """Return the statement that inserts one row unless its unique key exists, to be run with others."""
    return Bound(_single(table, tuple(row)), row)


@cache
def _single(table: Table, columns: tuple[str, ...]) -> Prepared:
    def statement(database: str) -> ClauseElement:
        dialect = postgresql if database == "postgresql" else sqlite
        new = dialect.insert(table).values({name: bindparam(name) for name in columns})
        unless_known: ClauseElement = new.on_conflict_do_nothing()
        return unless_known

    return Prepared(statement)


def insert_ignore(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> int:
    """Insert `rows`, passing over those whose unique key exists; return how many were new."""
    if not rows:
        return 0
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    # The rows are parameters, so that one compiled statement serves every number of them.
    statement = dialect.insert(table).on_conflict_do_nothing().returning(next(iter(table.primary_key)))
    return len(connection.execute(statement, [dict(row) for row in rows]).all())


def insert_many(
    connection: Connection, table: Table, columns: tuple[str, ...], rows: Sequence[Sequence[Plain]]
) -> set[Any]:
    """Insert many rows, passing over those whose unique key exists; return the first value of each that was new.

    The statement is the same for every number of rows, and compiled once. SQLite runs it for each: nothing travels.
    PostgreSQL gets them all as one parameter: to find a placeholder per value costs the driver more than the insert.
    """
    if connection.dialect.name == "postgresql":
        found = _of_json(table, columns).rows(connection, rows=json.dumps(rows))
        return {first for (first,) in found}
    counts = _single(table, columns).compiled(connection).run_each(connection, columns, rows)
    return {row[0] for row, count in zip(rows, counts, strict=True) if count}


@cache
def _of_json(table: Table, columns: tuple[str, ...]) -> Prepared:
    row = func.jsonb_array_elements(cast(bindparam("rows", type_=Text), postgresql.JSONB)).column_valued("row")
    values = select(
        *(cast(row.op("->>")(literal_column(str(at))), table.c[name].type) for at, name in enumerate(columns))
    )
    statement = postgresql.insert(table).from_select(list(columns), values).on_conflict_do_nothing()
    return Prepared(statement.returning(table.c[columns[0]]))


def upsert(connection: Connection, table: Table, row: Mapping[str, Any]) -> None:
    """Insert `row`, or replace the other columns of the row with its primary key."""
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    keys = [column.name for column in table.primary_key]
    statement = dialect.insert(table).values(dict(row))
    rest = {name: statement.excluded[name] for name in row if name not in keys}
    connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=rest))
