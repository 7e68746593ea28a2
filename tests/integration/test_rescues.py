"""A killed worker under a real supervisor: the keeper rescues its order, or else a process of its own does."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.cli.demo.killer import Killer
from app.execution.parcels import parcel_of
from tests.support.nursery import Nursery, Process
from tests.support.paper_process import PaperProcess
from tests.support.redis_server import RedisServer
from tests.support.system import System, system
from workers.rescue import rescue

SENDING = {"method": "POST", "path": "/fapi/v1/order"}
TRIES = 5
"""A keeper that has only just started may not listen yet."""


@pytest.fixture
def here(tmp_path: Path, redis_server: RedisServer, redis_url: str, nursery: Nursery) -> Iterator[System]:
    url = f"sqlite:///{tmp_path / 'journal.db'}"
    with (
        PaperProcess(tmp_path / "exchange", "--price", "BTCUSDT=20000") as exchange,
        system(tmp_path / "system", redis=redis_server, database_url=url, exchange=exchange, nursery=nursery) as one,
    ):
        yield one


def told(supervisor: Process, event: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in supervisor.words().splitlines() if line.startswith("{")]
    return [line for line in lines if line.get("event") == event]


def opened(here: System) -> Process:
    """Start everything, trade once, and let every answer to an order take long from then on."""
    supervisor = here.start("supervisor", "--workers", "urgent=1,orders=1")
    here.order("warm")
    here.wait_until_booked("warm")
    here.exchange.faults({"action": "delay_reply_ms", "ms": 3_000, "match": SENDING})
    return supervisor


def stop(here: System, pid: int) -> None:
    """Let a process stand still, at a moment when it does not keep others from the journal."""
    with here.installation.journal.write():
        os.kill(pid, signal.SIGSTOP)
        here.until(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T", "it to stand")


def kill_over(here: System, supervisor: Process, key: str) -> str:
    """Kill the worker that has the order `key` on the wire; return who has rescued it."""
    here.order(key, valid_for_s=600)
    here.until_taken(key)
    killer = Killer(journal=here.installation.journal, redis=here.installation.redis)
    here.until(killer.strike, "an order on the wire, and its worker to be struck")

    def rescuer() -> str | None:
        return next((line["owner"] for line in told(supervisor, "rescued") if line["key"] == key), None)

    return here.until(rescuer, "somebody to rescue the order")


def settle(here: System, *keys: str) -> None:
    here.exchange.faults()
    for row in here.wait_until_booked(*keys):
        assert (row.state, row.attempt) == ("FILLED", 1)
        assert len(here.exchange.orders_of(row.client_order_id)) == 1
    assert here.problems() == []


def test_order_of_a_killed_worker_is_rescued_by_the_keeper_and_placed_once(here: System) -> None:
    supervisor = opened(here)
    keys: list[str] = []
    for number in range(TRIES):
        keys.append(f"order-{number}")
        if "-keeper-" in kill_over(here, supervisor, keys[-1]):
            break
    else:
        pytest.fail("the keeper never did")
    settle(here, *keys)


def test_process_of_its_own_rescues_while_the_keeper_stands_still(here: System) -> None:
    supervisor = opened(here)
    (keeper,) = [line["pid"] for line in told(supervisor, "child_started") if line["role"] == "keeper-1"]
    stop(here, keeper)
    try:
        rescuer = kill_over(here, supervisor, "order")
    finally:
        os.kill(keeper, signal.SIGCONT)
    assert rescuer == "rescue"
    settle(here, "order")


def test_two_rescues_of_one_death_count_it_once(here: System) -> None:
    """The supervisor does not wait for a slow keeper, so both may be at it."""
    here.exchange.faults({"action": "delay_reply_ms", "ms": 3_000, "match": SENDING})
    here.start("worker", "orders")
    here.order("order", valid_for_s=600)
    here.until_taken("order")
    redis = here.installation.redis
    killer = Killer(journal=here.installation.journal, redis=redis)
    here.until(killer.strike, "an order on the wire, and its worker to be struck")
    (dead,) = killer.dead
    assert rescue(here.installation, dead) == ["order"]
    # As the second sees it that has looked before the first had delivered it.
    job = f"rq:job:{here.installation.delivery.job_id(parcel_of(here.row('order')))}"
    redis.hset(job, mapping={"status": "started", "worker_name": dead})
    assert rescue(here.installation, dead) == ["order"]
    assert here.row("order").rescues == 1
    here.start_all()
    settle(here, "order")
