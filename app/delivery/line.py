"""A connection over which one thread calls scripts, with as little as can be on the way.

redis-py's own way to call a script (pool, retries, hooks, a look at every argument) takes longer than Redis takes to
answer. This is its connection, used directly.
"""

from collections.abc import Sequence
from typing import Any

import hiredis
from redis import Redis
from redis.commands.core import Script
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError


class Line:
    """One connection of a client's pool, kept. Not for several threads, and not to be taken through a fork."""

    def __init__(self, redis: Redis) -> None:
        self._pool: Any = redis.connection_pool
        self._connection: Any = None

    def call(self, script: Script, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """Call `script` once and return its answer.

        Raises:
            RedisError: unless Redis itself refused it, it is unknown whether the script ran.
        """
        if self._connection is None:
            self._connection = self._pool.get_connection()
        elif _is_spent(self._connection):
            self._connection.disconnect()
        rest = (len(keys), *keys, *arguments)
        try:
            return self._ask(("EVALSHA", script.sha, *rest))
        except NoScriptError:  # nothing ran: the server has forgotten its scripts
            return self._ask(("EVAL", script.script, *rest))

    def _ask(self, command: tuple[Any, ...]) -> Any:
        # Either of them disconnects when it fails: no answer of now is ever read as one to a later question.
        self._connection.send_packed_command([hiredis.pack_command(command)])
        return self._connection.read_response()


def _is_spent(connection: Any) -> bool:
    """Return whether the server has closed it meanwhile: looked at before sending, that costs no doubt."""
    try:
        return bool(connection.can_read())
    except (RedisConnectionError, OSError):
        return True
