"""Journals that have their tables already: a test that does not ask how they are made need not wait for it.

What migration leaves is made once per process and copied, byte for byte, by the database itself or as a file.
"""

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path

from app.journal import migrate
from app.journal.engine import Journal
from tests.support.postgres import Postgres


def sqlite_url(file: Path) -> str:
    """Make a journal of `file`, which must not exist, and return its URL."""
    with file.open("xb") as new:
        new.write(_sqlite())
    return f"sqlite:///{file}"


@contextmanager
def postgres_template(server: Postgres) -> Iterator[str]:
    """Yield the name of a database to make journals from; nobody may be connected to it."""
    with server.fresh_database() as url:
        _migrate(url)
        yield url.partition("?")[0].rpartition("/")[2]


def _migrate(url: str) -> None:
    journal = Journal(url)
    try:
        migrate.upgrade(journal)
    finally:
        journal.close()


@cache
def _sqlite() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "journal.db"
        _migrate(f"sqlite:///{file}")
        # All of it must stand in the one file that is copied.
        with closing(sqlite3.connect(file)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return file.read_bytes()
