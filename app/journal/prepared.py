"""Statements of the hot path: written in SQLAlchemy Core, compiled once, run on the driver's own cursor.

Building and looking up a Core statement costs more than SQLite takes to run it.
Schema, types and dialects stay SQLAlchemy's; only the way through its execution layer is left out.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from operator import itemgetter
from typing import Any, Final, NamedTuple, TypeAlias

from sqlalchemy import ClauseElement, ColumnElement, Connection, Select, Update, UpdateBase
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.compiler import SQLCompiler

Process: TypeAlias = Callable[[Any], Any]

_PARAMETER: Final = re.compile(r"%\((\w+)\)s")
"""A parameter as psycopg writes it."""

_DIVISION_BY_ZERO: Final = "22012"
"""PostgreSQL's name for the error."""


class Prepared:
    """One statement, for whichever database it is run on. Parameters are its `bindparam`s, by name.

    Where databases spell it differently, `statement` returns it for the one of that name.
    """

    def __init__(self, statement: ClauseElement | Callable[[str], ClauseElement]) -> None:
        self._statement = statement
        self._compiled: dict[str, Compiled] = {}

    def rows(self, connection: Connection, **parameters: object) -> list[tuple[Any, ...]]:
        """Run it and return what it yields, typed as its columns say."""
        compiled = self.compiled(connection)
        cursor = compiled.run(connection, parameters)
        try:
            return compiled.typed(cursor)
        finally:
            cursor.close()

    def count(self, connection: Connection, **parameters: object) -> int:
        """Run it and return how many rows it touched."""
        return self.compiled(connection).count(connection, parameters)

    def narrowed(self, also: ColumnElement[bool]) -> "Prepared":
        """Return an update that touches only those of its rows for which `also` holds.

        Raises:
            TypeError: it is no update.
        """
        if not isinstance(self._statement, Update):
            raise TypeError(f"not an update: {self._statement}")
        return Prepared(self._statement.where(also))

    def compiled(self, connection: Connection) -> "Compiled":
        """Return its form for the database of `connection`, made once."""
        name = connection.dialect.name
        found = self._compiled.get(name)
        if found is None:
            of_all = self._statement
            statement = of_all if isinstance(of_all, ClauseElement) else of_all(name)
            found = self._compiled[name] = Compiled(statement, connection.dialect)
        return found


class Bound(NamedTuple):
    """A statement and its parameters."""

    prepared: Prepared
    parameters: Mapping[str, object]


def rows_of(connection: Connection, *several: Bound) -> list[list[tuple[Any, ...]]]:
    """Run all in their order, in one round trip where there are round trips; return what each yields."""
    if connection.dialect.name != "postgresql":
        return [prepared.rows(connection, **parameters) for prepared, parameters in several]
    ran = _run(connection, several)
    typed = [compiled.typed(cursor) for compiled, cursor in ran]
    for _, cursor in ran:
        cursor.close()
    return typed


def counts_of(connection: Connection, *several: Bound) -> list[int]:
    """Run all, which change one row each and never the same; return how many rows each touched.

    On PostgreSQL they are one statement: to its driver, and to the server, a statement costs more than its work. Each
    sees the tables as they were before all of them.
    """
    compiled = [prepared.compiled(connection) for prepared, _ in several]
    if len(several) <= 1 or connection.dialect.name != "postgresql":
        return [one.count(connection, parameters) for one, (_, parameters) in zip(compiled, several, strict=True)]
    return _counts_of_one(connection, several, compiled, _as_one(tuple(compiled)))


def counts_if_first(connection: Connection, first: Bound, *also: Bound) -> list[int] | None:
    """Run `first` and, if that touches its row, `also`. Outside of a transaction they are one statement of PostgreSQL.

    Returns:
        How many rows each of `also` touched, or None: `first` touched none, and nothing is written.
    """
    driver: Any = connection.connection.driver_connection
    if connection.dialect.name != "postgresql" or not driver.autocommit:
        return counts_of(connection, *also) if counts_of(connection, first) == [1] else None
    several = (first, *also)
    compiled = [prepared.compiled(connection) for prepared, _ in several]
    try:
        return _counts_of_one(connection, several, compiled, _as_one(tuple(compiled), first="1 / "))[1:]
    except DBAPIError as error:  # the division by zero that makes the statement fail as a whole
        if getattr(error.orig, "sqlstate", None) != _DIVISION_BY_ZERO:
            raise
        return None


def _counts_of_one(
    connection: Connection, several: Sequence[Bound], compiled: "Sequence[Compiled]", text: str
) -> list[int]:
    values = {
        f"s{at}_{name}": value
        for at, (one, (_, parameters)) in enumerate(zip(compiled, several, strict=True))
        for name, value in one.values(parameters).items()
    }
    cursor = execute(connection, text, values)
    try:
        return [int(count) for count in cursor.fetchone()]
    finally:
        cursor.close()


@cache
def _as_one(several: "tuple[Compiled, ...]", *, first: str = "") -> str:
    parts = [_PARAMETER.sub(rf"%(s{at}_\1)s", f"s{at} AS ({one.told})") for at, one in enumerate(several)]
    counts = [f"(SELECT count(*) FROM s{at})" for at in range(len(several))]  # noqa: S608 - names of our own making
    return f"WITH {', '.join(parts)} SELECT {first}{', '.join(counts)}"


def execute(connection: Connection, text: str, bound: Sequence[object] | Mapping[str, object]) -> Any:
    """Run a statement on the driver's own cursor and return that; what fails is raised as SQLAlchemy would."""
    cursor = connection.connection.cursor()
    try:
        cursor.execute(text, bound)
    except Exception as error:  # whatever the driver raises
        raise translated(connection, error, text) from error
    return cursor


def _run(connection: Connection, several: Sequence[Bound]) -> "list[tuple[Compiled, Any]]":
    driver: Any = connection.connection.driver_connection
    ran: list[tuple[Compiled, Any]] = []
    try:
        with driver.pipeline():  # what fails in it is raised at its end
            for prepared, parameters in several:
                compiled = prepared.compiled(connection)
                ran.append((compiled, compiled.run(connection, parameters)))
    except Exception as error:  # whatever the driver raises: it goes on, as SQLAlchemy would have raised it
        raise translated(connection, error, "several statements") from error
    return ran


def translated(connection: Connection, error: Exception, statement: str) -> Exception:
    """Return the error as SQLAlchemy raises it, so that callers know one kind; drop a connection that is gone."""
    driver = connection.dialect.dbapi
    if driver is None or not isinstance(error, driver.Error):
        return error
    is_gone = connection.dialect.is_disconnect(error, connection.connection, None)
    if is_gone:
        connection.invalidate(error)
    return DBAPIError.instance(
        statement, None, error, driver.Error, hide_parameters=True, connection_invalidated=is_gone,
        dialect=connection.dialect,
    )  # fmt: skip


class Compiled:
    """The text of a statement for one database, and what makes the driver's values of ours and ours of the driver's."""

    def __init__(self, statement: ClauseElement, dialect: Dialect) -> None:
        compiled = statement.compile(dialect=dialect)
        if not isinstance(compiled, SQLCompiler):
            raise TypeError(f"not a statement: {statement}")
        self.text = str(compiled)
        # SQLAlchemy lets an insert return the key that the database has made.
        self.told = self.text if compiled.effective_returning else f"{self.text} RETURNING 1"
        self._order: Sequence[str] | None = compiled.positiontup
        self._constants = {name: value for name, value in compiled.params.items() if value is not None}
        binders = {
            name: bind.type.dialect_impl(dialect).bind_processor(dialect) for bind, name in compiled.bind_names.items()
        }
        self._binders: Mapping[str, Process] = {name: binder for name, binder in binders.items() if binder is not None}
        self._dialect = dialect
        yields = statement.exported_columns if isinstance(statement, Select | UpdateBase) else ()
        self._types = [column.type for column in yields]
        self._readers: Sequence[tuple[int, Process]] | None = None

    def values(self, parameters: Mapping[str, object]) -> dict[str, object]:
        """Return the values of all its parameters, as the driver takes them."""
        values = {**self._constants, **parameters}
        for name, binder in self._binders.items():
            if values[name] is not None:
                values[name] = binder(values[name])
        return values

    def run(self, connection: Connection, parameters: Mapping[str, object]) -> Any:
        """Run it; return the driver's cursor."""
        values = self.values(parameters)
        return execute(connection, self.text, values if self._order is None else [values[name] for name in self._order])

    def count(self, connection: Connection, parameters: Mapping[str, object]) -> int:
        """Run it and return how many rows it touched."""
        cursor = self.run(connection, parameters)
        try:
            return int(cursor.rowcount)
        finally:
            cursor.close()

    def run_each(self, connection: Connection, names: Sequence[str], rows: Iterable[Sequence[object]]) -> list[int]:
        """Run it once per row of plain values, the parameters of these names; return how many rows each touched."""
        in_order = itemgetter(*(names.index(name) for name in self._order or names))
        cursor = connection.connection.cursor()
        try:
            return [int(cursor.execute(self.text, in_order(row)).rowcount) for row in rows]
        except Exception as error:  # whatever the driver raises: it goes on, as SQLAlchemy would have raised it
            raise translated(connection, error, self.text) from error
        finally:
            cursor.close()

    def typed(self, cursor: Any) -> list[tuple[Any, ...]]:
        """Return what a cursor yields, typed as the columns say."""
        rows: list[tuple[Any, ...]] = cursor.fetchall()
        if self._readers is None:
            self._readers = self._readers_of(cursor)
        if not self._readers:
            return rows
        typed = []
        for row in rows:
            values = list(row)
            for at, reader in self._readers:
                values[at] = reader(values[at])
            typed.append(tuple(values))
        return typed

    def _readers_of(self, cursor: Any) -> Sequence[tuple[int, Process]]:
        """Return what makes typed values of the driver's, which names its own types once it has an answer."""
        readers = [
            (at, kind.dialect_impl(self._dialect).result_processor(self._dialect, told[1]))
            for at, (kind, told) in enumerate(zip(self._types, cursor.description, strict=True))
        ]
        return [(at, reader) for at, reader in readers if reader is not None]
