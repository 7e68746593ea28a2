"""Where guards, gates and their neighbors live in Redis."""

from dataclasses import dataclass

from app.job_safety import keys


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardNames:
    """The Redis keys of one account in one mode.

    What the exchange counts per address (request weight, bans) is shared by all accounts of a mode; two machines with
    addresses of their own that share a Redis are thereby more careful than they need be, never less.
    """

    namespace: str
    kill_switch: str
    mode: str
    account: str
    breaker_namespace: str = "circuit_breaker"
    rate_namespace: str = "rate_limit"

    def guard(self, effect_type: str, key: str) -> str:
        """Return the key of an effect's guard."""
        return keys.guard_key(
            namespace=self.namespace, account=self.account, mode=self.mode, intent_type=effect_type, key=key
        )

    def pauses(self, venue: str) -> list[str]:
        """Return the keys that close a venue: for this address, and for the orders of this account."""
        base = f"{self.rate_namespace}:pause:{self.mode}"
        return [f"{base}:{venue}", f"{base}:{self.account}:{venue}"]

    def circuit(self, job_type: str) -> tuple[str, ...]:
        """Return the keys of a circuit: state, window, permits, and the stream of the changes of all circuits."""
        base = f"{self.breaker_namespace}:{job_type}:{self.mode}:{self.account}"
        return f"{base}:state", f"{base}:window", f"{base}:permits", self.circuit_changes

    @property
    def circuit_changes(self) -> str:
        """Return the stream of changes that wait for the journal."""
        return f"{self.breaker_namespace}:changes:{self.mode}:{self.account}"

    def rates(self, venue: str) -> tuple[str, ...]:
        """Return the keys of a venue's limits: as published, used per address, used per account."""
        used = f"{self.rate_namespace}:used:{self.mode}"
        return f"{self.rate_namespace}:limits:{self.mode}:{venue}", f"{used}:{venue}", f"{used}:{self.account}:{venue}"
