"""RQ as its documentation shows it; jobs are enqueued by its batch call."""

import os
from collections.abc import Sequence

from redis import Redis
from rq import Queue

from bench.throughput.job import place


def fill(client_ids: Sequence[str]) -> None:
    """Enqueue all."""
    queue = Queue("bench", connection=Redis.from_url(os.environ["REDIS_URL"]))
    for start in range(0, len(client_ids), 200):
        chunk = client_ids[start : start + 200]
        queue.enqueue_many([Queue.prepare_data(place, [one], result_ttl=600) for one in chunk])
