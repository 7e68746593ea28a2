"""The script that ends a job and begins the next reads each thing once, and judges by what it has just changed."""

from collections.abc import Iterator

import pytest
from redis import Redis

from app.delivery import Claim, Claims, Delivery, Leavings, Parcel
from app.job_safety.admission import AdmissionAnswer, Admitted, Asking, Blocked, EffectKind, asks_for
from app.job_safety.circuit_breaker import BreakerPolicy, BreakerState
from app.job_safety.outcome import Venue
from app.job_safety.rate_limit import Limit
from app.job_safety.side_effect_guard import Told
from tests.support.gates import JOB, NAMES, Bench

WORKER = "w-1"


class Line:
    """One worker's orders, one behind the other: `end` tells what the first has shown, and how the next is admitted."""

    def __init__(self, redis: Redis, gates: Bench, *, orders: int) -> None:
        delivery = Delivery(redis, account="main", mode="paper", installation="a" * 32, claim_ttl_ms=60_000)
        asks = asks_for(EffectKind.OPEN, Venue.USDM.value)
        delivery.deliver([Parcel(key=f"k-{n}", type="order", queue="orders", asks=asks) for n in range(orders)])
        self.gates = gates
        self._claims = Claims(
            redis, delivery, queue="orders", worker=WORKER, worker_ttl_s=120, guards=NAMES.guard("order", "")
        )
        self._claim, self.answer = self._read(self._claims.take(self._asking()))

    def end(self, weight: int | None, *, seen: str = "") -> AdmissionAnswer:
        assert isinstance(self.answer, Admitted)
        told = Told(
            venue=Venue.USDM, ticket=self.answer.ticket, member=f"{self._claim.key}#1", weight=weight, seen=seen
        )
        ending = self.gates.guard.ending("order", self._claim.key, self.answer.token, "FILLED", told)
        _, following = self._claims.finish(
            self._claim, "FILLED", Leavings(guards=[ending]), begin_next=True, asking=self._asking()
        )
        self._claim, self.answer = self._read(following)
        return self.answer

    def stop(self) -> None:
        """End the last one, and begin none."""
        self._claims.finish(self._claim, "FILLED", Leavings(), begin_next=False)

    def _asking(self) -> Asking:
        return self.gates.admission.ahead("order", [(EffectKind.OPEN, Venue.USDM.value)], at_s=0.0, kill_epoch=0)

    def _read(self, claim: Claim | None) -> tuple[Claim, AdmissionAnswer]:
        assert claim is not None
        assert claim.asked is not None
        return claim, self.gates.admission.told(*claim.asked).answer


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    client = Redis.from_url(redis_url)
    yield client
    client.close()


def test_failure_that_opens_the_circuit_blocks_the_order_that_is_begun_with_its_end(redis: Redis) -> None:
    line = Line(redis, Bench(redis, BreakerPolicy(consecutive=3, min_calls=100)), orders=4)
    assert isinstance(line.end(1), Admitted)
    assert isinstance(line.end(1), Admitted)
    answer = line.end(1)
    assert isinstance(answer, Blocked)
    assert answer.gate == "breaker"


def test_probe_that_closes_the_circuit_lets_the_order_pass_that_is_begun_with_its_end(redis: Redis) -> None:
    gates = Bench(redis, BreakerPolicy(probes=2))
    gates.breakers.override(JOB, BreakerState.HALF_OPEN, by="test", reason="probe", ttl_ms=60_000)
    line = Line(redis, gates, orders=3)
    answers = [line.answer, line.end(0), line.end(0)]
    tickets = [answer.ticket for answer in answers if isinstance(answer, Admitted)]
    assert [ticket is not None and ticket.is_probe for ticket in tickets] == [True, True, False]
    assert gates.status.state is BreakerState.CLOSED


def test_no_more_probes_go_out_than_are_still_to_succeed(redis: Redis) -> None:
    gates = Bench(redis, BreakerPolicy(probes=2))
    gates.breakers.override(JOB, BreakerState.HALF_OPEN, by="test", reason="probe", ttl_ms=60_000)
    line = Line(redis, gates, orders=2)
    _, other = Bench(redis, BreakerPolicy(probes=2), owner="other").ask()
    assert isinstance(other, Admitted)
    assert isinstance(line.end(0), Blocked)


def test_limit_that_an_answer_says_is_used_up_blocks_the_order_that_is_begun_with_its_end(redis: Redis) -> None:
    line = Line(redis, one_limit(redis), orders=3)
    assert isinstance(line.end(0, seen="orders 60000 20"), Admitted)
    answer = line.end(0, seen="orders 60000 100")
    assert isinstance(answer, Blocked)
    assert answer.gate == "rate"


def test_order_is_counted_beside_what_the_exchange_says_is_used(redis: Redis) -> None:
    line = Line(redis, one_limit(redis), orders=3)
    line.end(0, seen="orders 60000 20")
    line.end(0, seen="orders 60000 21")
    used = redis.hvals(NAMES.rates("usdm")[2])
    assert sum(int(one) for one in used) == 22  # all that the exchange has seen, and the order that was begun


def one_limit(redis: Redis) -> Bench:
    gates = Bench(redis)
    gates.rate.publish(Venue.USDM, [Limit(kind="orders", window_ms=60_000, most=100)])
    return gates


def test_worker_s_record_adds_up_what_it_has_done(redis: Redis) -> None:
    line = Line(redis, Bench(redis), orders=3)
    line.end(0)
    line.end(0)
    assert redis.hget(f"rq:worker:{WORKER}", "current_job") is not None
    line.stop()
    record = redis.hgetall(f"rq:worker:{WORKER}")
    assert int(record[b"successful_job_count"]) == 3
    assert float(record[b"total_working_time"]) > 0
    assert record[b"state"] == b"idle"
    assert b"current_job" not in record
    assert b"execution" not in record
