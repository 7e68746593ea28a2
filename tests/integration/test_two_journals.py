"""Two journals on one Redis would take each other's keys: the second one is refused, and says why."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.nursery import Nursery
from tests.support.paper_process import PaperProcess
from tests.support.redis_server import RedisServer
from tests.support.system import System, system


@pytest.fixture
def both(
    tmp_path: Path, redis_server: RedisServer, redis_url: str, nursery: Nursery
) -> Iterator[tuple[System, System]]:
    """Two installations of the same account label and mode, each with its own journal, on one Redis."""
    with ExitStack() as stack:

        def one(name: str) -> System:
            exchange = stack.enter_context(PaperProcess(tmp_path / f"{name}-exchange", "--price", "BTCUSDT=20000"))
            url = f"sqlite:///{tmp_path / name}.db"
            return stack.enter_context(
                system(tmp_path / name, redis=redis_server, database_url=url, exchange=exchange, nursery=nursery)
            )

        yield one("first"), one("second")


def test_second_journal_on_a_redis_delivers_nothing_and_takes_nothing(both: tuple[System, System]) -> None:
    first, second = both
    workers = first.start_all()
    first.order("mine")
    first.wait_until_booked("mine")
    answer = second.submit({"type": "order", "key": "theirs", "symbol": "BTCUSDT", "side": "BUY", "quantity": "0.010"})
    assert (answer.status, answer.delivered) == ("accepted", False)
    assert "another journal's" in (answer.error or "")
    assert "redis://127.0.0.1:6379/1" in (answer.error or "")
    assert second.run("worker", "orders", "--burst") != 0
    assert "another journal's" in second.processes[-1].words()
    assert second.run("sweeper", "--once") == 3
    assert second.row("theirs").rescues == 0
    first.order("again")
    first.wait_until_booked("again")
    assert not any("job_failed" in worker.words() for worker in workers)
    assert second.exchange.truth()["orders"] == []
    assert first.problems() == []


def test_second_journal_goes_on_by_itself_when_the_first_is_gone(both: tuple[System, System]) -> None:
    first, second = both
    first.start_all()
    first.order("mine")
    first.wait_until_booked("mine")
    supervisor = second.start("supervisor")
    second.order("theirs", valid_for_s=600)
    second.until(lambda: "another journal's" in supervisor.words(), "a worker to say why it waits")
    assert second.row("theirs").state == "RECEIVED"
    first.close()
    second.wait_until_booked("theirs")
    assert second.problems() == []
