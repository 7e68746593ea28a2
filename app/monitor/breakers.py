"""The circuits as they stand now, read with the monitor's own impatient client."""

from redis import Redis
from redis.exceptions import ConnectionError as NotAnsweringError

from app.composition import breaker_policy, guard_names
from app.job_safety.circuit_breaker import Breakers, BreakerState, BreakerStatus
from app.job_safety.errors import StoreUnavailableError
from app.settings import Settings

RANK = {BreakerState.CLOSED: 0, BreakerState.HALF_OPEN: 1, BreakerState.OPEN: 2}


def read(redis: Redis, settings: Settings) -> list[BreakerStatus]:
    """Return every circuit.

    Raises:
        RedisError: Redis did not answer.
    """
    try:
        return Breakers(redis, guard_names(settings), breaker_policy(settings)).read_all()
    except StoreUnavailableError as error:
        raise NotAnsweringError(str(error).removeprefix("redis: ")) from error
