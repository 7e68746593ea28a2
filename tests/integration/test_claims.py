"""How a worker takes jobs and ends them: few round trips, and RQ's own books right at every moment."""

import itertools
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from rq import Queue, Worker
from rq.exceptions import StopRequested
from rq.job import Job, JobStatus
from rq.registry import FinishedJobRegistry, StartedJobRegistry
from rq.serializers import JSONSerializer

from app.composition import guard_names, make_breakers
from app.delivery import Claim, Claims, Delivery, Leavings, Parcel
from app.exchange.gateway import ExchangeGateway
from app.exchange.models import PinnedOrder
from app.execution.order import run_order
from app.execution.parcels import parcel_of
from app.job_safety.admission import Admission, AdmissionAnswer, Asking
from app.job_safety.circuit_breaker import BreakerState
from app.job_safety.kill_switch import KillSource, KillState
from app.job_safety.names import GuardNames
from app.job_safety.outcome import Outcome
from app.job_safety.side_effect_guard import SideEffectGuard, Token
from app.journal import kill_latches
from app.journal.kill_latches import Change
from bench.throughput import wal
from tests.support.nursery import Nursery
from tests.support.paper_process import PaperProcess
from tests.support.redis_server import RedisServer
from tests.support.system import System, system
from workers import worker as worker_module
from workers.safety_job import REFUSED_KEY
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
    return Claims(redis, delivery, queue="orders", worker=WORKER, worker_ttl_s=120, guards=NAMES.guard("order", ""))


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
    assert redis.hmget(f"rq:worker:{WORKER}", "state", "current_job") == [b"idle", None]
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


def test_busy_worker_asks_redis_twice_and_syncs_twice_per_order(here: System, monkeypatch: pytest.MonkeyPatch) -> None:
    """It asks for the kill switch as it dispatches, and to end it and begin the next with its admission."""
    keys = [here.order(f"order-{number}") for number in range(12)]
    sent = count_requests(monkeypatch)
    log = Path(f"{here.installation.journal.url.database}-wal")
    at: list[int] = []
    synced: list[int] = []
    worker = SafetyWorker(["orders"], installation=here.installation)
    execute = worker.execute_job

    def counted(job: Any, queue: Queue) -> None:
        at.append(sent[threading.current_thread().name])
        synced.append(wal.commits(log))
        execute(job, queue)

    monkeypatch.setattr(worker, "execute_job", counted)
    worker.work(burst=True)
    assert {here.row(key).state.value for key in keys} == {"FILLED"}
    # The first one opens the books and learns the limits; a sign of life is shown every 15 s.
    costs = sorted(after - before for before, after in itertools.pairwise(at[1:]))
    assert costs[len(costs) // 2] == 2, at
    assert {after - before for before, after in itertools.pairwise(synced[1:])} == {2}, synced


def test_idle_worker_asks_redis_three_times_for_the_order_that_ends_its_wait(
    here: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It asks with its wait, for the kill switch as it dispatches, and to end it."""
    sent = count_requests(monkeypatch)
    at: list[int] = []
    bringers: list[threading.Timer] = []

    class Waiting(SafetyWorker):
        def _wait(self) -> Claim | None:
            bringers.append(threading.Timer(0.3, here.order, [f"order-{len(bringers)}"]))
            bringers[-1].start()
            claim = super()._wait()
            at.append(sent[threading.current_thread().name])
            bringers[-1].join()
            return claim

        def execute_job(self, job: Any, queue: Queue) -> None:
            super().execute_job(job, queue)
            at.append(sent[threading.current_thread().name])
            if len(at) == 6:
                self._stop_requested = True

    Waiting(["orders"], installation=here.installation).work(burst=False)
    assert {here.row(f"order-{number}").state.value for number in range(3)} == {"FILLED"}
    # The wait itself is one; the first order opens the books and learns the limits.
    assert [1 + after - before for before, after in zip(at[2::2], at[3::2], strict=True)] == [3, 3]


def test_idle_worker_shows_signs_of_life(here: System, monkeypatch: pytest.MonkeyPatch) -> None:
    """RQ's tools take a worker for dead whose record has run out."""
    monkeypatch.setattr(worker_module, "SIGN_OF_LIFE_S", 0.05)
    monkeypatch.setattr(SafetyWorker, "wait_s", 0.2)
    left_s: list[int] = []

    class Forgotten(SafetyWorker):
        def _wait(self) -> Claim | None:
            left_s.append(int(self.connection.ttl(self.key)))
            self.connection.expire(self.key, 5)
            return super()._wait()

    Forgotten(["orders"], installation=here.installation).work(max_idle_time=1, burst=False)
    assert len(left_s) > 3
    assert min(left_s[1:]) > 100


def test_sign_of_life_that_redis_does_not_take_costs_no_order_that_was_begun(
    here: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What begins a job shows one by itself: nothing that can fail stands between an order and its worker."""
    monkeypatch.setattr(worker_module, "SIGN_OF_LIFE_S", 0.0)

    class Failing(SafetyWorker):
        is_begun = False

        def _wait(self) -> Claim | None:
            here.order("alone")
            claim = super()._wait()
            self.is_begun = claim is not None
            return claim

        def heartbeat(self, timeout: int | None = None, pipeline: Any = None) -> None:
            if self.is_begun and pipeline is None:
                raise RedisConnectionError("gone for a moment")
            super().heartbeat(timeout, pipeline)

        def execute_job(self, job: Any, queue: Queue) -> None:
            self.is_begun = False
            super().execute_job(job, queue)
            self._stop_requested = True

    Failing(["orders"], installation=here.installation).work(burst=False)
    assert here.row("alone").state.value == "FILLED"


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


class Early(SafetyWorker):
    """A worker that runs `between` after it has begun the second job, and notes what every order asked Redis for."""

    def __init__(self, here: System, between: Callable[[], object], queue: str = "orders") -> None:
        super().__init__([queue], installation=here.installation)
        self.between = between
        self.begun: list[Claim] = []

    def execute_job(self, job: Any, queue: Queue) -> None:
        self.begun.append(job)
        if len(self.begun) == 2:
            self.between()
        super().execute_job(job, queue)


def guard_of(here: System, key: str) -> bytes | None:
    names = guard_names(here.installation.settings)
    value = here.installation.redis.get(names.guard("order", key))
    assert value is None or isinstance(value, bytes)
    return value


def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note the orders that are asked for anew, as opposed to with their beginning."""
    keys: list[str] = []
    ask = Admission.ask

    def noted(self: Admission, effect_type: str, key: str, **options: Any) -> AdmissionAnswer:
        if effect_type == "order":
            keys.append(key)
        return ask(self, effect_type, key, **options)

    monkeypatch.setattr(Admission, "ask", noted)
    return keys


def test_order_whose_admission_came_with_its_beginning_asks_for_none(
    here: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ("first", "second"):
        here.order(key)
    worker = Early(here, lambda: None)
    keys = asked(monkeypatch)
    worker.work(burst=True)
    assert keys == ["first"]
    assert here.row("second").state.value == "FILLED"
    assert guard_of(here, "second") == b"D:FILLED"


def test_admission_from_before_the_switch_was_switched_on_and_off_again_is_asked_anew(
    here: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ("first", "second"):
        here.order(key)

    def on_and_off() -> None:
        for state in (KillState.HALT, KillState.RUN):
            wish = Change(source=KillSource.OPERATOR, state=state, actor="a person", reason="on and off")
            with here.installation.journal.write() as connection:
                kill_latches.change(connection, wish, now_ms=here.installation.clock.now_ms())

    worker = Early(here, on_and_off)
    keys = asked(monkeypatch)
    worker.work(burst=True)
    assert keys == ["first", "second"]
    assert here.row("second").state.value == "FILLED"


def test_order_is_not_what_the_queue_says_it_is(here: System, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the urgent queue, where both kinds are asked for, an opening order says that it reduces."""
    here.order("first", reduce_only=True)
    here.order("second")
    lie = replace(parcel_of(here.row("second")), queue="urgent", asks="reduce usdm")
    here.installation.delivery.deliver([lie], force=True)
    worker = Early(here, lambda: None, "urgent")
    keys = asked(monkeypatch)
    worker.work(burst=True)
    told = worker.begun[1].asked
    assert told is not None
    assert told[1] == b"reduce usdm second"
    assert keys == ["first", "second"]
    assert here.row("second").state.value == "FILLED"


def test_admission_that_an_order_does_not_need_goes_back(here: System) -> None:
    """The second delivery of an order that is finished, whose guard was lost: it would be held for a whole lease."""
    for key in ("first", "second"):
        here.order(key)
    second_time = parcel_of(here.row("second"))
    Early(here, lambda: None).work(burst=True)
    redis, delivery = here.installation.redis, here.installation.delivery
    redis.delete(guard_names(here.installation.settings).guard("order", "second"))
    here.order("third")
    delivery.deliver([second_time], force=True)
    worker = Early(here, lambda: None)
    worker.work(burst=True)
    assert [claim.key for claim in worker.begun] == ["third", "second"]
    assert worker.begun[1].asked is not None
    assert guard_of(here, "second") is None


def test_probe_whose_permit_came_ahead_and_ran_out_does_not_go_without_one(
    here: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A permit lives for less long than such an admission is believed: another would probe beside it."""
    breakers, job = make_breakers(here.installation), "order_usdm"
    breakers.override(job, BreakerState.HALF_OPEN, by="test", reason="probe", ttl_ms=3_600_000)
    for key in ("first", "second"):
        here.order(key)
    out: list[int] = []
    place = ExchangeGateway.place_order

    def noted(self: ExchangeGateway, order: PinnedOrder) -> Outcome:
        out.append(breakers.read(job).probes_out)
        return place(self, order)

    monkeypatch.setattr(ExchangeGateway, "place_order", noted)
    permits = guard_names(here.installation.settings).circuit(job)[2]
    worker = Early(here, lambda: here.installation.redis.delete(permits))
    worker.work(burst=True)
    assert worker.begun[1].asked is not None
    assert out == [1, 1]


def dispatched_by_the_dead(here: System, key: str) -> None:
    """Have an order sent by a process that dies before it has heard the answer."""
    context = here.context("dead")

    def send_and_die(request: PinnedOrder) -> None:
        type(context.gateway).place_order(context.gateway, request)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(context.gateway, "place_order", send_and_die)
        with pytest.raises(KeyboardInterrupt):
            run_order(context, key)
    assert here.row(key).state.value == "DISPATCHED"


@pytest.mark.parametrize("asks", ["", "open usdm second"])
def test_order_in_doubt_that_is_begun_behind_another_is_reconciled_at_once(here: System, asks: str) -> None:
    """Also if its job still asks for the admission of an order that is to be sent."""
    here.order("zero")
    Early(here, lambda: None).work(burst=True)
    here.order("second")
    dispatched_by_the_dead(here, "second")
    redis, delivery = here.installation.redis, here.installation.delivery
    redis.delete("rq:queue:orders")
    here.order("first")
    again = parcel_of(here.row("second"))
    delivery.deliver([again], force=True)
    if asks:
        redis.hset(f"rq:job:{delivery.job_id(again)}", "asks", asks)
    worker = Early(here, lambda: None)
    worker.work(burst=True)
    assert [claim.key for claim in worker.begun] == ["first", "second"]
    assert (worker.begun[1].asked is not None) is bool(asks)
    assert here.row("second").state.value == "FILLED"


def test_gate_that_cannot_be_read_ends_no_worker(here: System) -> None:
    keys = [here.order(f"order-{number}") for number in range(4)]
    kill_key = here.installation.settings.guard.kill_switch_key
    worker = Early(here, lambda: here.installation.redis.hset(kill_key, "no", "string"))
    worker.work(burst=True)
    assert [claim.key for claim in worker.begun] == keys
    assert [here.row(key).state.value for key in keys[2:]] == ["RECEIVED"] * 2


def test_name_of_an_effect_that_is_no_text_ends_no_worker(here: System) -> None:
    here.order("first")
    redis = here.installation.redis
    Queue("orders", connection=redis, serializer=JSONSerializer).enqueue("os.system", "true", job_id="broken")
    redis.hset("rq:job:broken", "asks", b"open usdm \xff")
    here.order("last")
    worker = Early(here, lambda: None)
    worker.work(burst=True)
    assert [claim.job_id for claim in worker.begun][1] == "broken"
    assert here.row("last").state.value == "FILLED"


def test_order_that_a_stopping_worker_gives_back_is_held_by_nobody(here: System) -> None:
    for key in ("first", "second"):
        here.order(key)
    worker = Early(here, lambda: None)
    held: list[bytes | None] = []

    def stop() -> None:
        held.append(guard_of(here, "second"))
        raise StopRequested

    worker.between = stop
    worker.work(burst=True)
    assert held[0] is not None
    assert held[0].startswith(b"L:")
    assert guard_of(here, "second") is None
    assert here.installation.delivery.depth("orders") == 1


def test_job_of_a_wait_that_went_unanswered_is_begun_at_once(here: System, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer is lost after the job was begun: it waits in no queue, and nobody else would look for seconds."""
    lost = itertools.count()
    wait = Claims.wait

    def unanswered(self: Claims, wait_s: float, asking: Asking | None = None) -> Claim | None:
        claim = wait(self, wait_s, asking)
        if next(lost) == 0:
            raise RedisConnectionError("the answer is lost")
        return claim

    monkeypatch.setattr(Claims, "wait", unanswered)
    worker = SafetyWorker(["orders"], installation=here.installation)
    bringer = threading.Timer(0.5, here.order, ["alone"])
    bringer.start()
    worker.work(max_idle_time=1, burst=False)
    bringer.join()
    assert here.row("alone").state.value == "FILLED"


def test_job_that_was_moved_and_not_begun_is_begun_after_an_unanswered_wait(redis: Redis) -> None:
    delivery = delivery_of(redis)
    delivery.deliver([parcel("one")])
    redis.lmove("rq:queue:orders", "rq:queue:orders:intermediate", "LEFT", "RIGHT")
    claims = claims_on(redis, delivery)
    assert not claims.give_back()
    assert taken(claims.take_moved()).key == "one"


def test_job_that_rq_cannot_read_ends_no_worker(here: System) -> None:
    redis = here.installation.redis
    Queue("orders", connection=redis, serializer=JSONSerializer).enqueue("os.system", "true", job_id="broken")
    redis.hset("rq:job:broken", "created_at", "yesterday")
    here.order("behind")
    SafetyWorker(["orders"], installation=here.installation).work(burst=True)
    assert here.row("behind").state.value == "FILLED"
    assert here.installation.delivery.depth("orders") == 0
    queue = Queue("orders", connection=redis, serializer=JSONSerializer)
    assert StartedJobRegistry(queue=queue).get_job_ids(cleanup=False) == []
    assert redis.get(REFUSED_KEY) == b"1"


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
