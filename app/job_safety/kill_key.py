"""The kill switch's key in Redis as people and old programs know it: what it says, and how our commands change it.

Three kinds of value are told apart. Words of people (`true`, `false`, `reduce_only`, …) are latched in the journal. The
name of a state in capitals is what our command line writes, whose latch is in the journal already. What begins with
`drill:` stops everything for as long as it stands, and nobody latches it.
"""

from typing import Final

from redis import Redis
from redis.exceptions import RedisError

from app.job_safety import scripts
from app.job_safety.errors import StoreUnavailableError
from app.job_safety.kill_switch import KillState

DRILL_PREFIX: Final = "drill:"
_NAMES: Final = {state.value: state for state in KillState if state is not KillState.RUN}


class KillKey:
    """The one key of an installation."""

    def __init__(self, redis: Redis, name: str) -> None:
        self.name = name
        self._redis = redis
        self._change = redis.register_script(scripts.source("kill_key"))

    def read(self) -> str | None:
        """Return what it says; None: it is not there.

        Raises:
            StoreUnavailableError: Redis does not answer, or the key holds no string.
        """
        try:
            value = self._redis.get(self.name)
        except RedisError as error:
            raise StoreUnavailableError(f"redis: {error}") from error
        return None if value is None else text(value)

    def change(self, before: str | None, after: str | None) -> bool:
        """Have it say `after` (None: delete it) if it still says `before`; return whether it did.

        Raises:
            StoreUnavailableError: Redis does not answer; whether it was changed is not known.
        """
        arguments: list[str | bytes] = [
            "0" if before is None else "1",
            _raw(before),
            "0" if after is None else "1",
            _raw(after),
        ]
        try:
            return bool(self._change(keys=[self.name], args=arguments))
        except RedisError as error:
            raise StoreUnavailableError(f"redis: {error}") from error


def is_of_a_person(value: str | None) -> bool:
    """Return whether somebody set this who has no latch in the journal."""
    return value is not None and named(value) is None and not value.startswith(DRILL_PREFIX)


def named(value: str | None) -> KillState | None:
    """Return the state whose name our command line wrote; None: it is no such name."""
    return _NAMES.get(value or "")


def text(value: object) -> str:
    """Return what a client of any decoding has read."""
    # surrogateescape: what is no text must be found again by `change`, byte by byte.
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


def _raw(value: str | None) -> bytes:
    return (value or "").encode("utf-8", "surrogateescape")
