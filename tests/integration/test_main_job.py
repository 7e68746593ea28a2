"""The main job, end to end: from an intent to an order at the exchange to exact books."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.nursery import Nursery
from tests.support.paper_process import PaperProcess
from tests.support.redis_server import RedisServer
from tests.support.system import System, system


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    one = Nursery()
    yield one
    one.close()


@pytest.fixture
def exchange(tmp_path: Path) -> Iterator[PaperProcess]:
    one = PaperProcess(tmp_path / "exchange", "--price", "BTCUSDT=20000", "--price", "ETHUSDT=1000").start()
    yield one
    one.stop()


@pytest.fixture
def here(
    tmp_path: Path, redis_server: RedisServer, redis_url: str, database_url: str, exchange: PaperProcess, nursery: Nursery
) -> Iterator[System]:
    with system(
        tmp_path / "system", redis=redis_server, database_url=database_url, exchange=exchange, nursery=nursery
    ) as one:
        yield one


def test_market_order_is_filled_and_booked(here: System) -> None:
    here.start_all()
    here.order("a")
    (row,) = here.wait_until_booked("a")
    assert row.state == "FILLED"
    import time; time.sleep(1.5)
    for p in here.processes: print(p.tail())
    for k in here.installation.redis.keys('rq:job:*'): print(k, here.installation.redis.hmget(k,'status','description','started_at','ended_at'))
    for k in here.installation.redis.keys('*'): print(k)
    for k in here.installation.redis.keys('rq:results:*'): print(k, here.installation.redis.xrange(k))
    from sqlalchemy import select
    from app.journal import schema
    with here.installation.journal.read() as c:
        t0=c.execute(select(schema.intents.c.created_at_ms, schema.intents.c.finished_at_ms, schema.intents.c.booked_at_ms)).first()
        print('intent', t0, t0[1]-t0[0], t0[2]-t0[0])
        for r in c.execute(select(schema.followups)).mappings():
            print(r['kind'], r['created_at_ms']-t0[0], r['run_at_ms']-t0[0], (r['done_at_ms'] or 0)-t0[0], r['tries'], r['last_error'])
    assert here.problems() == []
