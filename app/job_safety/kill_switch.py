"""The kill switch: the most restrictive of its sources wins; one that cannot be read stops what opens risk."""

from enum import StrEnum
from typing import Final

from redis import Redis
from redis.exceptions import RedisError

from app.job_safety.admission import EffectKind


class KillState(StrEnum):
    """What may still leave this machine. The values are stored: never rename."""

    RUN = "RUN"
    REDUCE_ONLY = "REDUCE_ONLY"
    CANCEL_ONLY = "CANCEL_ONLY"
    HALT = "HALT"


ALLOWED: Final = {
    KillState.RUN: frozenset(EffectKind),
    KillState.REDUCE_ONLY: frozenset({EffectKind.REDUCE, EffectKind.CANCEL, EffectKind.BOOK}),
    KillState.CANCEL_ONLY: frozenset({EffectKind.CANCEL, EffectKind.BOOK}),
    KillState.HALT: frozenset({EffectKind.BOOK}),
}

_ORDER: Final = (KillState.RUN, KillState.REDUCE_ONLY, KillState.CANCEL_ONLY, KillState.HALT)
_WORDS: Final = {
    "false": KillState.RUN,
    "0": KillState.RUN,
    "no": KillState.RUN,
    "run": KillState.RUN,
    "reduce_only": KillState.REDUCE_ONLY,
    "cancel_only": KillState.CANCEL_ONLY,
}


def strictest(*states: KillState) -> KillState:
    """Return the most restrictive of `states`."""
    return max(states, key=_ORDER.index)


def parse(value: bytes | str | None) -> KillState:
    """Return what a person's setting means, whatever the client's decoding; what is not understood means HALT."""
    if value is None:
        return KillState.RUN
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    return _WORDS.get(text.strip().lower(), KillState.HALT)


def read_key(redis: Redis, key: str) -> KillState:
    """Return what the Redis key says now.

    If it cannot be read, what opens risk must stop while cancels and reductions go on through the journal: REDUCE_ONLY.
    """
    try:
        value = redis.get(key)
    except RedisError:
        return KillState.REDUCE_ONLY
    return parse(value)
