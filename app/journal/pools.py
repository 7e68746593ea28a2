"""What one process has of a database: its engines, and the connections that are kept ready."""

import contextlib
import threading
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import Connection, Engine

from app.journal.together import Together

MOST_KEPT: Final = 16
"""Connections that a process keeps ready: one for each of its threads, which never wait for one. To check one out of a
pool of SQLAlchemy's costs more than SQLite takes to read."""


@dataclass(slots=True, eq=False)
class Pools:
    """What one process has of the database."""

    of_parent: "Pools | None" = None
    """What the parent has, kept as it is: to drop its connections would say good-bye on its sockets."""

    opening: threading.RLock = field(default_factory=threading.RLock)
    """Held while engines or a connection of SQLite's are made, and while the process is forked."""

    engines: tuple[Engine, ...] = ()
    kept: deque[Connection] = field(default_factory=deque)
    """Those that are ready for a transaction."""

    looking: deque[Connection] = field(default_factory=deque)
    """Those that are ready for single statements, on PostgreSQL."""

    together: Together = field(default_factory=Together)
    """The changes that wait for SQLite's one writer."""

    out: set[Connection] = field(default_factory=set)
    """Those, and all that threads have at this moment."""

    is_unused: bool = False
    """Whether it is known, while the process is forked, that nothing of SQLite's is open."""

    def close(self, connection: Connection) -> None:
        """Close one, wherever it was."""
        try:
            connection.close()
        finally:
            self.out.discard(connection)

    def let_go(self) -> int:
        """Close all that no thread has; return how many threads have."""
        for kept in (self.kept, self.looking):
            with contextlib.suppress(IndexError):  # another thread may take the last one
                while True:
                    self.close(kept.pop())
        return len(self.out)
