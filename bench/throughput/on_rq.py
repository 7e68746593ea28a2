"""RQ as its documentation shows it; a batch of jobs is enqueued by its batch call."""

import os
from collections.abc import Callable, Sequence
from functools import cache
from typing import Final

from redis import Redis
from rq import Queue

from bench.throughput.job import place

CHUNK: Final = 200


def fill(client_ids: Sequence[str]) -> None:
    """Enqueue all, in batches."""
    fill_with(place, client_ids)


def one(client_id: str) -> None:
    """Enqueue one."""
    _queue().enqueue(place, client_id, result_ttl=600)


def fill_with(job: Callable[[str], None], client_ids: Sequence[str]) -> None:
    """Enqueue `job` for all, in batches."""
    for start in range(0, len(client_ids), CHUNK):
        chunk = client_ids[start : start + CHUNK]
        _queue().enqueue_many([Queue.prepare_data(job, [client_id], result_ttl=600) for client_id in chunk])


@cache
def _queue() -> Queue:
    return Queue("bench", connection=Redis.from_url(os.environ["REDIS_URL"]))
