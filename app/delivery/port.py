"""The queue port: hands keys to RQ and takes them back from dead workers. It may deliver twice, late, or never.

The queue carries keys only. A job's description is for people who look at a dashboard; nothing reads it back.
"""

import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, cast

from redis import Redis
from redis.exceptions import RedisError
from rq.job import Job, JobStatus
from rq.serializers import JSONSerializer

from app.clock import to_ms
from app.delivery.rq_format import now_text, packed
from app.job_safety import keys, scripts
from app.job_safety.errors import ForeignQueueError, StoreUnavailableError

URGENT: Final = "urgent"
"""Carries what takes risk away."""

QUEUES: Final = (URGENT, "orders", "positions", "ledger", "pnl", "signals")
FOLLOWUP: Final = "followup"
JOB_FUNCTIONS: Final = {
    kind: f"workers.jobs.run_{kind}" for kind in ("order", "cancel", "position", "ledger", "pnl", "signal", FOLLOWUP)
}
"""The only functions that a worker of ours will call, by type of work."""

_KIND_OF: Final = {function: kind for kind, function in JOB_FUNCTIONS.items()}

RESULT_TTL_S: Final = 600
FAILURE_TTL_S: Final = 24 * 3600
CLAIM_TTL_MS: Final = 10_000
MAX_BATCH: Final = 200
"""Jobs per script: Redis does nothing else while one runs, and Lua's `unpack` takes some thousand values at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """One key to deliver: what type of work it names, and on which of `QUEUES`.

    `asks`: what its admission asks for (`admission.asks_for`), so that this can come with its beginning; or nothing.
    """

    key: str
    type: str
    queue: str
    description: str = ""
    asks: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueState:
    """What waits on a queue, how many workers serve it, and when the next job was put there."""

    depth: int
    workers: int
    enqueued_at_ms: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Burial:
    """What a dead worker has left. `is_first`: it was in RQ's books until now; of two who bury it, one is the first."""

    parcels: Sequence[Parcel]
    is_first: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Jobs for one queue, as `lib_deliver.lua` takes them."""

    keys: Sequence[str]
    arguments: Sequence[Any]


class Delivery:
    """Delivers keys of one account and mode. Its Redis client must not retry by itself (see `connect_redis`)."""

    def __init__(
        self, redis: Redis, *, account: str, mode: str, installation: str, claim_ttl_ms: int = CLAIM_TTL_MS
    ) -> None:
        self._redis = redis
        self._account = account
        self._mode = mode
        self._name = f"{installation[:12]} in mode {mode}"
        self._claim_key = f"delivery:claim:{account}"
        self._claim_ttl_ms = claim_ttl_ms
        self._alike: dict[str, Sequence[Any]] = {}
        self._claim = redis.register_script(scripts.source("claim", package="app.delivery"))
        self._deliver = redis.register_script(scripts.source("deliver", package="app.delivery"))

    def queue_name(self, queue: str) -> str:
        """Return RQ's name of a queue: the plain one for account `main`, with the label for any other."""
        return rq_queue_name(queue, self._account)

    def job_id(self, parcel: Parcel) -> str:
        """Return the RQ job id of a parcel: always the same for the same key."""
        return keys.job_id(account=self._account, mode=self._mode, intent_type=parcel.type, key=parcel.key)

    def deliver(self, parcels: Sequence[Parcel], *, force: bool = False, front: bool = False) -> int:
        """Push `parcels` to their queues, passing over what is waiting or running already; return how many were new.

        Args:
            parcels: What to deliver.
            force: Push even what RQ believes to be waiting or running; harmless, since a second delivery finds the
                guard or the journal.
            front: Put them before everything that waits, by force: what a dead worker held has waited before.

        Raises:
            ForeignQueueError: the queues are another journal's.
            StoreUnavailableError: Redis did not answer; some of it may have been delivered.
        """
        how = "front" if front else "force" if force else ""
        return sum(self._push(batch) for batch in self.batches(parcels, how))

    def batches(self, parcels: Sequence[Parcel], how: str = "") -> Iterator[Batch]:
        """Yield what delivers `parcels`, for a script that does more than that; `how` as `lib_deliver.lua` says."""
        for queue in dict.fromkeys(parcel.queue for parcel in parcels):
            same = [parcel for parcel in parcels if parcel.queue == queue]
            for start in range(0, len(same), MAX_BATCH):
                yield self._batch(queue, same[start : start + MAX_BATCH], how)

    def claim(self) -> None:
        """Keep the queues of this account for this journal for some seconds, and see whether Redis takes writes at all.

        Raises:
            ForeignQueueError: another journal keeps them.
            StoreUnavailableError: Redis did not answer, or takes no writes.
        """
        try:
            owner = cast("bytes", self._claim(keys=[self._claim_key], args=[self._name, self._claim_ttl_ms]))
        except RedisError as error:
            raise StoreUnavailableError(f"redis: {error}") from error
        self._refuse(owner)

    def claimed_for_ms(self) -> int:
        """Return for how long the queues of this account are still kept, for whatever journal; 0: nobody serves them.

        Raises:
            StoreUnavailableError: Redis did not answer.
        """
        try:
            return max(int(self._redis.pttl(self._claim_key)), 0)
        except RedisError as error:
            raise StoreUnavailableError(f"redis: {error}") from error

    def _refuse(self, owner: bytes) -> None:
        if owner:
            raise ForeignQueueError(
                f"redis: the queues of account {self._account!r} are another journal's (installation "
                f"{owner.decode()}), and two would take each other's work; stop the other one, or give this one a "
                "database of its own, such as the 1 in redis://127.0.0.1:6379/1; "
                f"a claim runs out {self._claim_ttl_ms / 1000:g} s after its journal's last process"
            )

    def waiting(self, queue: str) -> set[str]:
        """Return the job ids that wait on `queue`.

        Raises:
            StoreUnavailableError: Redis did not answer.
        """
        try:
            raw = self._redis.lrange(self._queue_key(queue), 0, -1)
        except RedisError as error:
            raise StoreUnavailableError(f"redis: {error}") from error
        return {item.decode() for item in cast("list[bytes]", raw)}

    def was_begun_by_the_dead(self, parcel: Parcel) -> bool:
        """Return whether a worker that RQ knows no more began with it, and neither finished nor failed.

        Raises:
            StoreUnavailableError: Redis did not answer.
        """
        try:
            told = self._redis.hmget(f"rq:job:{self.job_id(parcel)}", ["status", "worker_name"])
            status, worker = cast("list[bytes | None]", told)
            if status != JobStatus.STARTED.encode():
                return False
            # One that is merely slow or paused is still in RQ's books; its supervisor takes it out when it dies.
            return worker is None or not self._redis.exists(f"rq:worker:{worker.decode()}")
        except RedisError as error:
            raise StoreUnavailableError(f"redis: {error}") from error

    def depth(self, queue: str) -> int:
        """Return how many jobs wait on `queue`."""
        try:
            return self._redis.llen(self._queue_key(queue))
        except RedisError as error:
            raise StoreUnavailableError(f"redis: {error}") from error

    def look(self, redis: Redis) -> dict[str, QueueState]:
        """Return what waits on every queue, in two round trips however long they are.

        Args:
            redis: The client to ask by: whoever only looks has a shorter timeout than who works.

        Raises:
            RedisError: it did not answer.
        """
        with redis.pipeline(transaction=False) as pipe:
            for queue in QUEUES:
                pipe.llen(self._queue_key(queue))
                pipe.lindex(self._queue_key(queue), 0)
                pipe.scard(f"rq:workers:{self.queue_name(queue)}")
            told = pipe.execute()
            depths, firsts, workers = told[0::3], told[1::3], told[2::3]
            for first in firsts:
                # A queue that is empty has no first job; its question is asked all the same, to keep them in step.
                pipe.hget(f"rq:job:{(first or b'').decode()}", "enqueued_at")
            since = pipe.execute()
        return {
            queue: QueueState(depth=depth, workers=count, enqueued_at_ms=_instant_ms(raw))
            for queue, depth, count, raw in zip(QUEUES, depths, workers, since, strict=True)
        }

    def bury_worker(self, name: str) -> Burial:
        """Take a dead worker out of RQ's books; return its job, and any job caught between two lists.

        Only for a worker that is known to be dead. The caller delivers them again, by force.

        Raises:
            StoreUnavailableError: Redis did not answer; calling again is safe.
        """
        try:
            return self._bury(name)
        except RedisError as error:
            raise StoreUnavailableError(f"redis: {error}") from error

    def _bury(self, name: str) -> Burial:
        worker_key = f"rq:worker:{name}"
        current, raw_queues = cast("list[bytes | None]", self._redis.hmget(worker_key, ["current_job", "queues"]))
        queues = [queue for queue in (raw_queues or b"").decode().split(",") if queue]
        stranded: list[tuple[str, str]] = []
        if current is not None and queues:
            stranded.append((current.decode(), queues[0]))
        for queue in queues:
            # A job between dequeue and start lies here without a worker's name on it. A live worker's job that is
            # delivered again with the dead one's is turned away by its guard.
            raw = cast("list[bytes]", self._redis.lrange(f"rq:queue:{queue}:intermediate", 0, MAX_BATCH))
            stranded += [(item.decode(), queue) for item in raw]
        parcels = [parcel for job_id, queue in stranded if (parcel := self._parcel_of(job_id, queue)) is not None]
        with self._redis.pipeline(transaction=True) as pipe:
            for job_id, queue in stranded:
                self._forget_run(pipe, job_id, queue)
            pipe.srem("rq:workers", worker_key)
            for queue in queues:
                pipe.srem(f"rq:workers:{queue}", worker_key)
            pipe.delete(worker_key)
            told = pipe.execute()
        return Burial(parcels=parcels, is_first=told[-1] == 1)

    def _parcel_of(self, job_id: str, queue_name: str) -> Parcel | None:
        """Read back which key a job of ours names; anything else is left to RQ."""
        data, description = cast("list[bytes | None]", self._redis.hmget(f"rq:job:{job_id}", ["data", "description"]))
        try:
            function, _, arguments, _ = json.loads(zlib.decompress(data or b""))
            kind = _KIND_OF[function]
            (key,) = arguments
        except (zlib.error, ValueError, KeyError, TypeError):
            return None
        queue = queue_name.partition(".")[0]
        return Parcel(key=str(key), type=kind, queue=queue, description=(description or b"").decode())

    def _forget_run(self, pipe: Any, job_id: str, queue: str) -> None:
        raw = cast("Iterable[bytes]", self._redis.zrange(f"rq:wip:{queue}", 0, -1))
        running = [item for item in raw if item.decode().partition(":")[0] == job_id]
        if running:
            pipe.zrem(f"rq:wip:{queue}", *running)
        for item in running:
            pipe.delete(f"rq:execution:{item.decode().partition(':')[2]}")
        pipe.delete(f"rq:executions:{job_id}")
        pipe.lrem(f"rq:queue:{queue}", 0, job_id)
        pipe.lrem(f"rq:queue:{queue}:intermediate", 0, job_id)

    def _push(self, batch: Batch) -> int:
        try:
            answer = self._deliver(keys=list(batch.keys), args=list(batch.arguments))
        except RedisError as error:
            raise StoreUnavailableError(f"redis: {error}") from error
        if isinstance(answer, bytes):
            self._refuse(answer)
        return int(answer)

    def _batch(self, queue: str, parcels: Sequence[Parcel], how: str) -> Batch:
        name = self.queue_name(queue)
        script_keys = ["rq:queues", self._queue_key(queue), f"rq:finished:{name}", f"rq:failed:{name}", self._claim_key]
        shared = self._shared(name)
        arguments: list[Any] = [how, self._name, len(parcels), len(shared), *shared]
        for parcel in parcels:
            script_keys.append(f"rq:job:{self.job_id(parcel)}")
            arguments += _own(parcel)
        return Batch(keys=script_keys, arguments=arguments)

    def _shared(self, queue_name: str) -> Sequence[Any]:
        """Return what the hashes of all jobs of a queue have in common: field, value and so on.

        What RQ would write as an empty text is left out: it reads a field that is missing as an empty one.
        """
        alike = self._alike.get(queue_name)
        if alike is None:
            fields = _job(queue_name, self._redis).to_dict(include_result=False)
            for own in ("created_at", "data", "description"):
                del fields[own]
            alike = [item for name, value in fields.items() if value != "" for item in (name, value)]
            self._alike[queue_name] = alike
        now = now_text()
        return [*alike, "created_at", now, "enqueued_at", now]

    def _queue_key(self, queue: str) -> str:
        return f"rq:queue:{self.queue_name(queue)}"


def _instant_ms(raw: object) -> int | None:
    if not isinstance(raw, bytes):
        return None
    try:
        return to_ms(datetime.fromisoformat(raw.decode()))
    except ValueError:
        return None


def rq_queue_name(queue: str, account: str) -> str:
    """Return RQ's name of one of `QUEUES` for an account label."""
    return queue if account == "main" else f"{queue}.{account}"


def _own(parcel: Parcel) -> Iterator[str | bytes]:
    """Yield what the hash of a job has for itself: data, description, asks."""
    yield packed(json.dumps([JOB_FUNCTIONS[parcel.type], None, [parcel.key], {}]).encode())
    yield parcel.description or f"{parcel.type} {parcel.key}"
    yield f"{parcel.asks} {parcel.key}" if parcel.asks else ""


def _job(queue_name: str, redis: Redis) -> Job:
    return Job.create(
        JOB_FUNCTIONS[FOLLOWUP],
        args=[""],
        connection=redis,
        serializer=JSONSerializer,
        timeout=-1,
        result_ttl=RESULT_TTL_S,
        failure_ttl=FAILURE_TTL_S,
        origin=queue_name,
        status=JobStatus.QUEUED,
    )
