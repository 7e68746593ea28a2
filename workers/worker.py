"""The RQ worker: a SimpleWorker on one queue, with JSON jobs, an allow-list, and an execution context of its own.

`rq worker -w workers.worker.SafetyWorker orders` and `fillonce worker orders` run the same class.
"""

import argparse
import contextlib
import logging
import signal
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Final

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry
from rq import Queue, SimpleWorker
from rq.exceptions import DeserializationError
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.timeouts import BaseDeathPenalty

from app.composition import compose, open_here
from app.delivery import QUEUES, rq_queue_name
from app.execution.context import ExecutionContext
from app.job_safety.errors import OutcomeUnknownError, RetryableError, StoreUnavailableError
from app.journal import intents
from app.wiring import Installation, connect_redis
from workers import jobs
from workers.identity import new_owner
from workers.redis_watch import check_before_work
from workers.safety_job import REFUSED_KEY, RefusedJobError, SafetyJob

WORKER_TTL_S: Final = 60
"""How long an idle worker may block in Redis before it shows a sign of life."""

MAINTENANCE_S: Final = 600


class NoDeathPenalty(BaseDeathPenalty):
    """RQ's timeout would raise in the middle of a request. Ours has a deadline of its own, and an outcome."""

    def setup_death_penalty(self) -> None:
        """Do nothing."""

    def cancel_death_penalty(self) -> None:
        """Do nothing."""


class SafetyWorker(SimpleWorker):
    """Works off one queue. What makes an effect safe lies in the job functions; this keeps rq out of their way."""

    job_class = SafetyJob
    death_penalty_class = NoDeathPenalty
    log_result_lifespan = False
    max_connection_wait_time = 2.0

    def __init__(
        self,
        queues: Any,
        name: str | None = None,
        connection: Redis | None = None,
        installation: Installation | None = None,
        **options: Any,
    ) -> None:
        self.installation = installation or open_here()
        names = [queue.name if isinstance(queue, Queue) else str(queue) for queue in _listed(queues)]
        if len(names) > 1:
            # RQ pops from several queues without an intermediate list: a job popped by a worker that dies is gone.
            raise ValueError(f"one queue per worker, not {', '.join(names)}")
        account = self.installation.account
        full = [rq_queue_name(one, account) if one in QUEUES else one for one in names]
        options |= {
            "serializer": JSONSerializer,
            "job_class": SafetyJob,
            "worker_ttl": WORKER_TTL_S,
            "maintenance_interval": MAINTENANCE_S,
            "log_job_description": False,
        }
        options.pop("default_worker_ttl", None)
        role = names[0] if names else "idle"
        super().__init__(full, name or new_owner(role), connection=_sent_once(connection, self.installation), **options)
        self.context: ExecutionContext | None = None

    @property
    def is_stopping(self) -> bool:
        """Whether it has been told to end."""
        return bool(self._stop_requested)

    def work(self, *arguments: Any, **options: Any) -> bool:
        """Work until told to stop, or with `burst` until the queue is empty.

        Raises:
            ForeignQueueError: the queue is another journal's.
            StoreUnavailableError: Redis cannot hand out work.
            UnsafeRedisError: in mode live, on a Redis that is not safe to trade on.
        """
        self.installation.delivery.claim()
        self.context = compose(self.installation, self.name)
        here = self.installation
        check_before_work(here.redis, here.settings, here.clock, self.context.record)
        jobs.CONTEXT.set(self.context)
        options.setdefault("logging_level", "WARNING")
        try:
            worked: bool = super().work(*arguments, **options)
        finally:
            self.context.record.close()
        return worked

    def handle_exception(self, job: Job, *exc_info: Any) -> None:
        """Log the failure of a job in our own form, and count what was refused."""
        error = exc_info[1] if len(exc_info) > 1 else None
        if self.context is not None:
            if isinstance(error, RefusedJobError):
                self.context.record.event("job_refused", level="error", job_id=job.id, why=str(error))
                with contextlib.suppress(RedisError):
                    self.installation.redis.incr(REFUSED_KEY)
            else:
                level = "warning" if isinstance(error, StoreUnavailableError) else "error"
                self.context.record.event(
                    "job_failed", level=level, job_id=job.id, error=f"{type(error).__name__}: {error}"
                )
                if not isinstance(error, RetryableError | OutcomeUnknownError | RedisError):
                    self._count_against(self.context, job)
        super().handle_exception(job, *exc_info)

    def _count_against(self, context: ExecutionContext, job: Job) -> None:
        """Count what broke by itself as a death: an intent that does so again and again is poison."""
        # A job whose arguments cannot be read names nothing of ours.
        with contextlib.suppress(StoreUnavailableError, DeserializationError):
            keys = [str(argument) for argument in job.args]
            with context.journal.write() as connection:
                intents.count_deaths(connection, keys)


def _listed(queues: Any) -> Sequence[Any]:
    return queues if isinstance(queues, list | tuple) else [queues]


def _sent_once(connection: Redis | None, installation: Installation) -> Redis:
    """Return a connection that repeats no command: RQ's are not idempotent, and redis-py repeats by default."""
    if connection is None:
        return connect_redis(installation.redis_url, timeout_s=WORKER_TTL_S + 30)
    connection.connection_pool.connection_kwargs["retry"] = Retry(NoBackoff(), 0)
    connection.connection_pool.disconnect()
    return connection


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


def run_worker(
    queue: str, *, owner: str | None = None, burst: bool = False, installation: Installation | None = None
) -> int:
    """Run one worker on one queue until it is told to stop; return the exit code."""
    installation = installation or open_here()
    worker = SafetyWorker(
        [queue], name=owner or new_owner(queue), connection=_sent_once(None, installation), installation=installation
    )
    with quiet_rq():
        worker.work(burst=burst)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a worker from the command line."""
    parser = argparse.ArgumentParser(prog="python -m workers.worker", description="Run one worker on one queue.")
    parser.add_argument("queue", choices=QUEUES)
    parser.add_argument("--burst", action="store_true", help="stop when the queue is empty")
    parsed = parser.parse_args(arguments)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    return run_worker(parsed.queue, burst=parsed.burst)


__all__ = ["SafetyWorker", "main", "run_worker"]

if __name__ == "__main__":
    sys.exit(main())
