"""RQ with an idempotency record around the job: AWS Powertools, its record in the same Redis.

A job that runs again finds the record and does not send again, unless it was killed between the two: then the record
says "in progress" until it expires, and what became of the order nobody knows.
"""

import os
from collections.abc import Sequence
from functools import cache

from aws_lambda_powertools.utilities.idempotency import (  # type: ignore[import-not-found]  # the peers' environment
    IdempotencyConfig,
    idempotent_function,
)
from aws_lambda_powertools.utilities.idempotency.persistence.cache import (  # type: ignore[import-not-found]  # the same
    CachePersistenceLayer,
)
from redis import Redis

from bench.throughput import on_rq
from bench.throughput.job import place as _place


def place(client_id: str) -> None:
    """Place one order unless its record says that it was placed."""
    _guarded()(client_id=client_id)


def fill(client_ids: Sequence[str]) -> None:
    """Enqueue all, in batches."""
    on_rq.fill_with(place, client_ids)


@cache
def _guarded():  # type: ignore[no-untyped-def]  # noqa: ANN202 - Powertools is not there to be checked
    records = CachePersistenceLayer(client=Redis.from_url(os.environ["REDIS_URL"], decode_responses=True))
    config = IdempotencyConfig(expires_after_seconds=3600)
    wrapped = idempotent_function(data_keyword_argument="client_id", persistence_store=records, config=config)
    return wrapped(_unguarded)


def _unguarded(*, client_id: str) -> None:
    _place(client_id)
