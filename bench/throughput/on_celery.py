"""Celery on Redis: acknowledged after the work, as any queue must that is not to lose what a killed worker held."""

import os
from collections.abc import Sequence

from celery import Celery  # type: ignore[import-not-found]  # not among the project's requirements

from bench.throughput.job import place as _place

# Its name for a socket is another than Redis' own.
app = Celery("bench", broker=os.environ.get("REDIS_URL", "").replace("unix://", "redis+socket://"))
app.conf.update(
    task_acks_late=True, worker_prefetch_multiplier=4, worker_enable_remote_control=False,
    broker_connection_retry_on_startup=True, task_ignore_result=True,
)  # fmt: skip


@app.task(name="place")  # type: ignore[untyped-decorator]
def place(client_id: str) -> None:
    """Place one order."""
    _place(client_id)


def fill(client_ids: Sequence[str]) -> None:
    """Enqueue all."""
    with app.connection_for_write() as connection, connection.Producer() as producer:
        for one in client_ids:
            place.apply_async([one], producer=producer)
