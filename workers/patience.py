"""What a supervised worker does while a store is away: it waits, and says so once, instead of dying over and over."""

import time
from collections.abc import Callable
from typing import Final

from redis.exceptions import RedisError

from app.composition import open_here
from app.job_safety.errors import StoreUnavailableError
from app.observability.log import make_logger
from app.wiring import Installation

LOOK_S: Final = 0.5
UNAVAILABLE: Final = 3


def run_with_stores(work: Callable[[Installation], int], *, owner: str) -> int:
    """Wait until Redis can hand out jobs, run `work`, return its code; a store that goes away ends it with one line.

    SIGTERM ends the wait, because nothing handles it here.
    """
    log = make_logger(owner=owner)
    try:
        installation = open_here()
        _await_redis(installation, owner)
        return work(installation)
    except (RedisError, StoreUnavailableError) as error:
        log.warning("store_went_away", error=f"{type(error).__name__}: {error}")
        return UNAVAILABLE


def _await_redis(installation: Installation, owner: str) -> None:
    log = make_logger(owner=owner)
    is_told = False
    while True:
        try:
            installation.delivery.claim()
        except StoreUnavailableError as error:
            if not is_told:
                log.warning("waits_for_redis", error=str(error))
            is_told = True
            time.sleep(LOOK_S)
        else:
            break
    if is_told:
        log.info("redis_is_back")
