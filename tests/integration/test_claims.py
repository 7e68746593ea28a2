"""How a worker takes jobs and ends them: few round trips, and RQ's own books right at every moment."""

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.connection import AbstractConnection
from rq import Queue, Worker
from rq.job import Job, JobStatus
from rq.registry import FinishedJobRegistry, StartedJobRegistry
from rq.serializers import JSONSerializer

from app.delivery import Claim, Claims, Delivery, Leavings, Parcel
from app.job_safety.names import GuardNames
from app.job_safety.side_effect_guard import SideEffectGuard, Token
from tests.support.nursery import Nursery
from tests.support.paper_process import PaperProcess
from tests.support.redis_server import RedisServer
from tests.support.system import System, system
from workers.worker import SafetyWorker

NAMES = GuardNames(namespace="guard", kill_switch="kill", mode="paper", account="main")
WORKER = "w-1"
LEASE_MS = 60_000


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    client = Redis.from_url(redis_url)
    yield client
    client.close()


def delivery_of(redis: Redis, installation: str = "a" * 32) -> Delivery:
    return Delivery(redis, account="main", mode="paper", installation=installation, claim_ttl_ms=60_000)


def parcel(key: str, queue: str = "orders") -> Parcel:
    kind = {"orders": "order", "ledger": "ledger"}[queue]
    return Parcel(key=key, type=kind, queue=queue)


def claims_on(redis: Redis, delivery: Delivery) -> Claims:
    return Claims(redis, delivery, queue="orders", worker=WORKER, worker_ttl_s=120)


def job_of(redis: Redis, claim: Claim) -> Job:
    return Job.fetch(claim.job_id, connection=redis, serializer=JSONSerializer)


def taken(claim: Claim | None) -> Claim:
    assert claim is not None
    return claim


def test_end_of_a_job_settles_its_guards_delivers_what_follows_and_begins_the_next(redis: Redis) -> None:
    delivery = delivery_of(redis)
    delivery.deliver([parcel("one"), parcel("two")])
    guard = SideEffectGuard(redis, NAMES, lease_ttl_ms=LEASE_MS, result_ttl_s=600)
    token = Token(f"{WORKER}#1")
    held = NAMES.guard("order", "one")
    redis.set(held, f"L:{token}", px=LEASE_MS)
    claims = claims_on(redis, delivery)
    one = taken(claims.take())
    leavings = Leavings(guards=[guard.ending("order", "one", token, "FILLED")], parcels=[parcel("one", "ledger")])
    has_dependents, following = claims.finish(one, "FILLED", leavings, begin_next=True)
    assert (one.key, taken(following).key, has_dependents) == ("one", "two", False)
    assert redis.get(held) == b"D:FILLED"
    assert delivery.depth("ledger") == 1
    assert job_of(redis, one).get_status() is JobStatus.FINISHED
    assert job_of(redis, one).return_value() == "FILLED"
    assert job_of(redis, taken(following)).get_status() is JobStatus.STARTED
    queue = Queue("orders", connection=redis, serializer=JSONSerializer)
    assert one.job_id in FinishedJobRegistry(queue=queue)
    assert StartedJobRegistry(queue=queue).get_job_ids(cleanup=False) == [taken(following).job_id]


def test_guard_that_has_passed_to_another_is_left_alone_by_the_end_of_a_job(redis: Redis) -> None:
    delivery = delivery_of(redis)
    delivery.deliver([parcel("one")])
    guard = SideEffectGuard(redis, NAMES, lease_ttl_ms=LEASE_MS, result_ttl_s=600)
    redis.set(NAMES.guard("order", "one"), "L:successor#1", px=LEASE_MS)
    claims = claims_on(redis, delivery)
    for hint in ("FILLED", None):
        ending = guard.ending("order", "one", Token(f"{WORKER}#1"), hint)
        claims.finish(taken(claims.take()), "", Leavings(guards=[ending]), begin_next=False)
        assert redis.get(NAMES.guard("order", "one")) == b"L:successor#1"
        delivery.deliver([parcel("one")], force=True)


def test_nothing_is_begun_while_rq_is_suspended_or_the_worker_stops(redis: Redis) -> None:
    delivery = delivery_of(redis)
    delivery.deliver([parcel("one"), parcel("two"), parcel("three")])
    claims = claims_on(redis, delivery)
    one = taken(claims.take())
    redis.set("rq:suspended", 1)
    assert claims.finish(one, "", Leavings(), begin_next=True)[1] is None
    redis.delete("rq:suspended")
    two = taken(claims.take())
    assert claims.finish(two, "", Leavings(), begin_next=False)[1] is None
    assert delivery.depth("orders") == 1


def test_what_was_begun_and_not_ended_goes_back_to_the_head_of_the_queue(redis: Redis) -> None:
    delivery = delivery_of(redis)
    delivery.deliver([parcel("one"), parcel("two")])
    claims = claims_on(redis, delivery)
    one = taken(claims.take())
    assert claims.give_back()
    assert job_of(redis, one).get_status() is JobStatus.QUEUED
    assert not claims.give_back()
    assert taken(claims.take()).key == "one"


def test_queues_of_another_journal_get_nothing_from_the_end_of_a_job(redis: Redis) -> None:
    delivery = delivery_of(redis)
    delivery.deliver([parcel("one")])
    claims = claims_on(redis, delivery)
    one = taken(claims.take())
    delivery_of(redis, "b" * 32).claim()
    claims.finish(one, "", Leavings(parcels=[parcel("one", "ledger")]), begin_next=False)
    assert delivery.depth("ledger") == 0
    assert job_of(redis, one).get_status() is JobStatus.FINISHED


def test_job_that_no_longer_exists_or_is_not_ours_stops_nobody(redis: Redis) -> None:
    delivery = delivery_of(redis)
    queue = Queue("orders", connection=redis, serializer=JSONSerializer)
    queue.enqueue("os.system", "true", job_id="foreign")
    redis.rpush("rq:queue:orders", "deleted")
    delivery.deliver([parcel("one")])
    claims = claims_on(redis, delivery)
    foreign = taken(claims.take())
    assert (foreign.job_id, foreign.function) == ("foreign", None)
    assert taken(claims.take()).key == "one"


def test_job_is_begun_in_the_round_trip_in_which_it_was_waited_for(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    delivery = delivery_of(redis)
    claims = claims_on(redis, delivery)
    assert claims.wait(0.01) is None  # the scripts are known now
    sent = count_requests(monkeypatch)
    bringer = threading.Timer(0.2, delivery_of(Redis.from_url(url_of(redis))).deliver, [[parcel("one")]])
    bringer.start()
    assert taken(claims.wait(30)).key == "one"
    bringer.join()
    assert sent["MainThread"] == 1


def test_script_that_the_server_forgot_while_a_worker_waited_is_loaded_again(redis: Redis) -> None:
    delivery = delivery_of(redis)
    delivery.deliver([parcel("one")])
    redis.script_flush("SYNC")
    assert taken(claims_on(redis, delivery).wait(1)).key == "one"


# A whole worker


@pytest.fixture
def here(tmp_path: Path, redis_server: RedisServer, redis_url: str) -> Iterator[System]:
    nursery = Nursery()
    url = f"sqlite:///{tmp_path / 'journal.db'}"
    with (
        PaperProcess(tmp_path / "exchange", "--price", "BTCUSDT=20000") as exchange,
        system(tmp_path / "system", redis=redis_server, database_url=url, exchange=exchange, nursery=nursery) as one,
    ):
        yield one
    nursery.close()


def test_busy_worker_asks_redis_three_times_per_order(here: System, monkeypatch: pytest.MonkeyPatch) -> None:
    """For its admission, for the kill switch as it dispatches, and to end it and begin the next."""
    keys = [here.order(f"order-{number}") for number in range(12)]
    sent = count_requests(monkeypatch)
    at: list[int] = []
    worker = SafetyWorker(["orders"], installation=here.installation)
    execute = worker.execute_job

    def counted(job: Any, queue: Queue) -> None:
        at.append(sent[threading.current_thread().name])
        execute(job, queue)

    monkeypatch.setattr(worker, "execute_job", counted)
    worker.work(burst=True)
    assert {here.row(key).state.value for key in keys} == {"FILLED"}
    # The first one opens the books and learns the limits; a sign of life is shown every 15 s.
    costs = sorted(after - before for before, after in itertools.pairwise(at[1:]))
    assert costs[len(costs) // 2] == 3, at


def test_rq_sees_who_works_on_what(here: System, monkeypatch: pytest.MonkeyPatch) -> None:
    here.order("seen")
    seen: list[tuple[str, str | None, list[str]]] = []
    worker = SafetyWorker(["orders"], installation=here.installation)
    execute = worker.execute_job

    def look(job: Any, queue: Queue) -> None:
        (told,) = Worker.all(connection=here.installation.redis)
        started = StartedJobRegistry(queue=queue).get_job_ids(cleanup=False)
        seen.append((told.get_state(), told.get_current_job_id(), started))
        execute(job, queue)

    monkeypatch.setattr(worker, "execute_job", look)
    worker.work(burst=True)
    job_id = here.installation.delivery.job_id(Parcel(key="seen", type="order", queue="orders"))
    assert seen == [("busy", job_id, [job_id])]
    assert Worker.all(connection=here.installation.redis) == []


def url_of(redis: Redis) -> str:
    told = redis.connection_pool.connection_kwargs
    return f"redis://{told['host']}:{told['port']}/0"


def count_requests(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Count what is sent to Redis from now on, a pipeline as one, by the name of the thread that sends it."""
    sent: dict[str, int] = {}
    send = AbstractConnection.send_packed_command

    def counted(self: AbstractConnection, *arguments: Any, **options: Any) -> None:
        name = threading.current_thread().name
        sent[name] = sent.get(name, 0) + 1
        send(self, *arguments, **options)

    monkeypatch.setattr(AbstractConnection, "send_packed_command", counted)
    return sent
