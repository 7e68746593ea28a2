"""A connection over which one thread calls scripts, with as little as can be on the way.

redis-py's own way to call a script (pool, retries, hooks, a look at every argument) takes longer than Redis takes to
answer. This is its connection, used directly.
"""

import time
from collections.abc import Sequence
from typing import Any, Final

import hiredis
from redis import Redis
from redis.commands.core import Script
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ResponseError

IDLE_LIMIT_S: Final = 30.0
"""A connection idle for longer is replaced before use: what is in between may have dropped it without a word."""


class Line:
    """One connection of a client's pool, kept. Not for several threads, and not to be taken through a fork."""

    def __init__(self, redis: Redis) -> None:
        self._pool: Any = redis.connection_pool
        self._connection: Any = None
        self._used_s = 0.0

    def call(self, script: Script, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """Call `script` once and return its answer.

        Raises:
            RedisError: unless Redis itself refused it, it is unknown whether the script ran.
        """
        try:
            return self._call(script, keys, arguments)
        except ResponseError:  # an answer, read whole
            raise
        except BaseException:
            # Also what a signal's handler raises: no answer of now is ever read as one to a later question.
            if self._connection is not None:
                self._connection.disconnect()
            raise

    def _call(self, script: Script, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        now_s = time.monotonic()
        if self._connection is None:
            self._connection = self._pool.get_connection()
        elif now_s - self._used_s > IDLE_LIMIT_S or _is_spent(self._connection):
            self._connection.disconnect()
        self._used_s = now_s
        rest = (len(keys), *keys, *arguments)
        try:
            return self._ask(("EVALSHA", script.sha, *rest))
        except NoScriptError:  # nothing ran: the server has forgotten its scripts
            return self._ask(("EVAL", script.script, *rest))

    def _ask(self, command: tuple[Any, ...]) -> Any:
        self._connection.send_packed_command([hiredis.pack_command(command)])
        return self._connection.read_response()


def _is_spent(connection: Any) -> bool:
    """Return whether the server has closed it meanwhile: looked at before sending, that costs no doubt."""
    try:
        return bool(connection.can_read())
    except (RedisConnectionError, OSError):
        return True
