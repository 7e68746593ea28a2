"""Reads the kill switch's key over a connection of its own, with as little as can be on the way.

Every order looks at the key within the transaction that dispatches it. redis-py's own way to a command (pool, retries,
hooks, a look at every argument) takes 90 us of processor time for that, four times as long as its connection alone.
"""

import os
from collections import deque
from collections.abc import Sequence
from typing import Protocol, cast

from redis import Redis
from redis.exceptions import RedisError

from app.job_safety.kill_switch import KillState, parse


class _Connection(Protocol):
    def can_read(self) -> bool: ...
    def send_packed_command(self, command: Sequence[bytes]) -> None: ...
    def read_response(self) -> object: ...
    def disconnect(self) -> None: ...


class KillKeyLine:
    """The key of one installation. Threads may share it, and a process that was forked off begins anew.

    Without a good connection the client itself is asked, by its own rules for a Redis that hangs.
    """

    def __init__(self, redis: Redis, key: str) -> None:
        self._redis = redis
        self._key = key
        name = key.encode()
        self._question = [b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n" % (len(name), name)]
        self._pid = os.getpid()
        # No lock, which a fork could find held: adding and taking are single steps.
        self._kept: deque[_Connection] = deque()

    def read(self) -> KillState:
        """Return what the key says now; REDUCE_ONLY if it cannot be read (see `kill_switch.read_key`)."""
        try:
            connection = self._take()
            value = self._redis.get(self._key) if connection is None else self._ask(connection)
            self._kept.append(connection or cast("_Connection", self._redis.connection_pool.get_connection()))
        except RedisError:
            return KillState.REDUCE_ONLY
        return parse(cast("bytes | str | None", value))

    def _take(self) -> _Connection | None:
        if self._pid != os.getpid():
            self._kept, self._pid = deque(), os.getpid()
        try:
            connection = self._kept.pop()
        except IndexError:
            return None
        if _is_spent(connection):
            self._give_up(connection)
            return None
        return connection

    def _ask(self, connection: _Connection) -> object:
        try:
            connection.send_packed_command(self._question)
            return connection.read_response()
        except BaseException:
            # Also what a signal's handler raises: no answer of now is ever read as one to a later question.
            self._give_up(connection)
            raise

    def _give_up(self, connection: _Connection) -> None:
        connection.disconnect()
        self._redis.connection_pool.release(connection)  # type: ignore[arg-type]  # it came from there


def _is_spent(connection: _Connection) -> bool:
    """Return whether the server has closed it meanwhile, or has said what nobody asked for."""
    try:
        return connection.can_read()
    except (RedisError, OSError):
        return True
