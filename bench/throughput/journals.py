"""What the journals of ours say, asked from outside: what is open, what is booked, how often was committed."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

import psycopg

from app.journal.engine import sqlite_module
from bench.postgres import PostgresServer
from bench.throughput import wal

_OPEN = "SELECT count(*) FROM intents WHERE state IN ('RECEIVED', 'DISPATCHED')"
_UNBOOKED = "SELECT count(*) FROM intents WHERE booked_at_ms IS NULL"
_NOT_FILLED = "SELECT count(*) FROM intents WHERE state <> 'FILLED'"


class Database(Protocol):
    """Where a contestant keeps what must last."""

    def commit_counter(self) -> Callable[[], int]:
        """Return what tells how often something was committed since this call."""
        ...


class Journal:
    """Questions to one journal of ours. `ask` runs a statement and returns the first value."""

    def __init__(self, ask: Callable[[str], Any]) -> None:
        self._ask = ask

    def open_count(self) -> int:
        """Return how many orders have no journaled outcome: nothing was sent, or it was and no answer is written."""
        return int(self._ask(_OPEN))

    def unbooked_count(self) -> int:
        """Return how many orders are not booked to the end."""
        return int(self._ask(_UNBOOKED))

    def not_filled_count(self) -> int:
        """Return how many orders ended, or stand, otherwise than every order here should."""
        return int(self._ask(_NOT_FILLED))


class Sqlite:
    """A journal in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._log = Path(f"{path}-wal")

    def ask(self, statement: str) -> Any:
        """Return the first value that a statement finds."""
        module = sqlite_module()
        with closing(module.connect(str(self._path), timeout=10, isolation_level=None)) as connection:
            return connection.execute(statement).fetchone()[0]

    def commit_counter(self) -> Callable[[], int]:
        """Begin the log anew, so that it has room; return what counts in it.

        Raises:
            RuntimeError: it is in use, or (from the counter) so full that it may have been begun anew: not countable.
        """
        if self.ask("PRAGMA wal_checkpoint(TRUNCATE)"):
            raise RuntimeError("the log of changes is in use and cannot be begun anew")

        def count() -> int:
            if wal.frames(self._log) >= wal.FULL_FRAMES:
                raise RuntimeError("the log of changes is full: count fewer orders")
            return wal.commits(self._log)

        return count


class Postgres:
    """One database of the bench's server."""

    def __init__(self, server: PostgresServer, name: str) -> None:
        self.server = server
        self.url = server.create(name)
        self._connection: psycopg.Connection[Any] | None = None

    def ask(self, statement: str) -> Any:
        """Return the first value that a statement finds; over one connection: a new one is a process of the server."""
        if self._connection is None:
            self._connection = psycopg.connect(self.url, autocommit=True)
        row = self._connection.execute(statement.encode()).fetchone()
        return row[0] if row else None

    def commit_counter(self) -> Callable[[], int]:
        """Return what counts the commits that wrote something, of all databases: nobody else writes meanwhile."""
        position = self.server.log_position()
        return lambda: self.server.commits_since(position)
