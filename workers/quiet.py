"""Keeps RQ's own words short: what a worker has to say, it says in our form."""

import contextlib
import logging
from collections.abc import Iterator

from redis.exceptions import RedisError

from app.job_safety.errors import StoreUnavailableError


def _in_one_line(record: logging.LogRecord) -> bool:
    """Say of a store that is away what it said; where in RQ we heard of it helps nobody."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, RedisError | StoreUnavailableError):
        record.msg, record.args = f"{record.getMessage()} {type(error).__name__}: {error}", ()
        record.exc_info = None
    return True


@contextlib.contextmanager
def quiet_rq() -> Iterator[None]:
    """Keep RQ's own chatter below warnings, and its words on an absent Redis to a line."""
    logger = logging.getLogger("rq.worker")
    before = logger.level
    logger.setLevel(logging.WARNING)
    logger.addFilter(_in_one_line)
    try:
        yield
    finally:
        logger.removeFilter(_in_one_line)
        logger.setLevel(before)
