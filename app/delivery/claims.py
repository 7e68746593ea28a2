"""How a worker takes jobs off its queue and ends them: one script each, and RQ's own tools still see the truth.

RQ's worker spends 52 commands in 18 round trips on a job. Here the end of one job and the beginning of the next are one
round trip; what the job leaves for Redis (guards, follow-ups) goes with it.
"""

import base64
import json
import time
import uuid
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

from redis import Redis
from redis.exceptions import NoScriptError

from app.delivery.port import FAILURE_TTL_S, JOB_FUNCTIONS, RESULT_TTL_S, Delivery, Parcel
from app.delivery.rq_format import now_text
from app.job_safety import scripts
from app.job_safety.admission import Asking
from app.job_safety.side_effect_guard import GuardEnd

ALIVE_S: Final = 420
"""How long RQ's tools take a running job for alive. Far longer than any attempt; only people look at it."""

_FUNCTIONS: Final = frozenset(JOB_FUNCTIONS.values())
_RESULT_OK: Final = "1"
"""RQ's `Result.Type.SUCCESSFUL`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A job that this worker has begun. `function` is None for whatever is not plainly a job of ours.

    `asked`: what asked for its admission with its beginning, what this was asked for, and the answer (`lib_ask.lua`).
    """

    job_id: str
    execution_id: str
    function: str | None
    key: str
    begun_s: float
    asked: tuple[Asking, bytes, object] | None = None


@dataclass(slots=True, kw_only=True)
class Leavings:
    """What a job leaves for Redis once the journal holds its effect."""

    guards: list[GuardEnd] = field(default_factory=list)
    parcels: list[Parcel] = field(default_factory=list)


class Claims:
    """The jobs of one worker on one queue. Its client must not repeat commands (see `connect_redis`)."""

    def __init__(
        self, redis: Redis, delivery: Delivery, *, queue: str, worker: str, worker_ttl_s: int, guards: str
    ) -> None:
        """Make them. `guards`: what stands before a key in the name of the guard of an order."""
        self._redis = redis
        self._guards = guards
        self._delivery = delivery
        self._list = f"rq:queue:{queue}"
        self._between = f"{self._list}:intermediate"
        self._own = [f"rq:worker:{worker}", f"rq:wip:{queue}"]
        self._finished = f"rq:finished:{queue}"
        self._worker = worker
        self._worker_ttl_s = worker_ttl_s
        self._claim = redis.register_script(scripts.source("begin", package="app.delivery"))
        self._finish = redis.register_script(scripts.source("finish", package="app.delivery"))
        self._give_back = redis.register_script(scripts.source("give_back", package="app.delivery"))

    def take(self, asking: Asking | None = None) -> Claim | None:
        """Begin the next job, if one waits. `asking`: what asks for its admission with that.

        Raises:
            RedisError: whether one was begun is unknown; a worker that ends gives it back.
        """
        return self._begin(self._list, asking)

    def take_moved(self, asking: Asking | None = None) -> Claim | None:
        """Begin what was moved off the queue and not begun: an earlier wait went unanswered. Otherwise as `take`."""
        return self._begin(self._between, asking)

    def wait(self, wait_s: float, asking: Asking | None = None) -> Claim | None:
        """Begin the next job, waiting for one for up to `wait_s` seconds: in one round trip, from when it arrives.

        `asking`: what asks for its admission with that.

        Raises:
            RedisError: whether one was begun is unknown; `give_back` and `take_moved` find it.
        """
        execution, common = self._common()
        keys, arguments = [*self._own, self._between, *_keys(asking)], [*common, *_arguments(asking)]
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.blmove(self._list, self._between, cast("int", wait_s), "LEFT", "RIGHT")
            pipe.evalsha(self._claim.sha, len(keys), *keys, *arguments)
            moved, begun = pipe.execute(raise_on_error=False)
        if isinstance(begun, NoScriptError):
            # The server has restarted. What was moved lies between the lists until the script, loaded again, takes it.
            begun = self._claim(keys=keys, args=arguments)
        for answer in (moved, begun):
            if isinstance(answer, Exception):
                raise answer
        return _claim(begun, execution, asking)

    def finish(
        self, claim: Claim, result: str, leavings: Leavings, *, begin_next: bool, asking: Asking | None = None
    ) -> tuple[bool, Claim | None]:
        """End `claim`; return whether other jobs depend on it, and the next job if it was begun.

        `asking`: what asks for the admission of the next with its beginning.

        Raises:
            RedisError: whether this happened is unknown. The effect is in the journal; a second delivery finds it.
        """
        execution, common = self._common()
        took_s = f"{max(time.time() - claim.begun_s, 0):.6f}"
        told = self._result(claim, result, common)
        keys = [*self._own, self._list, self._finished, f"rq:job:{claim.job_id}", f"rq:results:{claim.job_id}"]
        keys.append(f"rq:job:{claim.job_id}:dependents")
        arguments: list[Any] = [*common, int(begin_next), claim.job_id, claim.execution_id, took_s, RESULT_TTL_S]
        arguments += [len(told), *told, len(leavings.guards)]
        for guard in leavings.guards:
            keys += guard.keys
            arguments += [len(guard.keys), len(guard.arguments), *guard.arguments]
        batches = list(self._delivery.batches(leavings.parcels))
        arguments.append(len(batches))
        for batch in batches:
            keys += batch.keys
            arguments += batch.arguments
        keys += _keys(asking)
        arguments += _arguments(asking)
        dependents, following = self._finish(keys=keys, args=arguments)
        return bool(dependents), _claim(following, execution, asking)

    def give_back(self) -> bool:
        """Put what this worker has begun and not ended back to the head of the queue; return whether there was any.

        Its effect may have happened: that is what the guard and the journal are asked before it happens again.

        Raises:
            RedisError: whether this happened is unknown; a rescue finds it.
        """
        return bool(self._give_back(keys=[*self._own, self._list], args=[self._guards, f"L:{self._worker}#"]))

    def drop(self, claim: Claim) -> None:
        """Strike a job from RQ's books that nobody can read; what is left of it stays for a day, for people."""
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.zrem(self._own[1], f"{claim.job_id}:{claim.execution_id}")
            pipe.delete(f"rq:execution:{claim.job_id}:{claim.execution_id}", f"rq:executions:{claim.job_id}")
            pipe.hdel(self._own[0], "current_job", "execution")
            pipe.expire(f"rq:job:{claim.job_id}", FAILURE_TTL_S)
            pipe.execute()

    def _begin(self, source: str, asking: Asking | None) -> Claim | None:
        execution, common = self._common()
        keys, arguments = [*self._own, source, *_keys(asking)], [*common, *_arguments(asking)]
        return _claim(self._claim(keys=keys, args=arguments), execution, asking)

    def _common(self) -> tuple[str, list[Any]]:
        execution = uuid.uuid4().hex
        return execution, [
            now_text(), f"{time.time():.6f}", self._worker, execution, ALIVE_S, self._worker_ttl_s,
        ]  # fmt: skip

    def _result(self, claim: Claim, result: str, common: Sequence[Any]) -> list[Any]:
        """Return the fields of RQ's own result record."""
        told: Mapping[str, Any] = {
            "type": _RESULT_OK,
            "worker_name": self._worker,
            "return_value": base64.b64encode(json.dumps(result).encode()).decode(),
            "execution_id": claim.execution_id,
            "execution_started_at": claim.begun_s,
            "execution_ended_at": common[1],
        }
        return [item for pair in told.items() for item in pair]


def _claim(raw: Any, execution: str, asking: Asking | None) -> Claim | None:
    if not raw:
        return None
    job_id, data, *asked = raw
    function, key = _read(data)
    return Claim(
        job_id=job_id.decode(), execution_id=execution, function=function, key=key, begun_s=time.time(),
        asked=(asking, asked[0], asked[1]) if asked and asking is not None else None,
    )  # fmt: skip


def _keys(asking: Asking | None) -> Sequence[str]:
    return asking.keys if asking is not None else ()


def _arguments(asking: Asking | None) -> Sequence[str | int]:
    return asking.arguments if asking is not None else ("", 0, "", 0)


def _read(data: bytes) -> tuple[str | None, str]:
    """Return which function of ours a job names, and its key; (None, "") for anything that is not plainly that."""
    try:
        function, instance, arguments, keywords = json.loads(zlib.decompress(data))
        (key,) = arguments
    except (zlib.error, ValueError, TypeError):
        return None, ""
    if function not in _FUNCTIONS or instance is not None or keywords or not isinstance(key, str):
        return None, ""
    return function, key
