"""Huey on Redis, one worker thread in one process."""

import os
from collections.abc import Sequence

from huey import RedisHuey  # type: ignore[import-not-found]  # not among the project's requirements

from bench.throughput.job import place as _place

huey = RedisHuey("bench", url=os.environ.get("REDIS_URL", ""), results=False)


@huey.task()  # type: ignore[untyped-decorator]
def place(client_id: str) -> None:
    """Place one order."""
    _place(client_id)


def fill(client_ids: Sequence[str]) -> None:
    """Enqueue all."""
    for one in client_ids:
        place(one)
