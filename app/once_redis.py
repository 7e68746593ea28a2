"""Redis, asked once: no command is repeated, and scripts and single keys take the short way.

redis-py's own way to a command (pool, retries, hooks, a look at every argument) takes longer than Redis takes to
answer: 90 us of processor time for a GET, four times as long as its connection alone.
"""

import os
from collections import deque
from time import monotonic
from typing import Any, Final, NamedTuple, Protocol, cast

import hiredis
from redis import Redis
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

IDLE_LIMIT_S: Final = 30.0
"""A connection idle for longer is replaced before use: what is in between may have dropped it without a word."""

MOST_KEPT: Final = 4
"""Connections that stay ready, one for each thread that asks at once; more go back to the pool."""

_SHORT: Final = frozenset({"EVALSHA", "GET"})
"""Commands whose answer redis-py hands on as it comes."""


class _Connection(Protocol):
    def can_read(self) -> bool: ...
    def send_packed_command(self, command: list[bytes]) -> None: ...
    def read_response(self) -> Any: ...
    def disconnect(self) -> None: ...


class _Kept(NamedTuple):
    connection: _Connection
    used_s: float


class OnceRedis(Redis):
    """A client that repeats nothing (see `connect_redis`). Threads may share it, and a forked process begins anew.

    An error other than a `ResponseError` leaves open whether Redis did what it was told.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._pid = os.getpid()
        # No lock, which a fork could find held: adding and taking are single steps.
        self._kept: deque[_Kept] = deque()

    def execute_command(self, *arguments: Any, **options: Any) -> Any:
        """Send one command and return its answer."""
        if arguments[0] not in _SHORT:
            return super().execute_command(*arguments, **options)  # type: ignore[no-untyped-call]  # redis-py has no types here
        connection = self._take()
        try:
            connection.send_packed_command([hiredis.pack_command(arguments)])
            answer = connection.read_response()
        except ResponseError:  # an answer, read whole
            self._keep(connection)
            raise
        except BaseException:
            # Also what a signal's handler raises: no answer of now is ever read as one to a later question.
            self._give_up(connection)
            raise
        self._keep(connection)
        return answer

    def _take(self) -> _Connection:
        if self._pid != os.getpid():
            self._kept, self._pid = deque(), os.getpid()
        while True:
            try:
                kept = self._kept.pop()
            except IndexError:
                return cast("_Connection", self.connection_pool.get_connection())
            if not self._is_spent(kept):
                return kept.connection
            self._give_up(kept.connection)

    def _keep(self, connection: _Connection) -> None:
        if len(self._kept) < MOST_KEPT:
            self._kept.append(_Kept(connection, monotonic()))
        else:
            self.connection_pool.release(cast("Any", connection))

    def _give_up(self, connection: _Connection) -> None:
        connection.disconnect()
        self.connection_pool.release(cast("Any", connection))

    def _is_spent(self, kept: _Kept) -> bool:
        """Return whether it may not be asked any more. Looked at before sending, that costs no doubt.

        The server has closed it, or has said what nobody asked for; or it leads to a server that is no longer the
        master, as far as the pool has heard.
        """
        if monotonic() - kept.used_s > IDLE_LIMIT_S:
            return True
        if not self.connection_pool.owns_connection(cast("Any", kept.connection)):
            return True
        try:
            return kept.connection.can_read()
        except (RedisError, OSError):
            return True


class PatientOnceRedis(OnceRedis):
    """Waits for a Redis that hangs once, and then refuses at once for as long: waits must not add up before an exit."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._refuses_until_s = 0.0

    def execute_command(self, *arguments: Any, **options: Any) -> Any:
        """Send one command.

        Raises:
            TimeoutError: it was not answered, or one just before was not.
        """
        started_s = monotonic()
        if started_s < self._refuses_until_s:
            raise RedisTimeoutError("it has just left a command unanswered")
        try:
            return super().execute_command(*arguments, **options)
        except RedisTimeoutError:
            now_s = monotonic()
            self._refuses_until_s = now_s + (now_s - started_s)
            raise
