"""Keeps connections between requests, and gives away none that idled too long or has something to read."""

import weakref
from collections import deque
from typing import Final

from app.exchange.connecting import Connector, Guarded, Origin
from app.exchange.deadline import Wire

IDLE_CONNECTION_LIMIT_S: Final = 4.0
"""A connection idle for longer is replaced before use; common servers close theirs after 5 s or more."""
_CONNECTIONS_KEPT: Final = 8


class Connections:
    """The connections of one process: opened when needed, kept while fresh. Threads may share it.

    It has no lock, which a fork could find held by a thread that the child does not have: adding to a deque and taking
    from it are single steps.
    """

    def __init__(self, wire: Wire, *, proxy_url: str | None, ca_file: str | None) -> None:
        self._clock = wire.clock
        self._connector = Connector(wire, proxy_url=proxy_url, ca_file=ca_file)
        self._kept: dict[Origin, deque[Guarded]] = {}
        self._is_closed = False
        # For who forgets to close: no socket is left to the garbage collector, which would warn of it.
        weakref.finalize(self, _close_all, self._kept)

    def take(self, origin: Origin, *, connect_timeout_s: float) -> Guarded:
        """Return a connection to `origin` that nobody else has: the one used last if it is still usable, or a new one.

        Raises:
            HTTPError: its type says what kept a new one from being made.
            OSError: the other side said something else than it should, or nothing.
        """
        kept = self._kept.get(origin)
        while kept:
            try:
                connection = kept.pop()
            except IndexError:  # another thread was faster
                break
            if self._is_usable(connection):
                return connection
            connection.close()
        return self._connector.open(origin, connect_timeout_s=connect_timeout_s)

    def keep(self, origin: Origin, connection: Guarded) -> None:
        """Keep `connection`, whose last answer was read to its end, for the next request to `origin`."""
        connection.idle_since = self._clock.monotonic()
        kept = self._kept.setdefault(origin, deque())
        kept.append(connection)
        _thin_out(kept, 0 if self._is_closed else _CONNECTIONS_KEPT)

    def close(self) -> None:
        """Close those that are kept, and those in use as soon as they come back."""
        self._is_closed = True
        _close_all(self._kept)

    def _is_usable(self, connection: Guarded) -> bool:
        idle_s = self._clock.monotonic() - connection.idle_since
        # Nobody has asked for what may have come meanwhile; as a rule it is the other side's farewell.
        return idle_s <= IDLE_CONNECTION_LIMIT_S and not connection.has_something_to_read()


def _close_all(kept_by_origin: dict[Origin, deque[Guarded]]) -> None:
    for kept in list(kept_by_origin.values()):
        _thin_out(kept, 0)


def _thin_out(kept: deque[Guarded], most: int) -> None:
    while len(kept) > most:
        try:
            kept.popleft().close()
        except IndexError:  # another thread was faster
            return
