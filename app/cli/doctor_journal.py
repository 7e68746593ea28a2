"""Does this journal keep what it promises?"""

from collections.abc import Iterator
from typing import Final

from sqlalchemy import Connection, select, text

from app.cli.findings import Finding, fail, ok, warn
from app.journal import schema
from app.journal.engine import WAL_SAFE_VERSION, Journal, sqlite_module
from app.journal.migrate import revision

_ON: Final = frozenset({"on", "local", "remote_write", "remote_apply"})
_POSTGRES_OLDEST: Final = 140_000
_SETTINGS: Final = {
    "fsync": "set fsync = on: without it a crash of the machine may corrupt the journal",
    "full_page_writes": "set full_page_writes = on: without it a crash of the machine may corrupt the journal",
}


def look(journal: Journal, *, account: str, mode: str) -> Iterator[Finding]:
    """Yield what is to be said of a journal.

    Raises:
        StoreUnavailableError: it does not answer.
    """
    with journal.read() as connection:
        yield from _sqlite(connection) if journal.is_sqlite else _postgres(connection)
        yield ok("journal schema", f"revision {revision(connection)}")
        yield _stamp(connection, account, mode)
        yield from _halt(connection)


def _halt(connection: Connection) -> Iterator[Finding]:
    row = connection.execute(select(schema.journal_meta)).mappings().first()
    if row is not None and row["kill_state"] != "RUN":
        remedy = (
            "`fillonce kill-switch status` says who holds it; one that the system set ends when nothing is unexplained"
        )
        yield fail("kill switch", f"{row['kill_state']}: {row['kill_reason']}", remedy)


def _sqlite(connection: Connection) -> Iterator[Finding]:
    module = sqlite_module()
    mode = str(connection.execute(text("PRAGMA journal_mode")).scalar())
    words = f"SQLite {module.sqlite_version} ({module.__name__.partition('.')[0]}), journal mode {mode}"
    if module.sqlite_version_info < WAL_SAFE_VERSION:
        wanted = ".".join(str(part) for part in WAL_SAFE_VERSION)
        remedy = f"install pysqlite3 with SQLite {wanted} or newer: then it may use WAL, and writes get faster"
        yield warn("journal", words, remedy)
    else:
        yield ok("journal", words)
    if (level := connection.execute(text("PRAGMA synchronous")).scalar()) != 2:
        yield fail("journal durability", f"synchronous is {level}", "this is a bug: it must be FULL (2)")
    else:
        yield ok("journal durability", "synced to disk at every commit")


def _postgres(connection: Connection) -> Iterator[Finding]:
    version = connection.execute(text("SHOW server_version")).scalar()
    number = int(connection.execute(text("SHOW server_version_num")).scalar() or 0)
    if number < _POSTGRES_OLDEST:
        yield fail("journal", f"PostgreSQL {version}", "use PostgreSQL 14 or newer")
    else:
        yield ok("journal", f"PostgreSQL {version}")
    if connection.execute(text("SELECT pg_is_in_recovery()")).scalar():
        yield fail("journal role", "a replica", "name the primary in DATABASE_URL")
    lost = [name for name in _SETTINGS if connection.execute(text(f"SHOW {name}")).scalar() != "on"]
    for name in lost:
        yield fail("journal durability", f"{name} is off", _SETTINGS[name])
    commit = connection.execute(text("SHOW synchronous_commit")).scalar()
    if commit not in _ON:
        yield fail("journal durability", f"synchronous_commit is {commit}", "this is a bug: we set it to on")
    elif not lost:
        yield ok("journal durability", f"synced to disk at every commit (synchronous_commit {commit})")


def _stamp(connection: Connection, account: str, mode: str) -> Finding:
    row = connection.execute(select(schema.journal_meta)).mappings().first()
    if row is None:
        return ok("journal stamp", "new: it will be stamped at its first use")
    words = f"account {row['account']}, mode {row['mode']}, epoch {row['epoch']}"
    if (row["account"], row["mode"]) != (account, mode):
        remedy = f"it is not for account {account} in mode {mode}: name another journal, or set both as it was made"
        return fail("journal stamp", words, remedy)
    return ok("journal stamp", words)
