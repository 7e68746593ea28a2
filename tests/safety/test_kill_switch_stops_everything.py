"""Eight busy workers, and the kill switch thrown in every way: nothing is admitted after it, nothing leaves after it.

What left is counted at the exchange. Every request carries the time at which its worker decided to send it, and the
exchange notes when it took it.
"""

import contextlib
import time
from collections.abc import Callable, Iterator

import pytest

from app.intents import parse_intent
from app.job_safety.state import SENDABLE
from app.journal import attempts, intents
from app.producer import Producer
from tests.support.kill import KEY, WHO, kill_file, latched, latches, run_cli
from tests.support.nursery import Nursery, Process
from tests.support.paper_process import PaperProcess
from tests.support.postgres import Postgres
from tests.support.redis_server import RedisServer
from tests.support.system import CONFIG, System, system

WORKERS = 8
ORDERS = 300
BUSY = 12
"""So many orders have been sent when the switch is thrown."""

PROMISED_MS = 500
NOISE_MS = 2_500
"""What may lie between a socket and the exchange's own note of the time on a machine that is busy with other things."""

STRICT = CONFIG.replace("pin_to_send_limit_ms: 1500", "pin_to_send_limit_ms: 500")


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis")).start()
    yield server
    server.kill()


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def here(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, redis: RedisServer, nursery: Nursery
) -> Iterator[System]:
    folder = tmp_path_factory.mktemp(request.param)
    redis.renew()
    with contextlib.ExitStack() as stack:
        exchange = stack.enter_context(
            PaperProcess(folder / "exchange", "--price", "BTCUSDT=20000", "--deposit", "futures:USDT:1000000")
        )
        url = f"sqlite:///{folder / 'journal.db'}"
        if request.param == "postgres":
            postgres: Postgres = request.getfixturevalue("postgres_server")
            url = stack.enter_context(postgres.fresh_database())
        one = stack.enter_context(
            system(folder / "system", redis=redis, database_url=url, exchange=exchange, nursery=nursery, config=STRICT)
        )
        one.start("reconciler")
        one.start("sweeper")
        for _ in range(WORKERS):
            one.start("worker", "orders")
        yield one


def by_command(here: System) -> None:
    one = run_cli(here, "kill-switch", "on", *WHO)
    assert one.wait() == 0, one.tail()


def by_redis_cli(here: System) -> None:
    with here.redis.client() as client:
        client.set(KEY, "true")


def by_file(here: System) -> None:
    kill_file(here).parent.mkdir(exist_ok=True)
    kill_file(here).touch()


def off(here: System, source: str) -> None:
    """Let everything go on again, as a person does, for the next way to stop it."""
    if source == "redis_key":
        with here.redis.client() as client:
            client.set(KEY, "false")
        here.until(lambda: latched(here) == "RUN", "the latch to be released")
        return
    kill_file(here).unlink(missing_ok=True)

    def released() -> Process | None:
        # Refused for as long as anything is in doubt.
        one = run_cli(here, "kill-switch", "off", "--source", source, *WHO)
        return one if one.wait() == 0 else None

    here.until(released, "the switch to be released")


def enqueue(here: System, name: str, count: int) -> list[str]:
    keys = [f"{name}-{number}" for number in range(count)]
    orders = [
        parse_intent(
            {
                "type": "order",
                "key": key,
                "symbol": "BTCUSDT",
                "side": "BUY" if number % 2 else "SELL",
                "quantity": "0.010",
                "valid_for_s": 40,
            }
        )
        for number, key in enumerate(keys)
    ]
    assert all(answer.is_taken for answer in Producer.of(here.installation).submit_many(orders))
    return keys


def accepted(here: System, keys: list[str]) -> dict[str, int]:
    """Return when the exchange took each of these orders, in its own milliseconds."""
    with here.installation.journal.read() as connection:
        ids = {intents.load(connection, key).client_order_id: key for key in keys}
    found = [order for order in here.exchange.truth()["orders"] if order["client_order_id"] in ids]
    return {ids[order["client_order_id"]]: order["accepted_ms"] for order in found}


@pytest.mark.parametrize(
    ("throw", "source"),
    [
        pytest.param(by_command, "operator", id="command"),
        pytest.param(by_redis_cli, "redis_key", id="redis-cli"),
        pytest.param(by_file, "file", id="file"),
    ],
)
def test_nothing_leaves_once_the_switch_is_thrown(here: System, throw: Callable[[System], None], source: str) -> None:
    keys = enqueue(here, f"busy-{source}", ORDERS)
    here.until(lambda: len(accepted(here, keys)) >= BUSY, f"{BUSY} orders to be sent")
    throw(here)
    thrown_ms = time.time_ns() // 1_000_000

    def all_asked() -> bool:
        with here.installation.journal.read() as connection:
            rows = [intents.load(connection, key) for key in keys]
        return all(row.state not in SENDABLE or row.snoozes for row in rows)

    here.until(all_asked, "every order to have been sent or held back")
    with here.installation.journal.read() as connection:
        tries = [one for key in keys for one in attempts.of_intent(connection, key)]
    taken = accepted(here, keys)
    assert BUSY <= len(taken) < ORDERS, "the switch must be thrown in the midst of it"
    assert max(one.timestamp_ms for one in tries) <= thrown_ms, "decided to send after the switch was thrown"
    last_ms = max(taken.values())
    if source == "operator":
        assert last_ms <= thrown_ms, "the command returned before what was on the wire had settled"
    assert last_ms <= thrown_ms + PROMISED_MS + NOISE_MS
    here.until(lambda: latches(here) == {source: "HALT"}, "the latch to be in the journal")
    off(here, source)
    assert latches(here) == {}
