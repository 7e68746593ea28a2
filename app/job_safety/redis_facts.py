"""What a Redis tells about itself, read in three round trips. Judging it is `redis_safety`'s part.

Managed servers forbid CONFIG, and a careful operator forbids ACL and MEMORY too: what may not be asked is None, and
never an error. Only a server that does not answer at all raises.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, cast

from redis import Redis
from redis.exceptions import ResponseError

from app.clock import Clock
from app.job_safety import scripts

SETTINGS: Final = ("appendfsync", "save", "min-replicas-to-write", "stop-writes-on-bgsave-error")
PROBE_TTL_MS: Final = 5_000

NEEDED: Final[Mapping[str, Sequence[str]]] = {
    **dict.fromkeys(("multi", "exec", "info", "time"), ()),
    **dict.fromkeys(("get", "del", "exists", "pttl"), ("{ours}",)),
    **dict.fromkeys(("hgetall", "persist"), ("rq:job:probe",)),
    **dict.fromkeys(("hget", "hdel", "hmget"), ("rq:job:probe", "f")),
    **dict.fromkeys(("hset", "hincrby", "hincrbyfloat"), ("rq:worker:probe", "f", "1")),
    **dict.fromkeys(("lpush", "rpush", "sadd", "srem", "zrem"), ("rq:queue:probe", "x")),
    **dict.fromkeys(("zrangebyscore", "zremrangebyscore", "zadd", "lrange"), ("rq:wip:probe", "0", "1")),
    "set": ("{ours}", "1", "PX", "1"),
    "evalsha": ("0" * 40, "0"),
    "script|load": ("return 1",),
    "expire": ("rq:worker:probe", "1"),
    "llen": ("rq:queue:probe",),
    "lrem": ("rq:queue:probe", "0", "x"),
    "lmove": ("rq:queue:probe", "rq:queue:probe:intermediate", "RIGHT", "LEFT"),
    "blmove": ("rq:queue:probe", "rq:queue:probe:intermediate", "RIGHT", "LEFT", "1"),
    "smembers": ("rq:queues",),
    "xadd": ("rq:results:probe", "*", "f", "1"),
    "subscribe": ("rq:pubsub:probe",),
    "watch": ("rq:job:probe",),
}
"""What workers and RQ cannot do without, each with arguments like those it is used with. `{ours}`: a guard's key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What became of one script that wrote a key and told the time. `refusal` is empty if it ran."""

    server_ms: int
    ours_ms: int
    """Our clock halfway between sending and hearing."""
    took_ms: int
    refusal: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    """Who we are to the server, and which needed commands are denied; `missing` None: it may not be asked."""

    user: str | None
    missing: Sequence[str] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Keys drawn at random: `guards` of `drawn` were guards of ours, of `guard_bytes` together."""

    keys: int
    drawn: int
    guards: int
    guard_bytes: int | None
    foreign: Sequence[str]
    """Keys that are nobody's of ours."""

    @property
    def all_guard_bytes(self) -> int | None:
        """Return what all guards take, estimated from those that were drawn."""
        if self.guard_bytes is None or not self.drawn:
            return None
        return self.guard_bytes * self.keys // self.drawn


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """Which keys are ours. `own` are prefixes; RQ's start with `rq:`."""

    guards: str
    own: Sequence[str]
    probe: str
    queues: frozenset[str]

    def is_our_queue(self, name: str) -> bool:
        """Return whether an RQ queue is ours, or that of another account of ours, which has its label behind."""
        return name.partition(".")[0] in self.queues


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisFacts:
    """All that is judged."""

    info: Mapping[str, object]
    settings: Mapping[str, str] | None
    probe: Probe
    rights: Rights
    sample: Sample | None
    foreign_queues: Sequence[str]

    def number(self, name: str) -> int:
        """Return a number of INFO; 0 if the server does not tell it."""
        value = self.info.get(name, 0)
        return int(value) if isinstance(value, int | float | str) and str(value).lstrip("-").isdigit() else 0

    def text(self, name: str) -> str:
        """Return a text of INFO; empty if the server does not tell it."""
        return str(self.info.get(name, ""))


def read_facts(redis: Redis, names: Names, clock: Clock, *, draw: int) -> RedisFacts:
    """Read everything; `draw` keys are sampled, 0 for none.

    Raises:
        RedisError: the server does not answer, or does not even allow INFO.
    """
    info = cast("Mapping[str, object]", redis.info())
    answers = _ask(
        redis, [*(("CONFIG", "GET", name) for name in SETTINGS), ("ACL", "WHOAMI"), ("SMEMBERS", "rq:queues")]
    )
    settings, user, queues = answers[: len(SETTINGS)], answers[-2], answers[-1]
    known = [_pair(answer) for answer in settings]
    return RedisFacts(
        info=info,
        settings=None if None in known else dict(zip(SETTINGS, cast("list[str]", known), strict=True)),
        probe=_probe(redis, names.probe, clock),
        rights=Rights(user=_text(user), missing=_missing(redis, _text(user), names)),
        sample=_sample(redis, names, draw) if draw else None,
        foreign_queues=sorted(name for name in _queue_names(queues) if not names.is_our_queue(name)),
    )


def _ask(redis: Redis, commands: Sequence[Sequence[str | int]]) -> list[object]:
    """Send `commands` in one round trip; None stands for what was refused."""
    with redis.pipeline(transaction=False) as pipe:
        for command in commands:
            pipe.execute_command(*command)  # type: ignore[no-untyped-call]  # redis-py has no types here
        answers = cast("list[object]", pipe.execute(raise_on_error=False))
    for answer in answers:
        if isinstance(answer, Exception) and not isinstance(answer, ResponseError):
            raise answer
    return [None if isinstance(answer, ResponseError) else answer for answer in answers]


def _probe(redis: Redis, key: str, clock: Clock) -> Probe:
    """Run a script that writes: it proves Lua, memory, disk, role and replicas in one go, where INFO only claims."""
    script = redis.register_script(scripts.source("probe"))
    sent_ms, sent = clock.now_ms(), clock.monotonic()
    try:
        answer = cast("Sequence[bytes | str | int]", script(keys=[key], args=[PROBE_TTL_MS]))
    except ResponseError as error:
        return Probe(server_ms=0, ours_ms=0, took_ms=0, refusal=str(error))
    took_ms = round((clock.monotonic() - sent) * 1000)
    return Probe(
        server_ms=int(answer[0]) * 1000 + int(answer[1]) // 1000, ours_ms=sent_ms + took_ms // 2, took_ms=took_ms
    )


def _missing(redis: Redis, user: str | None, names: Names) -> Sequence[str] | None:
    if user is None:
        return None
    asked = [
        ("ACL", "DRYRUN", user, *command.split("|"), *(names.probe if one == "{ours}" else one for one in arguments))
        for command, arguments in NEEDED.items()
    ]
    answers = _ask(redis, asked)
    if None in answers:
        return None
    return [name for name, answer in zip(NEEDED, answers, strict=True) if _text(answer) != "OK"]


def _sample(redis: Redis, names: Names, draw: int) -> Sample | None:
    answers = _ask(redis, [("DBSIZE",), *(("RANDOMKEY",) for _ in range(draw))])
    count, drawn = answers[0], [_text(answer) for answer in answers[1:]]
    if not isinstance(count, int):
        return None
    keys = [key for key in drawn if key is not None]
    guards = [key for key in keys if key.startswith(names.guards)]
    sizes = _ask(redis, [("MEMORY", "USAGE", key) for key in guards]) if guards else []
    known = [size for size in sizes if isinstance(size, int)]  # None: forbidden, or gone since it was drawn
    ours = ("rq:", *names.own)
    return Sample(
        keys=count,
        drawn=len(keys),
        guards=len(guards),
        guard_bytes=sum(known) if known or not guards else None,
        foreign=sorted({key for key in keys if not key.startswith(ours)}),
    )


def _text(answer: object) -> str | None:
    if isinstance(answer, bytes):
        return answer.decode("utf-8", "replace")
    return answer if isinstance(answer, str) else None


def _queue_names(answer: object) -> list[str]:
    items = answer if isinstance(answer, set | list | tuple) else []
    return [text.removeprefix("rq:queue:") for item in items if (text := _text(item))]


def _pair(answer: object) -> str | None:
    """Return the value of a CONFIG GET, whatever the protocol's version made of it."""
    if isinstance(answer, Mapping):
        return next((_text(value) for value in answer.values()), None)
    items = answer if isinstance(answer, list) else []
    return _text(items[1]) if len(items) == 2 else None
