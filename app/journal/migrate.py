"""Brings the journal's tables to the newest schema. One process does it; others wait and find it done."""

from importlib import resources
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, inspect, text

from app.job_safety.errors import TerminalError
from app.journal.engine import Journal

HEAD: Final = "0007"
"""The newest revision. A process that finds it does not even load the migration machinery."""

_LOCK: Final = 0x66696C6D


class SchemaError(TerminalError):
    """The journal was written by a newer version of this software."""


def upgrade(journal: Journal) -> bool:
    """Bring the tables to `HEAD`; return whether anything was done.

    Raises:
        SchemaError: the journal is newer than this software.
        StoreUnavailableError: the database does not answer.
    """
    with journal.read() as connection:
        if revision(connection) == HEAD:
            return False
    with journal.write() as connection:
        if not journal.is_sqlite:
            connection.execute(text("SELECT pg_advisory_xact_lock(:id)"), {"id": _LOCK})
        found = revision(connection)
        if found == HEAD:
            return False
        if found is not None and found > HEAD:
            raise SchemaError(f"the journal has schema {found}, this software knows {HEAD}: install the newer version")
        _run(connection)
    return True


def revision(connection: Connection) -> str | None:
    """Return the revision of the journal's tables; None: there are none yet."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _run(connection: Connection) -> None:
    from alembic import command  # loaded only when there is something to migrate: it is heavy
    from alembic.config import Config

    config = Config()
    folder = resources.files("app.journal").joinpath("migrations")
    config.set_main_option("script_location", str(Path(str(folder))).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
