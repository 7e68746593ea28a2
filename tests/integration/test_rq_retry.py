"""Retries as RQ people know them: requeue, retry, empty, delayed jobs. Each repeats a delivery, and never an order.

Our retries live in the journal. RQ's own never fire for our jobs, and where somebody asks RQ for one, the journal
decides what the second run may do.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rq import Queue, Retry
from rq.job import Job
from rq.registry import FailedJobRegistry, ScheduledJobRegistry

from app.delivery import Parcel
from tests.support.nursery import Nursery
from tests.support.paper_process import PaperProcess
from tests.support.redis_server import RedisServer
from tests.support.system import System, system

ROOT = Path(__file__).resolve().parents[2]
RQ = str(Path(sys.executable).parent / "rq")
THROTTLED = {"action": "reply_instead", "canned": "503_throttled_1008", "match": {"method": "POST"}}


@pytest.fixture
def here(tmp_path: Path, redis_server: RedisServer, redis_url: str, nursery: Nursery) -> Iterator[System]:
    url = f"sqlite:///{tmp_path / 'journal.db'}"
    with (
        PaperProcess(tmp_path / "exchange", "--price", "BTCUSDT=20000") as exchange,
        system(tmp_path / "system", redis=redis_server, database_url=url, exchange=exchange, nursery=nursery) as one,
    ):
        yield one


def rq(here: System, *arguments: str) -> str:
    """Run a command of RQ's and return what it said."""
    environment = {**os.environ, **here.environment, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        [RQ, *arguments, "-u", here.redis.url, "-S", "json"],
        cwd=here.folder, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return ended.stdout + ended.stderr


def orders_queue(here: System) -> Queue:
    return Queue("orders", connection=here.installation.redis, serializer="json")


def job_of(here: System, key: str) -> Job:
    parcel = Parcel(key=key, type="order", queue="orders")
    return Job.fetch(here.installation.delivery.job_id(parcel), connection=here.installation.redis, serializer="json")


def work_off(here: System) -> None:
    assert here.run("worker", "orders", "--burst") == 0


def throttle(here: System, **match: Any) -> None:
    here.exchange.faults({**THROTTLED, "match": {"method": "POST", **match}})


def outcomes(here: System, key: str) -> list[str | None]:
    return [attempt.outcome for attempt in here.sent(key)]


def fill(here: System, *keys: str) -> None:
    """Let the system do the rest by itself."""
    here.start_all()
    here.wait_until_booked(*keys)
    for key in keys:
        assert len(here.exchange.orders_of(here.row(key).client_order_id)) == 1
    assert here.problems() == []


def test_our_jobs_carry_no_retry_of_rqs(here: System) -> None:
    here.order("plain")
    job = job_of(here, "plain")
    assert (job.retries_left, job.retry_intervals, job.repeats_left) == (None, None, None)


def busy(here: System) -> None:
    """Have the exchange ask for a pause that no slow machine outlasts between a refusal and a look at the journal."""
    body = {"code": -1003, "msg": "Too many requests."}
    reply = {"action": "reply_instead", "status": 429, "body": body, "headers": {"Retry-After": "5"}}
    here.exchange.faults({**reply, "match": {"method": "POST", "times": 1}})


def test_refused_order_waits_in_the_journal_and_not_in_rqs_registries(here: System) -> None:
    busy(here)
    here.order("waits")
    work_off(here)
    row = here.row("waits")
    assert row.state == "RETRY_WAIT"
    assert row.not_before_ms >= here.attempts("waits")[0].dispatched_at_ms
    queue = orders_queue(here)
    assert len(FailedJobRegistry(queue=queue)) == 0
    assert len(ScheduledJobRegistry(queue=queue)) == 0
    fill(here, "waits")
    assert outcomes(here, "waits") == ["REFUSED", "ACCEPTED"]


def test_retry_that_is_delivered_too_early_is_not_sent(here: System) -> None:
    busy(here)
    here.order("early")
    work_off(here)
    with here.redis.client() as client:
        for name in client.scan_iter("rate_limit:pause:*"):
            client.delete(name)  # not even if the gate were open
    here.installation.delivery.deliver([Parcel(key="early", type="order", queue="orders")], force=True)
    work_off(here)
    assert outcomes(here, "early") == ["REFUSED"]
    assert "not yet" in str(job_of(here, "early").return_value())


def test_order_is_given_up_after_five_refusals_and_never_sent_again(here: System) -> None:
    throttle(here)
    here.order("refused", valid_for_s=600)
    here.start_all()
    row = here.wait_for_state("refused", "REJECTED", timeout_s=60)
    assert outcomes(here, "refused") == ["REFUSED"] * 5
    here.exchange.faults()
    here.installation.delivery.deliver([Parcel(key="refused", type="order", queue="orders")], force=True)
    here.until(lambda: here.installation.delivery.depth("orders") == 0, "the job to be taken")
    assert here.exchange.orders_of(row.client_order_id) == []
    assert here.problems() == []


def test_rq_requeue_of_a_failed_job_goes_on_from_the_journal(here: System) -> None:
    """The first run breaks before it is sent; `rq requeue` is what people type then."""
    here.order("requeued")
    here.run("worker", "orders", "--burst", faults=f"before_admission=raise@{here.folder / 'raised'}")
    assert (here.folder / "raised").exists()
    assert len(FailedJobRegistry(queue=orders_queue(here))) == 1
    assert here.row("requeued").state == "RECEIVED"
    rq(here, "requeue", "--queue", "orders", "--all")
    work_off(here)
    assert here.row("requeued").state == "FILLED"
    fill(here, "requeued")


def test_rq_requeue_of_a_job_that_broke_after_sending_sends_nothing(here: System) -> None:
    here.order("sent")
    here.run("worker", "orders", "--burst", faults=f"after_send=raise@{here.folder / 'raised'}")
    assert (here.folder / "raised").exists()
    rq(here, "requeue", "--queue", "orders", "--all")
    work_off(here)
    fill(here, "sent")
    assert outcomes(here, "sent") == ["ACCEPTED"]


def test_requeue_of_a_finished_job_changes_nothing(here: System) -> None:
    here.order("done")
    work_off(here)
    before = here.row("done")
    orders_queue(here).enqueue_job(job_of(here, "done"))
    work_off(here)
    assert here.row("done") == before
    fill(here, "done")


def test_rq_empty_loses_no_order(here: System) -> None:
    here.order("emptied")
    rq(here, "empty", "orders")
    assert orders_queue(here).count == 0
    fill(here, "emptied")


def test_retry_asked_of_rq_by_somebody_else_places_the_order_once(here: System) -> None:
    """`Retry(max=3)` around our function, and the first run breaks after sending: a blind retry, made harmless."""
    here.order("wrapped")
    rq(here, "empty", "orders")
    orders_queue(here).enqueue("workers.jobs.run_order", "wrapped", retry=Retry(max=3))
    here.run("worker", "orders", "--burst", faults=f"after_send=raise@{here.folder / 'raised'}")
    assert (here.folder / "raised").exists()
    fill(here, "wrapped")
    assert outcomes(here, "wrapped") == ["ACCEPTED"]


def test_order_enqueued_twice_more_through_rq_itself_is_placed_once(here: System) -> None:
    here.order("thrice")
    for _ in range(2):
        orders_queue(here).enqueue("workers.jobs.run_order", "thrice")
    work_off(here)
    fill(here, "thrice")
    assert outcomes(here, "thrice") == ["ACCEPTED"]
