"""Writes an attempt as a dispatch does, for tests that begin behind one."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from app.journal import attempts, intents
from app.journal.prepared import counts_of
from app.journal.rows import AttemptRow


def insert(connection: Connection, columns: Mapping[str, Any]) -> None:
    """Write a new attempt of an intent that is there."""
    attempt = AttemptRow(**columns)
    counts_of(connection, attempts.insertion(attempt))
    attempts.tally(connection, intents.load(connection, attempt.key), attempt)
