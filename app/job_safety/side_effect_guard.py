"""The guard of an effect: a short lease while somebody works on it, then its result for 72 hours.

It keeps two workers off the same effect and answers fast. It is a hint, never the truth: losing it, or hearing the same
command's answer twice, costs a look into the journal and never a second dispatch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, NewType

from redis import Redis
from redis.exceptions import RedisError

from app.job_safety import scripts
from app.job_safety.circuit_breaker import JOB_TYPES, Breakers, Ticket
from app.job_safety.effect import EffectKind
from app.job_safety.errors import StoreUnavailableError
from app.job_safety.names import GuardNames
from app.job_safety.outcome import Venue
from app.job_safety.rate_limit import RateGate

Token = NewType("Token", str)
"""`{owner}#{number}`: names one try of one process start."""

MAX_HINT: Final = 60
"""Keeps a guard under 300 bytes of Redis memory."""

_NOTHING_TOLD: Final = ("", -1, "none ", "", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Gates:
    """What an admission asks and a completion tells beside the guard, in the same round trip."""

    breakers: Breakers
    rate: RateGate


class Told(NamedTuple):
    """What one call has shown of the exchange.

    Attributes:
        venue: Which exchange.
        ticket: What admission gave for the circuit; None if there is none to tell.
        member: Names the call for ever (key and attempt): it counts once, however often it is told.
        weight: 0 for a success, the weight of a failure, None if nothing was learned (the permit goes back).
        seen: What the headers of the answer said (`RateGate.take_seen`).
    """

    venue: Venue
    ticket: Ticket | None = None
    member: str = ""
    weight: int | None = None
    seen: str = ""


class GuardEnd(NamedTuple):
    """What becomes of a lease, and what is told with it, as `lib_guard.lua` takes it. The guard is the first key."""

    keys: Sequence[str]
    arguments: Sequence[str | int]


class SideEffectGuard:
    """Ends, prolongs and hands on leases. Taking one is `Admission.ask`, together with the gates."""

    def __init__(
        self, redis: Redis, names: GuardNames, *, lease_ttl_ms: int, result_ttl_s: int, gates: Gates | None = None
    ) -> None:
        self._names = names
        self._gates = gates
        self._lease_ttl_ms = lease_ttl_ms
        self._result_ttl_s = result_ttl_s
        self._redis = redis
        self._settle = redis.register_script(scripts.source("settle_guard"))

    def renew(self, effect_type: str, key: str, token: Token, told: Told | None = None) -> bool:
        """Prolong the lease, and the permit of a probe with it; return False if the lease is not ours any more."""
        return self.end(self._settling(effect_type, key, [token, "renew", self._lease_ttl_ms, ""], told))

    def release(self, effect_type: str, key: str, token: Token, told: Told | None = None) -> bool:
        """Give the lease back without a result; return False if it was not ours any more.

        What is `told` of the call counts either way: the call was made.
        """
        return self.end(self.ending(effect_type, key, token, None, told))

    def complete(self, effect_type: str, key: str, token: Token, hint: str, told: Told | None = None) -> bool:
        """Keep `hint` as the result. Only for an effect that the journal says is finished; `told` as in `release`."""
        return self.end(self.ending(effect_type, key, token, hint, told))

    def bury(self, effect_type: str, key: str, owner: str) -> bool:
        """Drop the lease of an owner that is known to be dead."""
        return self.end(self._settling(effect_type, key, [f"{owner}#", "bury", "", ""], None))

    def ending(self, effect_type: str, key: str, token: Token, hint: str | None, told: Told | None = None) -> GuardEnd:
        """Return what gives the lease back, or keeps `hint` as the result, for a script that does more than that."""
        if hint is None:
            return self._settling(effect_type, key, [token, "release", "", ""], told)
        return self._settling(effect_type, key, [token, "done", self._result_ttl_s, hint[:MAX_HINT]], told)

    def end(self, ending: GuardEnd) -> bool:
        """Do what `ending` says now; return False if the lease was not ours any more.

        Raises:
            StoreUnavailableError: Redis did not answer; whether it happened is unknown.
        """
        try:
            return int(self._settle(keys=list(ending.keys), args=list(ending.arguments))) == 1
        except RedisError as error:
            raise StoreUnavailableError(f"redis: {error}") from error

    def is_leased(self, effect_type: str, key: str) -> bool:
        """Return whether somebody works on it now; a lease outlives a dead owner by its own length at most.

        Raises:
            StoreUnavailableError: Redis did not answer.
        """
        try:
            value = self._redis.get(self._names.guard(effect_type, key))
        except RedisError as error:
            raise StoreUnavailableError(f"redis: {error}") from error
        return isinstance(value, bytes) and value.startswith(b"L:")

    def _settling(self, effect_type: str, key: str, what: Sequence[str | int], told: Told | None) -> GuardEnd:
        guard = self._names.guard(effect_type, key)
        if told is None or self._gates is None:
            return GuardEnd(keys=[guard], arguments=[*what, *_NOTHING_TOLD])
        breakers, rate, ticket = self._gates.breakers, self._gates.rate, told.ticket
        # Without a ticket the circuit's words are empty, and Lua never looks at its keys.
        job_type = ticket.job_type if ticket else JOB_TYPES[0]
        arguments = [
            *what,
            breakers.words(job_type) if ticket else "",
            ticket.generation if ticket else -1,
            f"{'none' if told.weight is None else told.weight} {told.member}",
            rate.words(told.venue, EffectKind.BOOK) if told.seen else "",
            told.seen,
        ]
        return GuardEnd(keys=[guard, *breakers.keys(job_type), *rate.keys(told.venue.value)], arguments=arguments)


__all__ = ["MAX_HINT", "Gates", "GuardEnd", "GuardNames", "SideEffectGuard", "Token", "Told"]
