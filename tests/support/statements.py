"""Every statement that a journal's database is told, as the driver is told it: what goes around SQLAlchemy, too."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
import psycopg.sql
from sqlalchemy import Connection, event

from app.journal.engine import Journal, sqlite_module

BIG = (
    "intents",
    "attempts",
    "fills",
    "postings",
    "followups",
    "inbox",
    "proofs",
    "transactions",
    "position_entries",
    "pnl_entries",
    "attempt_seals",
)
"""Tables that grow with every order. The audit trail gets some rows a minute, however many orders there are."""

PARTIAL = (
    "intents_due",
    "intents_retried",
    "intents_by_parent",
    "intents_by_actual_order",
    "attempts_retried",
    "attempts_unknown",
    "attempts_unsealed",
    "followups_due",
)
"""Indexes that hold only what is open or rare: reading one of them whole is fine."""

_PARAMETER = re.compile(r"%\((\w+)\)s")
_TOLD = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE|WITH)\b", re.IGNORECASE)
_SQLITE_SCAN = re.compile(rf"SCAN (\w+)(?! USING (?:COVERING )?INDEX (?:{'|'.join(PARTIAL)})\b)")


@dataclass(slots=True)
class Told:
    """Statements with parameters of an example, each once."""

    statements: dict[str, Any] = field(default_factory=dict)
    single: set[str] = field(default_factory=set)
    """Those that PostgreSQL was told outside of a transaction: they are planned once, whatever the parameters."""
    steps: Counter[str] = field(default_factory=Counter)
    """Steps of SQLite's machine, in hundreds, by statement."""
    now: str = ""

    def note(self, text: Any, parameters: Any, *, is_single: bool = False) -> None:
        self.now = str(text)
        if isinstance(text, str) and _TOLD.match(text):
            self.statements.setdefault(text, parameters)
            if is_single:
                self.single.add(text)


@contextmanager
def listening(journal: Journal) -> Iterator[Told]:
    """Yield what is told to connections that the journal opens from now on; it must not have opened any yet."""
    told = Told()
    if journal.is_sqlite:
        module = sqlite_module()

        class Cursor(module.Cursor):  # type: ignore[misc,name-defined]
            def execute(self, text: str, parameters: Any = ()) -> Any:
                told.note(text, parameters)
                return super().execute(text, parameters)

            def executemany(self, text: str, parameters: Any) -> Any:
                several = list(parameters)
                told.note(text, several[0] if several else ())
                return super().executemany(text, several)

        class Opened(module.Connection):  # type: ignore[misc,name-defined]
            def cursor(self, factory: Any = Cursor) -> Any:
                return super().cursor(factory)

        def count() -> int:
            told.steps[told.now] += 1
            return 0

        def connect(_dialect: Any, _record: Any, arguments: Any, options: dict[str, Any]) -> Any:
            opened = module.connect(*arguments, **{**options, "factory": Opened})
            opened.set_progress_handler(count, 100)
            return opened

    else:

        class PostgresCursor(psycopg.Cursor[Any]):
            def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
                told.note(query, params, is_single=self.connection.autocommit)
                return super().execute(query, params, **options)

            def executemany(self, query: Any, params_seq: Any, **options: Any) -> None:
                several = list(params_seq)
                told.note(query, several[0] if several else None)
                super().executemany(query, several, **options)

        def connect(_dialect: Any, _record: Any, arguments: Any, options: dict[str, Any]) -> Any:
            return psycopg.connect(*arguments, cursor_factory=PostgresCursor, **options)

    _listen(journal, connect)
    yield told


def _listen(journal: Journal, connect: Callable[..., Any]) -> None:
    for engine in journal.engines:
        event.listen(engine, "do_connect", connect)


def scans(connection: Connection, text: str, parameters: Any) -> list[str]:
    """Return which big tables a statement reads whole, with its plan."""
    explain = "EXPLAIN QUERY PLAN" if connection.dialect.name == "sqlite" else "EXPLAIN (FORMAT JSON)"
    cursor = connection.connection.cursor()
    try:
        cursor.execute(f"{explain} {text}", parameters)
        rows = cursor.fetchall()
    finally:
        cursor.close()
    if connection.dialect.name == "sqlite":
        plan = "\n".join(str(row[3]) for row in rows)
        names = _aliases(text)
        if "LIMIT" in text and "ORDER BY" in text and "WHERE" not in text:
            return []  # read in the order of an index, and only as far as wanted
        return [f"{name}\n{plan}" for name in _SQLITE_SCAN.findall(plan) if names.get(name, name) in BIG]
    return list(_whole(rows[0][0][0]["Plan"], is_limited=False))


def scans_planned_once(connection: Connection, text: str, parameters: dict[str, Any]) -> list[str]:
    """Return which big tables a statement reads whole in the one plan that PostgreSQL keeps for all parameters.

    To explain a statement with parameters plans it for these.
    """
    names = list(dict.fromkeys(_PARAMETER.findall(text)))
    numbered = _PARAMETER.sub(lambda found: f"${names.index(found[1]) + 1}", text)
    cursor = connection.connection.cursor()
    try:
        cursor.execute(f"PREPARE planned_once AS {numbered}")
        values = ", ".join(psycopg.sql.Literal(parameters[name]).as_string(cursor) for name in names)
        cursor.execute(f"EXPLAIN (FORMAT JSON) EXECUTE planned_once{f'({values})' if names else ''}")
        (plan,) = cursor.fetchone()
        cursor.execute("DEALLOCATE planned_once")
    finally:
        cursor.close()
    return list(_whole(plan[0]["Plan"], is_limited=False))


def _aliases(text: str) -> dict[str, str]:
    return {alias: table for table, alias in re.findall(r"(\w+) AS (\w+)", text)}


def _whole(node: dict[str, Any], *, is_limited: bool) -> Iterator[str]:
    """Yield what a plan of PostgreSQL reads whole: an index without a condition counts, unless a LIMIT ends it."""
    limited = is_limited or node["Node Type"] == "Limit"
    if node.get("Relation Name") in BIG:
        kind, index = node["Node Type"], node.get("Index Name")
        is_ordered = limited and "Filter" not in node
        if kind == "Seq Scan" or (index and "Index Cond" not in node and index not in PARTIAL and not is_ordered):
            yield f"{kind} on {node['Relation Name']} {index or ''} {node.get('Filter', '')}"
    for inner in node.get("Plans", ()):
        yield from _whole(inner, is_limited=limited and node["Node Type"] in {"Limit", "LockRows", "Incremental Sort"})
