"""What has changed about circuits and waits for the journal.

Whatever moves a circuit appends the change to a stream in the same Lua step, so that no change, automatic ones too,
happens without a trace. A drainer writes each into the journal once and only then drops it here. While nobody drains,
the newest are kept: they say how the circuits came to stand as they do. How many are missing shows in their numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from redis import Redis
from redis.exceptions import RedisError

from app.job_safety.errors import StoreUnavailableError
from app.job_safety.names import GuardNames

BATCH: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitChange:
    """One change of one circuit, as Lua wrote it down. Times are server ms.

    Attributes:
        entry: Its id in the stream: the server's time and a number, unique and growing.
        action: circuit_open, circuit_half_open, circuit_close, circuit_reset, override or override_expired.
        number: Which change of its circuit it is, from 1; they begin anew when Redis has lost the circuit.
        until_ms: Until when it is open, or the override holds; 0 if neither.
        by: `breaker`, `timer`, or whoever said so.
    """

    entry: str
    job_type: str
    action: str
    from_state: str
    to_state: str
    generation: int
    why: str
    by: str
    at_ms: int
    until_ms: int
    config_hash: str
    number: int = 0

    @property
    def key(self) -> str:
        """Return what names the change for ever: the same however often it is read."""
        return f"circuit:{self.job_type}:{self.generation}:{self.entry}"


class CircuitChanges:
    """The stream of one account and mode."""

    def __init__(self, redis: Redis, names: GuardNames) -> None:
        self._redis = redis
        self._stream = names.circuit_changes

    def read(self, limit: int = BATCH) -> list[CircuitChange]:
        """Return the oldest changes that have not been dropped.

        Raises:
            StoreUnavailableError: Redis did not answer.
        """
        try:
            told = self._redis.xrange(self._stream, count=limit)
        except RedisError as error:
            raise StoreUnavailableError(f"redis: {error}") from error
        return [_change(entry, fields) for entry, fields in cast("list[tuple[Any, dict[Any, Any]]]", told)]

    def drop(self, changes: Sequence[CircuitChange]) -> None:
        """Forget what the journal holds by now.

        Raises:
            StoreUnavailableError: Redis did not answer; they are read again, and found in the journal.
        """
        try:
            self._redis.xdel(self._stream, *[change.entry for change in changes])
        except RedisError as error:
            raise StoreUnavailableError(f"redis: {error}") from error


def _change(entry: bytes | str, fields: dict[Any, Any]) -> CircuitChange:
    told = {_text(name): _text(value) for name, value in fields.items()}
    return CircuitChange(
        entry=_text(entry),
        job_type=told["job_type"],
        action=told["action"],
        from_state=told["from"],
        to_state=told["to"],
        generation=int(told["generation"]),
        why=told["why"],
        by=told["by"],
        at_ms=int(told["at_ms"]),
        until_ms=int(told["until_ms"]),
        config_hash=told["config_hash"],
        number=int(told.get("number", 0)),
    )


def _text(told: bytes | str) -> str:
    return told.decode() if isinstance(told, bytes) else told
