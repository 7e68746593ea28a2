"""The guard of an effect: a short lease while somebody works on it, then its result for 72 hours.

It keeps two workers off the same effect and answers fast. It is a hint, never the truth: losing it, or hearing the same
command's answer twice, costs a look into the journal and never a second dispatch.
"""

from dataclasses import dataclass
from typing import Final, NewType

from redis import Redis
from redis.exceptions import RedisError

from app.job_safety import keys, scripts
from app.job_safety.errors import StoreUnavailableError

Token = NewType("Token", str)
"""`{owner}#{number}`: names one try of one process start."""

MAX_HINT: Final = 60
"""Keeps a guard under 300 bytes of Redis memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardNames:
    """Where guards and their neighbors live in Redis."""

    namespace: str
    kill_switch: str
    mode: str
    account: str

    def guard(self, effect_type: str, key: str) -> str:
        """Return the key of an effect's guard."""
        return keys.guard_key(
            namespace=self.namespace, account=self.account, mode=self.mode, intent_type=effect_type, key=key
        )

    def pauses(self, venue: str) -> list[str]:
        """Return the keys that close a venue: for this address, and for this account."""
        return [f"rate_limit:pause:{self.mode}:{venue}", f"rate_limit:pause:{self.mode}:{self.account}:{venue}"]


class SideEffectGuard:
    """Ends, prolongs and hands on leases. Taking one is `Admission.ask`, together with the gates."""

    def __init__(self, redis: Redis, names: GuardNames, *, lease_ttl_ms: int, result_ttl_s: int) -> None:
        self._names = names
        self._lease_ttl_ms = lease_ttl_ms
        self._result_ttl_s = result_ttl_s
        self._redis = redis
        self._settle = redis.register_script(scripts.source("settle_guard"))

    def renew(self, effect_type: str, key: str, token: Token) -> bool:
        """Prolong the lease; return False if it is not ours any more."""
        return self._run(effect_type, key, [token, "renew", self._lease_ttl_ms])

    def release(self, effect_type: str, key: str, token: Token) -> bool:
        """Give the lease back without a result; return False if it was not ours any more."""
        return self._run(effect_type, key, [token, "release"])

    def complete(self, effect_type: str, key: str, token: Token, hint: str) -> bool:
        """Keep `hint` as the result. Only for an effect that the journal says is finished."""
        return self._run(effect_type, key, [token, "done", self._result_ttl_s, hint[:MAX_HINT]])

    def bury(self, effect_type: str, key: str, owner: str) -> bool:
        """Drop the lease of an owner that is known to be dead."""
        return self._run(effect_type, key, [f"{owner}#", "bury"])

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

    def _run(self, effect_type: str, key: str, arguments: list[str | int]) -> bool:
        try:
            return int(self._settle(keys=[self._names.guard(effect_type, key)], args=arguments)) == 1
        except RedisError as error:
            raise StoreUnavailableError(f"redis: {error}") from error
