"""Circuits and limits on a real Redis, by a clock that the test moves: the scripts read it where they read TIME."""

import pytest
from redis import Redis

from app.job_safety import scripts
from app.job_safety.admission import Admission, AdmissionAnswer, Admitted, EffectKind
from app.job_safety.circuit_breaker import BreakerPolicy, Breakers, BreakerStatus
from app.job_safety.outcome import Venue
from app.job_safety.rate_limit import RateGate, RatePolicy
from app.job_safety.side_effect_guard import Gates, GuardNames, SideEffectGuard, Told

CLOCK = "test:clock"
NAMES = GuardNames(namespace="guard", kill_switch="kill", mode="paper", account="main")
JOB = "order_usdm"


def stopped_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every script that is loaded from here on read the test's clock."""
    original = scripts.source
    read = f"redis.call('LRANGE', '{CLOCK}', 0, 1)"

    def source(name: str, *, package: str = "app.job_safety") -> str:
        text = original(name, package=package)
        assert "TIME" not in text or "redis.call('TIME')" in text
        return text.replace("redis.call('TIME')", read)

    monkeypatch.setattr(scripts, "source", source)


class Bench:
    """One worker's gates, and calls that it makes."""

    def __init__(
        self,
        redis: Redis,
        policy: BreakerPolicy | None = None,
        rate: RatePolicy | None = None,
        *,
        owner: str = "w",
    ) -> None:
        self.redis = redis
        self.breakers = Breakers(redis, NAMES, policy or BreakerPolicy())
        self.rate = RateGate(redis, NAMES, rate or RatePolicy())
        gates = Gates(breakers=self.breakers, rate=self.rate)
        self.admission = Admission(redis, NAMES, owner=owner, lease_ttl_ms=4_000, gates=gates)
        self.guard = SideEffectGuard(redis, NAMES, lease_ttl_ms=4_000, result_ttl_s=60, gates=gates)
        self.now_ms = 1_800_000_000_000
        self._calls = 0

    def set_time(self, now_ms: int) -> None:
        self.now_ms = now_ms
        with self.redis.pipeline() as pipe:
            pipe.delete(CLOCK)
            pipe.rpush(CLOCK, now_ms // 1000, now_ms % 1000 * 1000)
            pipe.execute()

    def wait(self, ms: int) -> None:
        self.set_time(self.now_ms + ms)

    def ask(self, kind: EffectKind = EffectKind.OPEN, venue: Venue = Venue.USDM) -> tuple[str, AdmissionAnswer]:
        """Ask for a new key; return it with the answer."""
        self._calls += 1
        key = f"{self.admission.owner}-{self._calls}"
        return key, self.admission.ask("order", key, kind=kind, venue=venue.value)

    def tell(self, key: str, admitted: Admitted, weight: int | None, *, seen: str = "") -> None:
        """Report what became of an admitted call."""
        told = Told(venue=Venue.USDM, ticket=admitted.ticket, member=f"{key}#1", weight=weight, seen=seen)
        self.guard.release("order", key, admitted.token, told)

    def call(self, weight: int | None, kind: EffectKind = EffectKind.OPEN) -> AdmissionAnswer:
        """Ask, and report at once if admitted."""
        key, answer = self.ask(kind)
        if isinstance(answer, Admitted):
            self.tell(key, answer, weight)
        return answer

    @property
    def status(self) -> BreakerStatus:
        return self.breakers.read(JOB)
