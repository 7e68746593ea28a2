"""Workers as RQ runs them: what they refuse, how they stop, and that trouble with Redis loses and repeats no order."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis import Redis
from rq import Callback, Queue
from sqlalchemy import update

from app.clock import SystemClock
from app.composition import compose
from app.delivery import Parcel
from app.execution.context import REDELIVER_AFTER_MS, ExecutionContext
from app.execution.parcels import parcel_of
from app.job_safety.admission import Admitted, EffectKind
from app.job_safety.state import IntentState
from app.journal import schema
from app.settings import load_settings
from app.wiring import open_installation
from tests.support.clock import FakeClock
from tests.support.nursery import Nursery
from tests.support.paper_process import PaperProcess
from tests.support.redis_server import RedisServer
from tests.support.system import System, system
from workers.rescue import rescue
from workers.sweeper import MAX_RESCUES, sweep

ROOT = Path(__file__).resolve().parents[2]
RQ = str(Path(sys.executable).parent / "rq")
SENDING = {"method": "POST", "path": "/fapi/v1/order"}


@pytest.fixture
def here(tmp_path: Path, redis_server: RedisServer, redis_url: str, nursery: Nursery) -> Iterator[System]:
    url = f"sqlite:///{tmp_path / 'journal.db'}"
    with (
        PaperProcess(tmp_path / "exchange", "--price", "BTCUSDT=20000") as exchange,
        system(tmp_path / "system", redis=redis_server, database_url=url, exchange=exchange, nursery=nursery) as one,
    ):
        yield one


def rq(here: System, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run RQ's own command line, in the environment of our processes."""
    environment = {**os.environ, **here.environment, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [RQ, *arguments], cwd=here.folder, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def planted_queue(here: System, serializer: str = "json") -> Queue:
    return Queue("orders", connection=here.installation.redis, serializer=serializer)


def wait_until_idle(here: System) -> None:
    """Wait until a worker waits for jobs; it hears signals by then."""
    redis = here.installation.redis

    def look() -> bool:
        return any(redis.hget(name, "state") == b"idle" for name in redis.smembers("rq:workers"))

    here.until(look, "the worker to wait for jobs")


def work_off(here: System) -> str:
    """Run a worker until its queue is empty; return what it wrote."""
    here.run("worker", "orders", "--burst")
    return here.processes[-1].words()


# On whose Redis it runs


def test_an_order_is_booked_with_the_redis_rights_that_the_guide_gives(here: System) -> None:
    """And with no right of those that can hurt everybody: CONFIG, FLUSHALL, KEYS, ACL."""
    guide = (ROOT / "docs/how-to/use-your-own-redis-and-postgres.md").read_text()
    (rule,) = re.findall(r"^ACL SETUSER (.*)$", guide, flags=re.MULTILINE)
    here.redis.client().execute_command("ACL", "SETUSER", *rule.split())
    try:
        here.environment["REDIS_URL"] = f"redis://fillonce:PASSWORD@127.0.0.1:{here.redis.port}/0"
        here.start_all()
        here.order("with-few-rights")
        here.wait_until_booked("with-few-rights")
        said = here.cli("doctor", "--json")
        assert '"check": "redis scripts", "level": "ok"' in said
        assert '"check": "redis database", "level": "ok"' in said, "every key of ours is known as ours"
        assert '"fail"' not in said
    finally:
        here.redis.client().execute_command("ACL", "DELUSER", "fillonce")


def test_a_worker_tells_what_is_not_safe_about_its_redis(here: System, redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
    said = work_off(here)
    assert '"event": "redis_unsafe"' in said
    assert '"check": "eviction"' in said


def test_the_supervisor_and_its_keeper_tell_what_is_not_safe_about_their_redis(
    here: System, redis_server: RedisServer
) -> None:
    with redis_server.client() as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
    one = here.start("supervisor")
    here.until(lambda: "redis_safety:paper:main" in one_key(here), "the keeper to look")

    def have_told(owner: str) -> bool:
        lines = one.words().splitlines()
        return any('"check": "eviction"' in line and owner in line for line in lines)

    here.until(lambda: have_told('"owner": "supervisor"'), "the supervisor to tell")
    here.until(lambda: have_told("-watch"), "the keeper to tell")
    with redis_server.client() as client:
        status = client.get("redis_safety:paper:main")
    assert '"level": "fail"' in str(status)


def one_key(here: System) -> list[str]:
    with here.redis.client() as client:
        return [str(name) for name in client.keys("redis_safety:*")]


# What does not run


def test_job_that_names_a_function_of_the_system_is_refused_and_the_next_order_is_placed(here: System) -> None:
    mark = here.folder / "mark"
    planted_queue(here).enqueue("os.system", f"touch {mark}")
    planted_queue(here).enqueue("tests.support.planted.leave_mark", str(mark))
    here.order("after")
    words = work_off(here)
    assert not mark.exists()
    assert words.count('"event": "job_refused"') == 2
    assert "'os.system' is not a job of ours" in words
    assert here.installation.redis.get("metrics:refused_jobs") == b"2"
    assert here.row("after").state == "FILLED"


@pytest.mark.parametrize("arguments", [("a", "b"), (), (["a"],)])
def test_job_of_ours_with_anything_but_one_key_is_refused(here: System, arguments: tuple[object, ...]) -> None:
    planted_queue(here).enqueue("workers.jobs.run_order", *arguments)
    assert "takes one key and nothing else" in work_off(here)


def test_planted_pickle_is_never_loaded_and_the_next_order_is_placed(here: System) -> None:
    mark = here.folder / "mark"
    planted_queue(here, "pickle").enqueue("tests.support.planted.leave_mark", str(mark))
    here.order("after")
    words = work_off(here)
    assert not mark.exists()
    assert '"level": "error"' in words
    assert here.row("after").state == "FILLED"


@pytest.mark.parametrize("key", ["known", "unknown"])
def test_planted_callbacks_of_a_job_are_never_called(here: System, key: str) -> None:
    mark = here.folder / "mark"
    here.order("known")
    callback = Callback("tests.support.planted.leave_mark_of")
    planted_queue(here).enqueue(
        "workers.jobs.run_order", key, description=str(mark), on_success=callback, on_failure=callback,
        on_stopped=callback,
    )  # fmt: skip
    work_off(here)
    assert not mark.exists()
    assert here.row("known").state == "FILLED"


def test_job_whose_key_the_journal_does_not_know_fails_and_sends_nothing(here: System) -> None:
    here.installation.delivery.deliver([Parcel(key="never-journaled", type="order", queue="orders")])
    here.order("after")
    words = work_off(here)
    assert "the journal knows no intent with key 'never-journaled'" in words
    assert here.row("after").state == "FILLED"
    assert len(here.exchange.truth()["orders"]) == 1


# RQ's own commands


def test_plain_rq_worker_command_runs_our_worker(here: System) -> None:
    here.order("by-rq")
    ended = rq(here, "worker", "-u", here.redis.url, "-w", "workers.worker.SafetyWorker", "orders", "--burst")
    assert ended.returncode == 0, ended.stderr
    assert here.row("by-rq").state == "FILLED", ended.stderr


def test_worker_on_two_queues_is_refused(here: System) -> None:
    here.order("waits")
    ended = rq(here, "worker", "-u", here.redis.url, "-w", "workers.worker.SafetyWorker", "orders", "urgent", "--burst")
    assert ended.returncode != 0
    assert "one queue per worker, not orders, urgent" in ended.stderr
    assert here.row("waits").state == "RECEIVED"


def test_rq_info_shows_our_queues_and_workers(here: System) -> None:
    here.start("worker", "orders")
    here.order("shown")
    here.wait_for_state("shown", "FILLED")
    wait_until_idle(here)
    here.enqueue({"type": "cancel", "key": "waiting", "order_key": "shown"})
    told = rq(here, "info", "-u", here.redis.url)
    assert told.returncode == 0, told.stderr
    lines = {line.split()[0]: line for line in told.stdout.splitlines() if line}
    assert "1 finished, 0 failed" in lines["orders"]
    assert "1, 0 executing" in lines["urgent"]
    assert "1 workers" in told.stdout


# Stopping


def test_worker_finishes_its_order_when_it_is_asked_to_stop(here: System) -> None:
    here.exchange.faults({"action": "delay_reply_ms", "ms": 1500, "match": SENDING})
    worker = here.start("worker", "orders")
    here.order("slow")
    here.wait_for_state("slow", "DISPATCHED")
    worker.terminate()
    assert worker.wait() == 0
    row = here.row("slow")
    assert (row.state, row.attempt) == ("FILLED", 1)
    (attempt,) = here.attempts("slow")
    assert (attempt.outcome, attempt.settled_by) == ("ACCEPTED", "dispatch")


def test_worker_that_is_asked_twice_stops_at_once_and_its_order_is_settled_by_others(here: System) -> None:
    here.exchange.faults({"action": "delay_reply_ms", "ms": 2900, "match": SENDING})
    worker = here.start("worker", "orders")
    here.order("abandoned")
    here.wait_for_state("abandoned", "DISPATCHED")

    def ended() -> bool:
        worker.terminate()  # RQ takes a second request within a second for the same one
        return worker.poll() is not None

    here.until(ended, "the worker to end")
    (attempt,) = here.attempts("abandoned")
    assert attempt.outcome is None
    assert here.row("abandoned").state in {IntentState.DISPATCHED, IntentState.IN_DOUBT}
    here.exchange.faults()
    here.start_all()
    (row,) = here.wait_until_booked("abandoned")
    assert (row.state, row.attempt) == ("FILLED", 1)
    assert len(here.exchange.orders_of(row.client_order_id)) == 1
    assert here.problems() == []


def test_idle_worker_stops_when_it_is_asked_to(here: System) -> None:
    worker = here.start("worker", "orders")
    wait_until_idle(here)
    worker.terminate()
    assert worker.wait() == 0
    assert here.installation.redis.scard("rq:workers") == 0


# Deliveries


def test_order_delivered_twenty_times_to_four_workers_is_placed_once(here: System) -> None:
    here.exchange.faults({"action": "delay_reply_ms", "ms": 300, "match": SENDING})
    here.order("many")
    parcel = Parcel(key="many", type="order", queue="orders")
    for _ in range(20):
        here.installation.delivery.deliver([parcel], force=True)
    for _ in range(4):
        here.start("worker", "orders")
    here.wait_for_state("many", "FILLED")
    here.until(lambda: here.installation.delivery.depth("orders") == 0, "the queue to be empty")
    # The workers go on running, and bring what they have counted to Redis in their own time.
    here.until(lambda: here.checker.counters().get("duplicate_blocked", 0) > 0, "a second try to be counted")
    here.start_all()
    (row,) = here.wait_until_booked("many")
    assert row.attempt == 1
    assert len(here.exchange.orders_of(row.client_order_id)) == 1
    assert here.problems() == []


def test_orders_are_found_and_placed_once_after_redis_has_lost_everything(here: System) -> None:
    here.order("placed")
    here.run("worker", "orders", "--burst")
    here.order("waiting")
    here.installation.redis.flushall()
    here.start_all()
    rows = here.wait_until_booked("placed", "waiting")
    assert [(row.state, row.attempt) for row in rows] == [("FILLED", 1), ("FILLED", 1)]
    assert [len(here.exchange.orders_of(row.client_order_id)) for row in rows] == [1, 1]
    assert here.problems() == []


def test_order_enqueued_while_redis_is_down_is_delivered_when_it_is_back(here: System) -> None:
    here.order("before")
    here.redis.kill()
    intent = {"type": "order", "key": "meanwhile", "symbol": "BTCUSDT", "side": "BUY", "quantity": "0.010"}
    answer = here.submit(intent)
    assert (answer.status, answer.delivered) == ("accepted", False)
    here.redis.start()
    assert here.submit(intent).status == "duplicate"
    here.start_all()
    rows = here.wait_until_booked("before", "meanwhile")
    assert [(row.state, row.attempt) for row in rows] == [("FILLED", 1), ("FILLED", 1)]
    assert here.problems() == []


# Rescue


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeper:
    """A sweeper in this process, whose time is ours."""

    context: ExecutionContext
    clock: FakeClock
    redis: Redis

    def sweep(self, times: int, *, status: str = "started") -> None:
        """Sweep again and again; whoever takes what is delivered gets nowhere with it, and RQ has `status` for it."""
        self.clock.advance(max(SystemClock().now_ms() - self.clock.now_ms(), 0))
        for _ in range(times):
            sweep(self.context)
            self.redis.delete("rq:queue:orders")
            for job in self.redis.keys("rq:job:*"):
                self.redis.hset(job, "status", status)
            self.clock.advance(REDELIVER_AFTER_MS + 1)


@pytest.fixture
def keeper(here: System) -> Iterator[Keeper]:
    clock = FakeClock(SystemClock().now_ms())
    installation = open_installation(load_settings(here.environment, here.folder), clock)
    context = compose(installation, "sweeper-of-the-test")
    yield Keeper(context=context, clock=clock, redis=installation.redis)
    context.record.close()
    context.gateway.close()
    installation.redis.close()
    installation.journal.close()


def test_order_that_its_workers_do_not_survive_is_quarantined(here: System, keeper: Keeper) -> None:
    here.order("poison", valid_for_s=600)
    keeper.sweep(1)
    assert here.row("poison").rescues == 0, "it waits in its queue"
    keeper.sweep(MAX_RESCUES)
    assert (here.row("poison").state, here.row("poison").rescues) == ("RECEIVED", MAX_RESCUES)
    keeper.sweep(1)
    row = here.row("poison")
    assert (row.state, row.rescues, row.attempt) == ("QUARANTINED", 0, 0)
    assert "poison" in (row.reason or "")


@pytest.mark.parametrize("status", ["queued", "failed"])
def test_order_whose_delivery_a_store_loses_again_and_again_is_not_taken_for_poison(
    here: System, keeper: Keeper, status: str
) -> None:
    here.order("unlucky", valid_for_s=600)
    keeper.sweep(3 * MAX_RESCUES, status=status)
    assert (here.row("unlucky").state, here.row("unlucky").rescues) == ("RECEIVED", 0)
    with (
        here.installation.journal.write() as connection
    ):  # due by the keeper's clock, which is far ahead of the others'
        connection.execute(update(schema.intents).values(run_at_ms=SystemClock().now_ms()))
    here.start_all()
    (row,) = here.wait_until_booked("unlucky")
    assert (row.state, row.attempt) == ("FILLED", 1)


def test_order_that_a_living_worker_is_slow_to_take_up_is_not_taken_for_poison(here: System, keeper: Keeper) -> None:
    here.order("slow", valid_for_s=600)
    keeper.redis.hset("rq:worker:slow-one", "queues", "orders")
    for _ in range(2 * MAX_RESCUES):
        keeper.redis.hset(
            f"rq:job:{keeper.context.delivery.job_id(parcel_of(here.row('slow')))}", "worker_name", "slow-one"
        )
        keeper.sweep(1)
    assert (here.row("slow").state, here.row("slow").rescues) == ("RECEIVED", 0)


def test_poison_that_may_not_be_sent_any_more_expires_without_a_person(here: System, keeper: Keeper) -> None:
    here.order("late", valid_for_s=60)
    keeper.sweep(1 + MAX_RESCUES)
    assert (here.row("late").state, here.row("late").rescues) == ("RECEIVED", MAX_RESCUES)
    keeper.clock.advance(60_000)
    keeper.sweep(1)
    assert (here.row("late").state, here.row("late").reason) == ("EXPIRED", "validity ran out before it was sent")
    keeper.context.record.close()  # an alarm would be counted by now
    assert "alarm_quarantined" not in here.checker.counters()


def test_order_whose_job_always_breaks_is_quarantined(here: System, keeper: Keeper) -> None:
    here.order("broken", valid_for_s=600)
    with here.installation.journal.write() as connection:
        connection.execute(update(schema.intents).values(content="{}"))
    for times in range(1, MAX_RESCUES + 1):
        here.run("worker", "orders", "--burst")
        assert (here.row("broken").state, here.row("broken").rescues) == ("RECEIVED", times)
        keeper.clock.advance(max(SystemClock().now_ms() - keeper.clock.now_ms(), 0) + REDELIVER_AFTER_MS + 1)
        sweep(keeper.context)
    assert here.row("broken").state == "QUARANTINED"


def test_only_what_a_dead_worker_had_begun_is_counted_and_what_keeps_killing_is_not_handed_out_at_once(
    here: System,
) -> None:
    begun, waiting = (parcel_of(here.row(here.order(key, valid_for_s=600))) for key in ("begun", "waiting"))
    delivery, redis = here.installation.delivery, here.installation.redis
    for deaths in range(1, MAX_RESCUES + 2):
        redis.delete("rq:queue:orders")
        redis.hset(f"rq:job:{delivery.job_id(begun)}", "status", "started")
        redis.rpush("rq:queue:orders:intermediate", delivery.job_id(waiting))
        redis.hset("rq:worker:dead", mapping={"current_job": delivery.job_id(begun), "queues": "orders"})
        again = rescue(here.installation, "dead")
        assert (here.row("begun").rescues, here.row("waiting").rescues) == (deaths, 0)
        assert set(again) == ({"begun", "waiting"} if deaths <= MAX_RESCUES else {"waiting"})


def test_order_in_the_hands_of_a_living_worker_is_not_taken_for_poison(here: System, keeper: Keeper) -> None:
    here.order("slow", valid_for_s=600)
    context = keeper.context
    answer = context.admission.ask("order", "slow", kind=EffectKind.OPEN, venue="usdm")
    assert isinstance(answer, Admitted)
    with context.leases.keep("order", "slow", answer.token):
        keeper.sweep(2 * MAX_RESCUES)
    assert (here.row("slow").state, here.row("slow").rescues) == ("RECEIVED", 0)
