"""A Redis that is there and of no use: full, or hanging. Exits go out all the same, and nothing is sent twice."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.exceptions import TimeoutError as RedisTimeoutError

from app.intents import parse_intent
from app.once_redis import PatientOnceRedis
from app.producer import Producer
from app.producer.terms import SWEEP_AFTER_MS
from app.wiring import connect_redis
from tests.support.nursery import Nursery
from tests.support.paper_process import PaperProcess
from tests.support.redis_server import RedisServer
from tests.support.system import System, system
from workers.sweeper import BATCH

WORKERS = 4
"""Processes that wait for jobs in a system as configured by default: urgent, two on orders, and one for the books."""


@pytest.fixture
def here(tmp_path: Path, redis_server: RedisServer, redis_url: str, nursery: Nursery) -> Iterator[System]:
    url = f"sqlite:///{tmp_path / 'journal.db'}"
    with (
        PaperProcess(tmp_path / "exchange", "--price", "BTCUSDT=20000") as exchange,
        system(tmp_path / "system", redis=redis_server, database_url=url, exchange=exchange, nursery=nursery) as one,
    ):
        yield one


def fill_up(here: System, memory: str) -> None:
    with here.redis.client() as client:
        client.config_set("maxmemory", memory)


def enter(here: System) -> None:
    here.order("entry", quantity="0.020")
    here.run("worker", "orders", "--burst")
    here.wait_for_state("entry", "FILLED")


def test_exit_goes_out_while_redis_is_full(here: System) -> None:
    enter(here)
    here.order("exit", side="SELL", reduce_only=True)
    assert here.installation.delivery.depth("urgent") == 1
    fill_up(here, "1")
    here.start("worker", "urgent")
    here.start("sweeper")
    row = here.wait_for_state("exit", "FILLED")
    assert row.attempt == 1
    assert here.installation.delivery.depth("urgent") == 1, "a worker took it: this proves nothing"
    fill_up(here, "0")
    here.start_all()
    here.wait_until_booked("entry", "exit")
    assert here.problems() == []


def test_exit_does_not_wait_behind_all_the_opens_that_wait_for_redis(here: System) -> None:
    enter(here)
    here.redis.kill()
    opens = [
        {"type": "order", "key": f"open-{n}", "symbol": "BTCUSDT", "side": "BUY", "quantity": "0.010"}
        for n in range(BATCH + 1)
    ]
    assert all(
        one.status == "accepted"
        for one in Producer.of(here.installation).submit_many([parse_intent(one) for one in opens])
    )
    here.order("exit", side="SELL", reduce_only=True)
    here.start("sweeper")
    here.wait_for_state("exit", "FILLED")
    assert here.row(f"open-{BATCH}").state == "RECEIVED"


def test_workers_wait_for_a_full_redis_instead_of_dying_over_and_over(here: System) -> None:
    fill_up(here, "1")
    supervisor = here.start("supervisor")
    here.order("waiting", valid_for_s=600)
    here.until(lambda: supervisor.words().count("waits_for_redis") == WORKERS, "every worker to say that it waits")
    fill_up(here, "0")
    here.wait_until_booked("waiting")
    assert "redis_is_back" in supervisor.words()
    assert "child_ended" not in supervisor.words()
    assert here.problems() == []


def test_workers_that_lose_redis_say_so_in_a_line_and_go_on_when_it_is_back(here: System) -> None:
    supervisor = here.start("supervisor")
    here.order("before")
    here.wait_until_booked("before")
    fill_up(here, "1")
    here.order("after", valid_for_s=600)
    here.until(lambda: "waits_for_redis" in supervisor.words(), "the worker that took it to die, and the next to wait")
    fill_up(here, "0")
    here.wait_until_booked("after")
    assert "store_went_away" in supervisor.words()
    assert "Traceback" not in supervisor.words()
    assert here.problems() == []


def test_exit_that_redis_does_not_take_is_due_at_once_and_an_open_is_not(here: System) -> None:
    here.redis.kill()
    here.order("exit", side="SELL", reduce_only=True)
    here.order("open")
    waits = {key: (row := here.row(key)).run_at_ms - row.created_at_ms for key in ("exit", "open")}  # type: ignore[operator]  # None would fail
    assert waits["exit"] < SWEEP_AFTER_MS == waits["open"]


def test_redis_that_hangs_is_waited_for_once_and_left_alone_for_as_long(
    redis_server: RedisServer, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter([100.0, 105.0, 109.9, 110.0])
    monkeypatch.setattr("app.once_redis.monotonic", lambda: next(times))
    with connect_redis(redis_url, timeout_s=0.2, kind=PatientOnceRedis) as client:
        redis_server.pause()
        with pytest.raises(RedisTimeoutError):
            client.ping()
        redis_server.resume()
        with pytest.raises(RedisTimeoutError, match="just left"):
            client.ping()
        assert client.ping()
