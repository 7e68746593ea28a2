"""Several workers in one process: they are at several orders at once, and die, stop and wait as one."""

import json
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from sqlalchemy import update

from app.cli.demo.killer import Killer
from app.execution.parcels import parcel_of
from app.journal import schema
from app.journal.rows import AttemptRow
from app.settings import MOST_THREADS
from app.wiring import connect_redis
from tests.support.nursery import Nursery, Process
from tests.support.paper_process import PaperProcess
from tests.support.redis_server import RedisServer
from tests.support.system import CONFIG, System, system
from workers.room import Room
from workers.shared import ThreadWorker
from workers.supervisor import roles_of

SENDING = {"method": "POST", "path": "/fapi/v1/order"}
TWO = CONFIG.replace("threads: 1", "threads: 2")
SLOW = {"action": "delay_reply_ms", "ms": 2_500, "match": SENDING}


@pytest.fixture(params=["sqlite", "postgres"])
def here(
    request: pytest.FixtureRequest, tmp_path: Path, redis_server: RedisServer, redis_url: str, nursery: Nursery
) -> Iterator[System]:
    is_sqlite = request.param == "sqlite"
    url = f"sqlite:///{tmp_path / 'journal.db'}" if is_sqlite else request.getfixturevalue("postgres_url")
    with (
        PaperProcess(tmp_path / "exchange", "--price", "BTCUSDT=20000") as exchange,
        system(
            tmp_path / "system", redis=redis_server, database_url=url, exchange=exchange, nursery=nursery, config=TWO
        ) as one,
    ):
        yield one


def two_at_once(here: System, *keys: str) -> None:
    """Enqueue orders whose answers take long, and wait until all of them are on the wire."""
    here.exchange.faults(SLOW)
    for key in keys:
        here.order(key, valid_for_s=600)
    here.until(lambda: {here.row(key).state for key in keys} == {"DISPATCHED"}, "all orders to be on the wire at once")


def opened(here: System, *arguments: str) -> Process:
    """Start one process that works on orders with two threads, and let each of them place an order."""
    one = here.start("worker", "orders", "--threads", "2", *arguments)
    here.start("sweeper")
    here.order("first")
    here.wait_for_state("first", "FILLED")
    return one


def placed_once(here: System, *keys: str) -> None:
    """Wait until these orders are filled, in their first attempt and with one order at the exchange each."""
    for key in keys:
        row = here.wait_for_state(key, "FILLED")
        assert row.attempt == 1
        assert len(here.exchange.orders_of(row.client_order_id)) == 1


def died_of(here: System, key: str) -> None:
    """Have the journal hold that a worker has died of an order."""
    with here.installation.journal.write() as connection:
        connection.execute(update(schema.intents).where(schema.intents.c.key == key).values(rescues=1))


def beside(key: str, tries: Mapping[str, AttemptRow]) -> set[str]:
    """Return whose request was on the wire while that of `key` was."""
    of = tries[key]
    return {
        other
        for other, one in tries.items()
        if other != key
        and one.dispatched_at_ms < (of.settled_at_ms or 0)
        and of.dispatched_at_ms < (one.settled_at_ms or 0)
    }


def owners(here: System, *keys: str) -> set[str]:
    return {attempt.owner for key in keys for attempt in here.attempts(key)}


def blocked(here: System) -> int:
    """Return how many connections wait for a job of the queue."""
    with here.redis.client() as client:
        return sum(one["flags"] == "b" for one in client.client_list())


def test_one_process_is_at_two_orders_at_once(here: System) -> None:
    opened(here)
    two_at_once(here, "a", "b")
    placed_once(here, "a", "b")
    assert len(owners(here, "a", "b")) == 2, "each of its own name"


def test_order_that_was_refused_for_its_time_is_not_tried_again_by_a_clock_that_is_as_old(here: System) -> None:
    """Each thread, as each process, has measured the exchange's clock by itself, and any of them may try again."""
    here.start("worker", "orders", "--threads", "4")
    here.start("sweeper")
    here.order("first")
    here.wait_for_state("first", "FILLED")
    here.exchange.faults({**SLOW, "ms": 700})
    known = [f"known-{number}" for number in range(8)]
    for key in known:
        here.order(key, valid_for_s=600)
    placed_once(here, *known)
    assert len(owners(here, *known)) == 4, "each has measured the clock"
    here.exchange.faults()

    here.exchange.control("POST", "clock", {"offset_ms": -5_000})
    late = [f"late-{number}" for number in range(3)]
    for key in late:
        here.order(key, valid_for_s=600)
        row = here.wait_for_state(key, "FILLED")
        assert row.attempt <= 2, "whoever tries again has measured the clock anew"
    assert any(here.row(key).attempt == 2 for key in late), "the clock must have been off for somebody"


def test_process_that_dies_with_two_orders_on_the_wire_has_both_rescued_and_placed_once(here: System) -> None:
    supervisor = here.start("supervisor", "--workers", "urgent=1,orders=1")
    here.order("first")
    here.wait_until_booked("first")
    two_at_once(here, "a", "b")
    here.until_taken("a", "b")
    killer = Killer(journal=here.installation.journal, redis=here.installation.redis)
    here.until(killer.strike, "the process to be struck")
    struck = owners(here, "a", "b")
    here.exchange.faults()
    here.wait_until_booked("a", "b")
    placed_once(here, "a", "b")
    assert len(struck) == 2
    rescued = [line for line in supervisor.words().splitlines() if '"event": "rescued"' in line]
    assert len(rescued) == 2, "each by its name, at once: no lease had to run out"
    assert here.problems() == []


def test_order_that_kills_every_process_takes_no_other_with_it(here: System) -> None:
    supervisor = here.nursery.start(
        "tests.support.poison", ["--workers", "urgent=1,orders=1"], environment=here.environment, folder=here.folder,
        name="supervisor-of-poison",
    )  # fmt: skip
    here.processes.append(supervisor)
    here.order("first")
    here.wait_until_booked("first")
    others = [f"slow-{number}" for number in range(4)]
    for key in (*others[:2], "poison", *others[2:]):
        here.order(key, valid_for_s=600)
    here.wait_for_state("poison", "QUARANTINED")

    # One may have been about to be sent when the process died for the first time: that took a second attempt.
    for key in others:
        row = here.wait_for_state(key, "FILLED")
        assert len(here.exchange.orders_of(row.client_order_id)) == 1
    assert "poison" in (here.row("poison").reason or "")
    died = [json.loads(line) for line in supervisor.words().splitlines() if '"event": "rescued"' in line]
    assert {one["key"] for one in died} > {"poison"}, "no other order was beside it when a process died"


def test_order_that_a_worker_has_died_of_is_worked_on_alone(here: System) -> None:
    one = opened(here)
    one.terminate()
    assert one.wait() == 0
    here.exchange.faults({**SLOW, "ms": 700})
    keys = ("a", "suspect", "b", "c")
    for key in keys:
        here.order(key, valid_for_s=600)
    died_of(here, "suspect")

    here.start("worker", "orders", "--threads", "2")
    placed_once(here, *keys)

    tries = {key: here.attempts(key)[0] for key in keys}
    assert beside("suspect", tries) == set()
    assert beside("b", tries) == {"c"}, "those that nobody died of are worked on side by side"
    assert here.row("suspect").rescues == 0, "it has come on"


def test_thread_that_was_waiting_gives_back_what_it_gets_while_another_is_alone(here: System) -> None:
    one = opened(here)
    one.terminate()
    assert one.wait() == 0
    here.exchange.faults(SLOW)
    here.order("suspect", valid_for_s=600)
    died_of(here, "suspect")
    here.start("worker", "orders", "--threads", "2")
    here.wait_for_state("suspect", "DISPATCHED")
    here.until(lambda: blocked(here) == 1, "the other thread to wait for an order")

    here.order("late", valid_for_s=600)
    placed_once(here, "suspect", "late")

    assert beside("late", {key: here.attempts(key)[0] for key in ("suspect", "late")}) == set()
    assert here.row("late").rescues == 0


def test_thread_that_ends_before_its_turn_to_be_alone_keeps_nobody_out(
    here: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a burst nobody is told to stop when one thread breaks: the others would wait outside for ever."""
    here.order("suspect")
    died_of(here, "suspect")
    room = Room()
    redis = connect_redis(here.installation.redis_url, timeout_s=30)
    worker = ThreadWorker(["orders"], name="one", connection=redis, installation=here.installation)
    worker.turn, worker.room = threading.Lock(), room

    def give_back() -> bool:
        raise RedisConnectionError("it has just gone away")

    monkeypatch.setattr(worker._claims, "give_back", give_back)
    assert room.enter("another")
    worker.work(burst=True)
    room.leave("another")
    assert room.enter("another")


def test_of_an_idle_process_one_thread_waits_and_hands_the_waiting_over_with_a_job(here: System) -> None:
    opened(here)
    here.until(lambda: blocked(here) == 1, "one thread to wait")
    here.exchange.faults(SLOW)
    here.order("slow", valid_for_s=600)
    here.wait_for_state("slow", "DISPATCHED")
    here.until(lambda: blocked(here) == 1, "the other to wait instead")
    seen = set()

    def is_done() -> bool:
        seen.add(blocked(here))
        return here.row("slow").state == "FILLED" and blocked(here) == 1

    here.until(is_done, "the order to be placed, and one to wait again")
    assert max(seen) == 1, "never both"


def test_process_that_is_told_to_stop_finishes_what_all_its_threads_are_at(here: System) -> None:
    one = opened(here)
    two_at_once(here, "a", "b")
    one.terminate()
    assert one.wait() == 0
    assert {here.row(key).state for key in ("a", "b")} == {"FILLED"}
    redis = here.installation.redis
    assert not redis.smembers("rq:workers"), "all have taken leave"


def test_burst_works_the_queue_off_with_all_threads_and_ends(here: System) -> None:
    keys = [f"order-{number}" for number in range(12)]
    here.order("first")
    assert here.run("worker", "orders", "--burst") == 0
    for key in keys:
        here.order(key)
    assert here.run("worker", "orders", "--threads", "3", "--burst") == 0
    assert {here.row(key).state for key in keys} == {"FILLED"}


def test_same_job_twice_in_one_process_places_one_order(here: System) -> None:
    """What keeps two processes apart keeps two threads apart."""
    opened(here)
    here.exchange.faults(SLOW)
    here.order("twice", valid_for_s=600)
    here.wait_for_state("twice", "DISPATCHED")
    redis = here.installation.redis
    redis.rpush("rq:queue:orders", here.installation.delivery.job_id(parcel_of(here.row("twice"))))
    here.until(lambda: not redis.llen("rq:queue:orders"), "the other thread to take it")
    placed_once(here, "twice")


# Who is started, and under which names


@pytest.mark.parametrize(("threads", "names"), [(1, ["p"]), (3, ["p-1", "p-2", "p-3"])])
def test_supervisor_rescues_under_every_name_that_a_process_works_under(threads: int, names: list[str]) -> None:
    roles = {role.label: role for role in roles_of({"urgent": 1, "orders": 1, "ledger": 2}, threads=threads)}
    assert roles["orders-1"].owners("p") == names
    assert roles["urgent-1"].owners("p") == names
    assert roles["ledger-2"].owners("p") == ["p"], "book work is not the exchange's to slow down"


def test_number_of_threads_that_is_none_is_refused(tmp_path: Path, nursery: Nursery) -> None:
    assert MOST_THREADS == 16
    for number in ("0", "17", "two"):
        one = nursery.start(
            "app.cli.main", ["worker", "orders", "--threads", number], environment={"PATH": os.environ["PATH"]},
            folder=tmp_path, name=f"threads-{number}",
        )  # fmt: skip
        assert one.wait() == 2
        assert "--threads" in one.words()
