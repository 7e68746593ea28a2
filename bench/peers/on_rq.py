"""RQ, as its documentation shows it, and with the settings that recover fastest.

Every worker reads one queue: with more than one, RQ pops without an intermediate list and loses what a killed worker
held. Best settings:
- `Retry(max=3)`: without it a job whose worker died is marked failed, not run again. No interval: that needs the
  scheduler, which adds up to a second and a lock of a minute.
- `--worker-ttl 16`: an idle worker blocks in Redis for this less 15 s and looks after abandoned jobs only in between.
- `--maintenance-interval 1`: how often it may look after them (default 600).
- `--job-monitoring-interval 1`: how often the parent renews a running job's entry, which counts as abandoned 60 s
  (fixed in RQ) after the last renewal.
"""

import os

from redis import Redis
from rq import Queue, Retry

from bench.peers.work import place

_queue = Queue("orders", connection=Redis.from_url(os.environ["REDIS_URL"])) if "REDIS_URL" in os.environ else None


def enqueue(client_id: str) -> None:
    """Enqueue one order."""
    assert _queue is not None
    retry = Retry(max=3) if os.environ.get("PEER_SETTINGS") == "best" else None
    _queue.enqueue(place, client_id, job_id=client_id, retry=retry)
