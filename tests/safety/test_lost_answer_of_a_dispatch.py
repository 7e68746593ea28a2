"""PostgreSQL has committed DISPATCHED, and its answer is lost: a commit that nobody has heard of is not won."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url

from app.composition import compose
from app.execution import dispatch
from app.execution.order import run_order
from app.job_safety.errors import StoreUnavailableError
from app.journal.engine import Journal
from tests.chaos.proxy import LossyProxy
from tests.support.nursery import Nursery
from tests.support.paper_process import PaperProcess
from tests.support.redis_server import RedisServer
from tests.support.system import System, system


@pytest.fixture
def here(
    tmp_path: Path, redis_server: RedisServer, redis_url: str, postgres_url: str, nursery: Nursery
) -> Iterator[System]:
    with (
        PaperProcess(tmp_path / "exchange", "--price", "BTCUSDT=20000") as exchange,
        system(
            tmp_path / "system", redis=redis_server, database_url=postgres_url, exchange=exchange, nursery=nursery
        ) as one,
    ):
        yield one


def test_order_whose_dispatch_was_committed_unheard_is_not_sent_by_it_and_sent_once_afterwards(
    here: System, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.order("first")
    assert here.run("worker", "orders", "--burst") == 0
    here.order("order", valid_for_s=600)
    id_ = here.row("order").client_order_id
    url = make_url(postgres_url)
    with LossyProxy(f"{url.query['host']}/.s.PGSQL.5432") as proxy:
        apart = url.set(host="127.0.0.1", port=proxy.port, query={}).render_as_string(hide_password=False)
        context = compose(replace(here.installation, journal=Journal(apart)), "deaf")
        heard = dispatch.counts_if_first

        def unheard(*arguments: Any) -> list[int] | None:
            proxy.lose_answers(1)
            return heard(*arguments)

        with monkeypatch.context() as deaf:
            deaf.setattr(dispatch, "counts_if_first", unheard)
            with pytest.raises(StoreUnavailableError):
                run_order(context, "order")
        assert proxy.lost == 1, "the answer must have been lost"
        context.record.close()
        context.journal.close()

    (unsent,) = here.attempts("order")
    assert (unsent.owner, unsent.outcome, unsent.settled_by) == ("deaf", "NOT_SENT", "own")
    assert here.exchange.orders_of(id_) == []

    here.start_all()
    here.wait_until_booked("order")
    assert here.row("order").attempt == 2
    assert len(here.exchange.orders_of(id_)) == 1
    assert here.problems() == []
