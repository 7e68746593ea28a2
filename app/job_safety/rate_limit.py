"""The shared pause: when the exchange says slow down, every worker hears it through one Redis key."""

from redis import Redis
from redis.exceptions import RedisError

from app.job_safety import scripts
from app.job_safety.errors import StoreUnavailableError
from app.job_safety.side_effect_guard import GuardNames


class Pause:
    """Closes a venue for everybody who shares this Redis, and tells whether it is closed."""

    def __init__(self, redis: Redis, names: GuardNames) -> None:
        self._redis = redis
        self._names = names
        self._pause = redis.register_script(scripts.source("pause"))

    def close(self, venue: str, *, for_ms: int, why: str, whole_address: bool) -> int:
        """Keep everybody from sending to `venue` for `for_ms`; return how long it stays closed.

        Args:
            venue: Which exchange.
            for_ms: How long. A longer pause that is already there stays.
            why: For people and logs.
            whole_address: Whether the limit counts for this IP address (weight, bans) or for the account (orders).

        Raises:
            StoreUnavailableError: Redis did not answer.
        """
        key = self._names.pauses(venue)[0 if whole_address else 1]
        try:
            return int(self._pause(keys=[key], args=[why, max(for_ms, 1)]))
        except RedisError as error:
            raise StoreUnavailableError(f"redis: {error}") from error

    def remaining_ms(self, venue: str) -> int:
        """Return for how long `venue` is closed; 0 if it is open.

        Raises:
            StoreUnavailableError: Redis did not answer.
        """
        try:
            return max(0, *(int(self._redis.pttl(key)) for key in self._names.pauses(venue)))
        except RedisError as error:
            raise StoreUnavailableError(f"redis: {error}") from error
