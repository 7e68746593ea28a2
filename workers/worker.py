"""The RQ worker: a SimpleWorker on one queue, with JSON jobs, an allow-list, and an execution context of its own.

`rq worker -w workers.worker.SafetyWorker orders` and `fillonce worker orders` run the same class.
"""

import contextlib
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.retry import Retry
from rq import Queue, SimpleWorker
from rq.exceptions import StopRequested
from rq.executions import Execution
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.utils import now as rq_now
from rq.worker import WorkerStatus

from app.composition import compose, guard_names, open_here
from app.delivery import QUEUES, URGENT, Claim, Claims, Leavings, rq_queue_name
from app.execution.alone import NotAloneError
from app.execution.context import ExecutionContext
from app.job_safety.admission import Asking, EffectKind
from app.job_safety.errors import (
    InvariantViolatedError,
    OutcomeUnknownError,
    RetryableError,
    StoreUnavailableError,
)
from app.journal import intents
from app.once_redis import OnceRedis
from app.wiring import Installation, connect_redis
from workers import jobs
from workers.identity import new_owner
from workers.redis_watch import check_before_work
from workers.safety_job import REFUSED_KEY, NoDeathPenalty, RefusedJobError, SafetyJob

WORKER_TTL_S: Final = 60
"""How long an idle worker may block in Redis before it shows a sign of life."""

ASKED_WAIT_SHARE: Final = 0.75
"""How long to wait for a job with the question for its admission, as a part of how long the answer is believed."""

SIGN_OF_LIFE_S: Final = 15.0
SUSPENSION_S: Final = 1.0
_NEVER: Final = datetime.fromtimestamp(0, tz=UTC)

MAINTENANCE_S: Final = 600


class SafetyWorker(SimpleWorker):
    """Works off one queue. What makes an effect safe lies in the job functions; this keeps rq out of their way."""

    job_class = SafetyJob
    death_penalty_class = NoDeathPenalty
    log_result_lifespan = False
    max_connection_wait_time = 2.0
    wait_s = float(WORKER_TTL_S - 15)
    """How long to block for a job before looking around."""

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
        super().__init__(full, name or new_owner(role), connection=sent_once(connection, self.installation), **options)
        self.context: ExecutionContext | None = None
        self._claimed: Claim | None = None
        self._look_at_s = 0.0
        # Only urgent work takes risk away, and what is urgent may open some all the same.
        self._kinds = [EffectKind.OPEN, *([EffectKind.REDUCE] if role == URGENT else [])]
        self._claims = Claims(
            self.connection, self.installation.delivery, queue=full[0] if full else "", worker=self.name,
            worker_ttl_s=WORKER_TTL_S + 60, guards=guard_names(self.installation.settings).guard("order", ""),
        )  # fmt: skip

    @property
    def is_stopping(self) -> bool:
        """Whether it has been told to end."""
        return bool(self._stop_requested)

    @property
    def may_go_on(self) -> bool:
        """Whether the end of a job may begin the next."""
        return not self.is_stopping

    def stay_alone(self) -> bool:
        """Return whether this process is at nothing but the job under way until that ends."""
        return True

    def work(self, *arguments: Any, **options: Any) -> bool:
        """Work until told to stop, or with `burst` until the queue is empty.

        Raises:
            ForeignQueueError: the queue is another journal's.
            StoreUnavailableError: Redis cannot hand out work.
            UnsafeRedisError: in mode live, on a Redis that is not safe to trade on.
        """
        self.installation.delivery.claim()
        self.context = replace(compose(self.installation, self.name), stay_alone=self.stay_alone)
        here = self.installation
        check_before_work(here.redis, here.settings, here.clock, self.context.record)
        jobs.CONTEXT.set(self.context)
        options.setdefault("logging_level", "WARNING")
        try:
            worked: bool = super().work(*arguments, **options)
        finally:
            self.context.record.close()
        return worked

    def check_for_suspension(self, burst: bool) -> None:  # noqa: FBT001 - the base's signature
        """Look once a second while idle: the script that begins a job in passing has looked already (`finish.lua`)."""
        if self._claimed is None and time.monotonic() >= self._look_at_s:
            super().check_for_suspension(burst)
            self._look_at_s = time.monotonic() + SUSPENSION_S

    def heartbeat(self, timeout: int | None = None, pipeline: Any = None) -> None:
        """Show a sign of life if the last is old: whatever begins or ends a job shows one by itself."""
        if pipeline is not None or (rq_now() - (self.last_heartbeat or _NEVER)).total_seconds() > SIGN_OF_LIFE_S:
            super().heartbeat(timeout, pipeline)

    def dequeue_job_and_maintain_ttl(self, timeout: int | None, max_idle_time: int | None = None) -> Any:
        """Begin the next job and return it with its queue; None: there is none, in a burst or after `max_idle_time`."""
        claims, queue = self._claims, self.queues[0]
        claim, self._claimed = self._claimed or claims.take(self._asking()), None
        idle_until_s = None if max_idle_time is None else time.monotonic() + max_idle_time
        while claim is None and timeout is not None:
            if self.is_stopping:
                raise StopRequested
            if idle_until_s is not None and time.monotonic() >= idle_until_s:
                return None
            if self.get_state() != WorkerStatus.IDLE:
                self.set_state(WorkerStatus.IDLE)
            claim = self._wait()
            if claim is not None:
                break  # what may fail, or take its time, does not stand between a job and its worker
            self.heartbeat()
            if self.should_run_maintenance_tasks:
                self.run_maintenance_tasks()  # type: ignore[no-untyped-call]  # rq has no types here
        if claim is None:
            return None
        self._set_local_state(WorkerStatus.BUSY)
        self.last_heartbeat = rq_now()
        return claim, queue

    def execute_job(self, job: Any, queue: Queue) -> None:
        """Run what was begun, and begin the next with the same round trip that ends it."""
        claim: Claim = job
        if claim.function is None:
            with self._admission_of(claim):
                self._execute_unknown(claim, queue)
            return
        context = self._context_in_use
        context.afterwards.leavings = leavings = Leavings()
        try:
            with self._admission_of(claim):
                result = jobs.run(claim.function, claim.key)
        except NotAloneError:
            context.afterwards.leavings = None
            self._end_guards(leavings)
            self._claims.give_back()
            self._set_local_state(WorkerStatus.IDLE)
            return
        except Exception:  # noqa: BLE001 - RQ's own: whatever a job raises is kept in the job, and the worker goes on
            context.afterwards.leavings = None
            self._fail(claim, queue, leavings)
            return
        context.afterwards.leavings = None
        has_dependents, self._claimed = self._claims.finish(
            claim, result, leavings, begin_next=self.may_go_on, asking=self._asking()
        )
        jobs.after_the_end(context, leavings)
        if has_dependents:
            queue.enqueue_dependents(self._fetch(claim))
        if self._claimed is None:
            self._set_local_state(WorkerStatus.IDLE)

    def teardown(self) -> None:
        """Give back what was begun and not ended, then take leave."""
        with contextlib.suppress(RedisError):  # then the sweeper brings it back
            self._claims.give_back()
        super().teardown()  # type: ignore[no-untyped-call]  # the same

    def decline(self, claim: Claim) -> None:
        """Return a job that was begun to the head of its queue, with the admission that came with its beginning."""
        with self._admission_of(claim):
            self._claims.give_back()
        self._set_local_state(WorkerStatus.IDLE)

    def _end_guards(self, leavings: Leavings) -> None:
        for guard in leavings.guards:
            self._context_in_use.end(guard)

    def _asking(self) -> Asking | None:
        """Return what asks for the admission of the next job with its beginning, or nothing.

        Only of venues that this process has sent to: the first order of each goes the whole way, on which the limits
        are learned and the books are opened.
        """
        context = self._context_in_use
        kill_epoch = context.early.known_epoch
        if kill_epoch is None or not context.opened or context.is_dry_run:
            return None
        wanted = [(kind, venue) for kind in self._kinds for venue in sorted(context.opened)]
        return context.admission.ahead("order", wanted, at_s=context.clock.monotonic(), kill_epoch=kill_epoch)

    @contextlib.contextmanager
    def _admission_of(self, claim: Claim) -> Iterator[None]:
        """Let the job take the admission that came with its beginning; give back what it has not taken."""
        context = self._context_in_use
        early = context.early
        early.ahead = context.admission.told(*claim.asked) if claim.asked is not None else None
        try:
            yield
        finally:
            left, early.ahead = early.ahead, None
            if left is not None:
                context.end_early(left)

    def _wait(self) -> Claim | None:
        """Wait for the next job, through an absence of Redis too."""
        pause_s = 0.5
        is_unanswered = False
        while True:
            try:
                if is_unanswered:
                    return self._take_what_was_not_heard_of()
                asking = self._asking()
                # Nobody knows when during the wait it was answered: the answer counts as old as the question.
                wait_s = self._context_in_use.admission.fresh_s * ASKED_WAIT_SHARE if asking else self.wait_s
                return self._claims.wait(min(wait_s, self.wait_s), asking)
            except RedisConnectionError as error:
                self.log.warning("worker %s: Redis is not there: %s", self.name, error)
                time.sleep(pause_s)
                pause_s = min(pause_s * 2, self.max_connection_wait_time)
                if self.is_stopping:
                    raise StopRequested from error
                is_unanswered = True

    def _take_what_was_not_heard_of(self) -> Claim | None:
        """Begin what the unanswered wait may have begun, or only moved; None: it was neither."""
        return self._claims.take() if self._claims.give_back() else self._claims.take_moved()

    def _execute_unknown(self, claim: Claim, queue: Queue) -> None:
        """Let RQ itself deal with what is not plainly ours: it is refused, with all that RQ does to a failed job."""
        try:
            job = self._fetch(claim)
        except RedisError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever RQ makes of a hash that it cannot read
            # Given back, it would end one worker after the other.
            self._tell_refused(claim.job_id, f"refused: it cannot be read: {type(error).__name__}: {error}")
            self._claims.drop(claim)
        else:
            self.execution = self._execution_of(claim)
            self.perform_job(job, queue)
        self.set_state(WorkerStatus.IDLE)

    def _tell_refused(self, job_id: str, why: str) -> None:
        self._context_in_use.record.event("job_refused", level="error", job_id=job_id, why=why[:500])
        with contextlib.suppress(RedisError):
            self.installation.redis.incr(REFUSED_KEY)

    def _fail(self, claim: Claim, queue: Queue, leavings: Leavings) -> None:
        """Tell what the job has left, and have RQ keep the failure where its tools show it."""
        context = self._context_in_use
        raised = sys.exc_info()
        self._end_guards(leavings)
        context.hand_over(leavings.parcels)
        if not isinstance(raised[1], RetryableError | OutcomeUnknownError | RedisError):
            # What breaks by itself counts as a death: an intent that does so again and again is poison.
            with contextlib.suppress(StoreUnavailableError), context.journal.write() as connection:
                intents.count_deaths(connection, [claim.key])
        job = self._fetch(claim)
        job.started_at = datetime.fromtimestamp(claim.begun_s, tz=UTC)
        self.execution = self._execution_of(claim)
        self.handle_execution_ended(job, queue, self.get_heartbeat_ttl(job))
        self.handle_exception(job, *raised)
        self.handle_job_failure(job=job, queue=queue, exc_string="".join(traceback.format_exception(*raised)))
        self.set_state(WorkerStatus.IDLE)

    def _fetch(self, claim: Claim) -> Job:
        return self.job_class.fetch(claim.job_id, connection=self.connection, serializer=self.serializer)

    def _execution_of(self, claim: Claim) -> Execution:
        return Execution(claim.execution_id, claim.job_id, self.connection, worker_name=self.name)

    def _set_local_state(self, state: WorkerStatus) -> None:
        """Note what the scripts have written into Redis already."""
        self._state = state

    @property
    def _context_in_use(self) -> ExecutionContext:
        if self.context is None:
            raise InvariantViolatedError("a worker runs jobs in `work` only")
        return self.context

    def handle_exception(self, job: Job, *exc_info: Any) -> None:
        """Log the failure of a job in our own form, and count what was refused."""
        error = exc_info[1] if len(exc_info) > 1 else None
        if self.context is not None:
            if isinstance(error, RefusedJobError):
                self._tell_refused(job.id, str(error))
            else:
                level = "warning" if isinstance(error, StoreUnavailableError) else "error"
                self.context.record.event(
                    "job_failed", level=level, job_id=job.id, error=f"{type(error).__name__}: {error}"
                )
        super().handle_exception(job, *exc_info)


def _listed(queues: Any) -> Sequence[Any]:
    return queues if isinstance(queues, list | tuple) else [queues]


def sent_once(connection: Redis | None, installation: Installation) -> Redis:
    """Return a connection that repeats no command: RQ's are not idempotent, and redis-py repeats by default."""
    if connection is None:
        return connect_redis(installation.redis_url, timeout_s=WORKER_TTL_S + 30)
    connection.connection_pool.connection_kwargs["retry"] = Retry(NoBackoff(), 0)
    connection.connection_pool.disconnect()
    return OnceRedis(connection_pool=connection.connection_pool)
