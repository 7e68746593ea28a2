"""The one round trip before an attempt: kill switch, pauses and guard are read, and the guard taken, in one script."""

import itertools
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from redis import Redis
from redis.exceptions import RedisError

from app.job_safety import scripts
from app.job_safety.errors import InvariantViolatedError, StoreUnavailableError
from app.job_safety.side_effect_guard import GuardNames, Token


class EffectKind(StrEnum):
    """What an effect may do to our risk, which decides the gates that can stop it."""

    OPEN = "open"
    REDUCE = "reduce"
    CANCEL = "cancel"
    BOOK = "book"
    """Work in our own database, and questions to the exchange: no gate stops it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """Go on. `token` proves the lease."""

    token: Token


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """The guard says that it is done. Believe it only once the journal confirms it."""

    hint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Somebody works on it: `by` is their token, and the lease lives `for_ms` more unless renewed."""

    by: str
    for_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocked:
    """A gate is closed: `why`, and for how long if it says so. Costs no attempt."""

    why: str
    for_ms: int | None


AdmissionAnswer: TypeAlias = Admitted | Done | Held | Blocked


class Admission:
    """Asks for one process. `owner` is unique per process start."""

    def __init__(self, redis: Redis, names: GuardNames, *, owner: str, lease_ttl_ms: int) -> None:
        self.owner = owner
        self._names = names
        self._lease_ttl_ms = lease_ttl_ms
        self._admit = redis.register_script(scripts.source("admit"))
        self._numbers = itertools.count(1)

    def ask(
        self, effect_type: str, key: str, *, kind: EffectKind, venue: str | None = None, distrust_done: bool = False
    ) -> AdmissionAnswer:
        """Ask to work on an effect.

        Args:
            effect_type: The type of intent, or `followup`.
            key: Its key.
            kind: Which gates can stop it.
            venue: Whose pauses count; None for work that sends nothing.
            distrust_done: Take the guard over even if it says done, because the journal says otherwise.

        Raises:
            StoreUnavailableError: Redis did not answer; whether the lease is ours is unknown, so nothing is sent.
        """
        token = Token(f"{self.owner}#{next(self._numbers)}")
        script_keys = [self._names.guard(effect_type, key), self._names.kill_switch]
        script_keys += self._names.pauses(venue) if venue else []
        arguments: list[str | int] = [token, self._lease_ttl_ms, kind.value, "1" if distrust_done else "0"]
        try:
            answer = self._admit(keys=script_keys, args=arguments)
        except RedisError as error:
            raise StoreUnavailableError(f"redis: {error}") from error
        match answer:
            case [b"admitted"]:
                return Admitted(token=token)
            case [b"done", bytes(hint)]:
                return Done(hint=hint.decode())
            case [b"held", bytes(by), int(left)]:
                return Held(by=by.decode(), for_ms=max(left, 0))
            case [b"blocked", bytes(why), int(left)]:
                return Blocked(why=why.decode(), for_ms=left if left >= 0 else None)
            case _:
                raise InvariantViolatedError(f"admit.lua answered {answer!r}")
