"""Two machines work for one account; one is cut off in the middle of a request, and comes back."""

import contextlib
import itertools
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from sqlalchemy import Row, select

from app.job_safety.state import TERMINAL_STATES
from app.journal import schema
from tests.chaos.checkers import check
from tests.chaos.hosts import Host
from tests.chaos.plans import Place
from tests.chaos.workload import Wish, market
from tests.support.paper_process import PaperProcess
from tests.support.postgres import Postgres
from tests.support.redis_server import free_port
from tests.support.system import CONFIG, System, system

pytestmark = pytest.mark.timeout(900)

A = schema.attempts.c
SUPERVISE = "import sys; from tests.chaos import supervised; sys.exit(supervised.main())"
ANSWER_AFTER_MS = 700
"""The exchange executes at once and answers so much later: whoever is cut off meanwhile never hears of it."""


@pytest.fixture
def here(place: Place, postgres_server: Postgres, tmp_path: Path) -> Iterator[System]:
    """Stores and exchange, on the machine in the middle."""
    place.redis.renew()
    with contextlib.ExitStack() as stack:
        exchange = stack.enter_context(
            PaperProcess(tmp_path / "exchange", "--price", "BTCUSDT=20000", "--deposit", "futures:USDT:1000000")
        )
        url = stack.enter_context(postgres_server.fresh_database())
        yield stack.enter_context(
            system(
                tmp_path / "system", redis=place.redis, database_url=url, exchange=exchange, nursery=place.nursery,
                config=CONFIG,
            )
        )  # fmt: skip


@contextlib.contextmanager
def machines(here: System, folder: Path, *names: str) -> Iterator[list[Host]]:
    """Yield machines with a supervisor each, that reach stores and exchange over links of their own."""
    ports = {name: free_port() for name in ("redis", "database", "exchange")}
    database = urlsplit(here.environment["DATABASE_URL"])
    socket_folder = parse_qs(database.query)["host"][0]
    (socket,) = Path(socket_folder).glob(".s.PGSQL.*[0-9]")
    services = {
        ports["redis"]: f"127.0.0.1:{here.redis.port}",
        ports["database"]: str(socket),
        ports["exchange"]: f"127.0.0.1:{urlsplit(here.exchange.url).port}",
    }
    environment = {
        **here.environment,
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "REDIS_URL": f"redis://127.0.0.1:{ports['redis']}/0",
        "DATABASE_URL": f"postgresql+psycopg://postgres@127.0.0.1:{ports['database']}{database.path}",
        "BINANCE_FUTURES_URL": f"http://127.0.0.1:{ports['exchange']}/fapi",
        "BINANCE_SPOT_URL": f"http://127.0.0.1:{ports['exchange']}/api",
    }
    with contextlib.ExitStack() as stack:
        found = []
        for number, name in enumerate(names, start=1):
            host = stack.enter_context(Host(name=name, number=number, services=services, folder=folder))
            host.run([sys.executable, "-c", SUPERVISE, "--workers", "urgent=1,orders=2"], environment, "supervisor")
            found.append(host)
        yield found


def dispatched_by(here: System, name: str) -> dict[tuple[str, int], Row[Any]]:
    """Return the attempts that a machine has dispatched, by key and number."""
    query = select(A.key, A.attempt, A.outcome, A.settled_by).where(A.owner.like(f"{name}-%"))
    with here.installation.journal.read() as connection:
        return {(row.key, row.attempt): row for row in connection.execute(query)}


def on_the_wire(here: System, name: str) -> set[tuple[str, int]]:
    """Return those of them of which nobody knows yet what became."""
    return {which for which, row in dispatched_by(here, name).items() if row.outcome is None}


def submit(here: System, wishes: dict[str, Wish], numbers: "itertools.count[int]", count: int) -> list[str]:
    new = [market(f"order-{next(numbers):03d}", side="BUY" if n % 2 else "SELL") for n in range(count)]
    for wish in new:
        wishes[here.enqueue(dict(wish.intent))] = wish
    return [wish.key for wish in new]


def test_machine_that_is_cut_off_in_the_middle_of_a_request_costs_no_order_and_doubles_none(
    here: System, tmp_path: Path
) -> None:
    assert shutil.which("ip"), "this needs iproute2, and the rights to make network namespaces"
    wishes: dict[str, Wish] = {}
    numbers = itertools.count()
    here.exchange.faults(
        {"action": "delay_reply_ms", "ms": ANSWER_AFTER_MS, "match": {"method": "POST", "path": "/*/order"}}
    )
    with machines(here, tmp_path, "machine-a", "machine-b") as (first, _):
        submit(here, wishes, numbers, 8)
        for name in ("machine-a", "machine-b"):
            here.until(lambda name=name: dispatched_by(here, name), f"{name} to work", timeout_s=120)  # type: ignore[misc]  # bound now
        submit(here, wishes, numbers, 20)
        here.until(lambda: on_the_wire(here, "machine-a"), "machine-a to wait for an answer")
        first.cut()
        stranded, before = on_the_wire(here, "machine-a"), dispatched_by(here, "machine-a")
        assert stranded, "nothing was on the wire when it was cut off"

        submit(here, wishes, numbers, 10)
        here.wait_until_booked(*wishes, timeout_s=180)
        after = dispatched_by(here, "machine-a")
        assert set(after) == set(before), "it dispatched something while it was cut off"
        unheard = [which for which in stranded if after[which].settled_by != "dispatch"]
        assert unheard, "it heard every answer: it was not cut off"

        first.join()

        def works_again() -> bool:
            if all(here.row(key).state in TERMINAL_STATES for key in list(wishes)[-4:]):
                submit(here, wishes, numbers, 4)
            return len(dispatched_by(here, "machine-a")) > len(before)

        here.until(works_again, "machine-a to work again", timeout_s=240)
        here.wait_until_booked(*wishes, timeout_s=180)
        assert here.problems() == []
        findings = check(here, wishes)
    assert not findings, str(findings)
