"""Celery on Redis, with the settings that recover fastest without giving up on recovery.

- `task_acks_late`: acknowledged after the work, or a killed worker's jobs are gone.
- `task_reject_on_worker_lost`: a job whose pool process was killed is queued again at once, not failed.
- `worker_prefetch_multiplier=1`: a killed worker holds no jobs but the one that it works on.
- `visibility_timeout=5`: seconds after which an unacknowledged job is queued again (default 3600). A job takes 0.1 s
  here; below a job's longest time the queue would repeat jobs that nobody killed.
- `unacked_restore_interval=1`, `unacked_restore_throttle=1`: look for such jobs every second (default every 100 s).
- `unacked_mutex_expire=5`: a worker killed while it looks must not keep the others from looking (default 300).
- No result backend: nobody reads results here, and it costs time. Gossip and mingle off (on the command line): they
  only make a worker start later.
"""

import os

from celery import Celery  # type: ignore[import-not-found]  # not among the project's requirements

from bench.peers.work import place as _place

_url = os.environ.get("REDIS_URL", "")
app = Celery("bench", broker=_url.replace("unix://", "redis+socket://").replace("?db=", "?virtual_host="))
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    worker_enable_remote_control=False,
    broker_transport_options={
        "visibility_timeout": 5,
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
        "unacked_mutex_expire": 5,
    },
    broker_connection_retry_on_startup=True,
)


@app.task(name="place")  # type: ignore[untyped-decorator]
def place(client_id: str) -> None:
    """Place one order."""
    _place(client_id)


def enqueue(client_id: str) -> None:
    """Enqueue one order."""
    place.apply_async([client_id], task_id=client_id)
