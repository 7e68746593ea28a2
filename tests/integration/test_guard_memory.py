"""What a guard takes of Redis, by Redis' own `used_memory`: `MEMORY USAGE` tells a quarter less."""

from collections.abc import Iterator

import pytest
from redis import Redis

from app.job_safety.admission import Admission, Admitted
from app.job_safety.effect import EffectKind
from app.job_safety.names import GuardNames
from app.job_safety.side_effect_guard import MAX_HINT, SideEffectGuard
from workers.identity import new_owner

GUARDS = 5_000
LIMIT_BYTES = 300
NAMES = GuardNames(namespace="idempotency:effect", kill_switch="kill", mode="testnet", account="main")


def keys(length: int) -> list[str]:
    """Return keys of a length, such as strategies make."""
    return [f"sma-20261120T1200Z-BTCUSDT-open-{number:05d}".ljust(length, "x") for number in range(GUARDS)]


@pytest.fixture
def client(redis_url: str) -> Iterator[Redis]:
    opened = Redis.from_url(redis_url)
    yield opened
    opened.close()


def per_guard(client: Redis, length: int, *, is_settled: bool) -> float:
    """Write guards as a worker does, leased or settled; return bytes for each."""
    owner = new_owner("worker-orders")
    admission = Admission(client, NAMES, owner=owner, lease_ttl_ms=600_000)
    guard = SideEffectGuard(client, NAMES, lease_ttl_ms=600_000, result_ttl_s=259_200)
    first, *rest = ["warm-up", *keys(length)]
    before = 0
    for key in (first, *rest):
        answer = admission.ask("order", key, kind=EffectKind.OPEN)
        assert isinstance(answer, Admitted)
        if is_settled:
            assert guard.complete("order", key, answer.token, "x" * MAX_HINT)
        if key == first:
            before = client.info("memory")["used_memory"]
    return (client.info("memory")["used_memory"] - before) / GUARDS


@pytest.mark.parametrize("is_settled", [False, True], ids=["leased", "settled"])
@pytest.mark.parametrize("length", [37, 100])
def test_guard_takes_less_than_three_hundred_bytes(client: Redis, length: int, *, is_settled: bool) -> None:
    """With the longest hint that is kept, and keys as long as anybody makes who does not try."""
    assert 100 < per_guard(client, length, is_settled=is_settled) <= LIMIT_BYTES
