"""What the keeper watches, as the exporter shows it: the books against the exchange, and whether Redis is safe."""

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy import update

from app.execution.context import ExecutionContext
from app.journal import schema
from app.monitor.numbers import samples
from app.monitor.readings import read
from app.monitor.status import as_text, status
from tests.support.nursery import Nursery
from tests.support.paper_process import PaperProcess
from tests.support.redis_server import RedisServer
from tests.support.system import System, system
from workers import ledger_watch
from workers.redis_watch import RedisWatch


@pytest.fixture
def here(tmp_path: Path, redis_server: RedisServer, redis_url: str, nursery: Nursery) -> Iterator[System]:
    with (
        PaperProcess(tmp_path / "exchange", "--price", "BTCUSDT=20000") as exchange,
        system(
            tmp_path / "system", redis=redis_server, database_url=f"sqlite:///{tmp_path / 'journal.db'}",
            exchange=exchange, nursery=nursery,
        ) as one,
    ):  # fmt: skip
        yield one


@pytest.fixture
def context(here: System) -> ExecutionContext:
    return here.context("ledger-watch-of-the-test")


def shown(here: System) -> dict[str, float]:
    """Return what the exporter shows of the differences."""
    reading = read(here.installation, here.installation.redis, {})
    return {one.labels[0]: one.value for one in samples(reading) if one.metric.name == "ledger_recon_difference"}


def test_books_that_agree_show_zero_and_a_missing_amount_shows_itself(here: System, context: ExecutionContext) -> None:
    here.start_all()
    here.order("booked")
    here.wait_until_booked("booked")
    here.until(lambda: set(ledger_watch.compare(context).values()) == {Decimal(0)}, "the books to agree")
    assert shown(here) == {}, "nobody has looked yet"
    ledger_watch.look(context, here.installation.redis)
    assert shown(here)["USDT"] == 0

    break_the_books(here, Decimal("-0.00000001"))
    ledger_watch.look(context, here.installation.redis)
    assert shown(here)["USDT"] == pytest.approx(-1e-8)


def break_the_books(here: System, by: Decimal) -> None:
    balances = schema.ledger_balances
    row = (balances.c.account == "wallet:usdm") & (balances.c.asset == "USDT")
    with here.installation.journal.write() as connection:
        amount = connection.execute(balances.select().where(row)).mappings().one()["amount"]
        connection.execute(update(balances).where(row).values(amount=amount + by))


def test_a_closed_venue_is_not_asked(here: System, context: ExecutionContext) -> None:
    context.pause.close("usdm", for_ms=60_000, why="418:banned", whole_address=True)
    with pytest.raises(ledger_watch.VenueClosedError):
        ledger_watch.compare(context)
    ledger_watch.look(context, here.installation.redis)
    assert shown(here) == {}


def test_an_exchange_that_is_gone_is_told_and_waited_for(here: System, context: ExecutionContext) -> None:
    here.start("reconciler")
    here.until(lambda: ledger_watch.compare(context), "the venues to be opened")
    here.exchange.kill()
    ledger_watch.look(context, here.installation.redis)
    assert shown(here) == {}


def test_the_exporter_and_the_status_show_what_is_not_safe_about_redis(
    here: System, context: ExecutionContext, redis_server: RedisServer
) -> None:
    installation = here.installation
    watch = RedisWatch(installation.redis, installation.settings, installation.clock, context.record)

    def findings() -> dict[tuple[str, ...], float]:
        reading = read(installation, installation.redis, {})
        return {one.labels: one.value for one in samples(reading) if one.metric.name == "redis_safety_findings"}

    watch.look()
    assert ("eviction", "fail") not in findings()
    with redis_server.client() as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
    watch.look()
    assert findings()["eviction", "fail"] == 1
    told = status(read(installation, installation.redis, {}))
    assert told["redis_safety"]["level"] == "fail"
    assert "eviction: allkeys-lru: set maxmemory-policy noeviction" in as_text(told)
