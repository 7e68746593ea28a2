"""Dramatiq on Redis, with the settings that recover fastest.

- `heartbeat_timeout=5000`: milliseconds of silence after which a worker's jobs are queued again (default 60000).
- `maintenance_chance=1000000`: look for silent workers with every command (default: one in a thousand).
- `dramatiq_queue_prefetch=1` (in its environment): a killed worker holds few jobs besides the one that it works on.
- Retries as by default (on): they concern jobs that raise.
"""

import os

import dramatiq  # type: ignore[import-not-found]  # not among the project's requirements
from dramatiq.brokers.redis import RedisBroker  # type: ignore[import-not-found]

from bench.peers.work import place as _place

dramatiq.set_broker(RedisBroker(url=os.environ.get("REDIS_URL"), heartbeat_timeout=5_000, maintenance_chance=1_000_000))


@dramatiq.actor  # type: ignore[untyped-decorator]
def place(client_id: str) -> None:
    """Place one order."""
    _place(client_id)


def enqueue(client_id: str) -> None:
    """Enqueue one order."""
    place.send(client_id)
