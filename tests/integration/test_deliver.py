"""How jobs get into RQ's queues: read by RQ as if it had written them, and in no list that they have left."""

from collections.abc import Iterator

import pytest
from redis import Redis
from rq import Queue
from rq.job import Job, JobStatus
from rq.registry import FailedJobRegistry, FinishedJobRegistry
from rq.serializers import JSONSerializer

from app.delivery import Delivery, Parcel
from app.delivery.port import JOB_FUNCTIONS, MAX_BATCH

ORDERS = [Parcel(key=key, type="order", queue="orders") for key in "abc"]


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    client = Redis.from_url(redis_url)
    yield client
    client.close()


@pytest.fixture
def delivery(redis: Redis) -> Delivery:
    return Delivery(redis, account="main", mode="paper", installation="a" * 32)


def queue_of(redis: Redis) -> Queue:
    return Queue("orders", connection=redis, serializer=JSONSerializer)


def test_a_job_is_to_rq_what_its_own_would_be(redis: Redis, delivery: Delivery) -> None:
    parcel = Parcel(key="k" * 200, type="order", queue="orders", description="order · é", asks="open usdm")
    assert delivery.deliver([parcel]) == 1
    job = Job.fetch(delivery.job_id(parcel), connection=redis, serializer=JSONSerializer)
    own = Job.create(
        JOB_FUNCTIONS["order"], args=[parcel.key], id=job.id, connection=redis, serializer=JSONSerializer,
        description=parcel.description, timeout=-1, result_ttl=600, failure_ttl=24 * 3600, origin="orders",
        status=JobStatus.QUEUED,
    )  # fmt: skip
    own.created_at, own.enqueued_at = job.created_at, job.enqueued_at
    assert job.enqueued_at is not None
    redis.delete(job.key)
    own.save()
    again = Job.fetch(job.id, connection=redis, serializer=JSONSerializer)
    assert job.to_dict() == again.to_dict()
    assert (job.func_name, job.args, job.kwargs) == (again.func_name, again.args, again.kwargs)


def test_what_is_delivered_again_is_finished_and_failed_no_more(redis: Redis, delivery: Delivery) -> None:
    ids = [delivery.job_id(one) for one in ORDERS]
    redis.zadd("rq:finished:orders", {ids[0]: 9_999_999_999})
    redis.zadd("rq:failed:orders", {ids[1]: 9_999_999_999})
    assert delivery.deliver(ORDERS) == len(ids)
    assert queue_of(redis).get_job_ids() == ids
    assert FinishedJobRegistry(queue=queue_of(redis)).get_job_ids(cleanup=False) == []
    assert FailedJobRegistry(queue=queue_of(redis)).get_job_ids(cleanup=False) == []


def test_what_waits_is_passed_over_and_goes_to_the_head_only_by_force(redis: Redis, delivery: Delivery) -> None:
    a, b, c = (delivery.job_id(one) for one in ORDERS)
    assert delivery.deliver(ORDERS[:1]) == 1
    assert delivery.deliver([*ORDERS, ORDERS[2]]) == 2
    assert queue_of(redis).get_job_ids() == [a, b, c]
    assert delivery.deliver(ORDERS[1:], front=True) == 2
    assert queue_of(redis).get_job_ids() == [c, b, a, b, c]


def test_more_than_one_script_takes_go_in_their_order(redis: Redis, delivery: Delivery) -> None:
    many = [Parcel(key=f"k-{number}", type="order", queue="orders") for number in range(MAX_BATCH + 1)]
    assert delivery.deliver(many) == len(many)
    assert queue_of(redis).get_job_ids() == [delivery.job_id(one) for one in many]
