"""The kill switch: the most restrictive of its sources wins; one that cannot be read stops what opens risk."""

import os
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
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

    @property
    def rank(self) -> int:
        """A number that grows with how much is stopped."""
        return _ORDER.index(self)


class KillSource(StrEnum):
    """Who can hold the switch. Each has a latch of its own in the journal. The values are stored: never rename."""

    OPERATOR = "operator"
    """The command line."""

    REDIS_KEY = "redis_key"
    """Somebody's `SET quantum:global:kill_switch …`."""

    FILE = "file"
    """A file called KILL_SWITCH in the home folder of some machine."""

    ENVIRONMENT = "environment"
    """`FILLONCE_KILL_SWITCH` of some process, or the setting of that name."""

    SYSTEM = "system"
    """The software itself: a journal that was lost."""

    DRILL = "drill"
    """A drill; it ends by itself."""


FILE_NAME: Final = "KILL_SWITCH"
_FILE_BYTES: Final = 64

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


def ruling(readings: Mapping[str, KillState]) -> tuple[KillState, str]:
    """Return the most restrictive of what `readings` say, and who says it: the first of them if several do."""
    state, source = KillState.RUN, ""
    for name, read in readings.items():
        if read is not state and read.rank > state.rank:
            state, source = read, str(name)
    return state, source


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


def read_file(path: str | Path) -> KillState:
    """Return what the file says now: that it is there means HALT, unless it holds one of the two laxer words.

    It stops for as long as it lies there, even if it says `false`. Where there is none, this is one system call.
    """
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return KillState.RUN
    except OSError:
        return KillState.REDUCE_ONLY  # nobody can tell: what opens risk must stop
    try:
        with Path(path).open("rb") as file:
            found = parse(file.read(_FILE_BYTES))
    except OSError:
        return KillState.HALT
    return KillState.HALT if found is KillState.RUN else found
