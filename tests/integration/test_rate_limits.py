"""The exchange's limits on the real path: twenty workers at once, small limits, and never a ban."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.clock import SystemClock
from app.exchange.errors import ExchangeQueryError
from app.exchange.gateway import ExchangeGateway
from app.exchange.weights import weight_of
from app.execution.limits import learn, weight_per_minute
from app.execution.order import run_order
from app.job_safety.outcome import Venue
from app.job_safety.rate_limit import Limit
from app.job_safety.state import IntentState
from app.wiring import make_gateway
from tests.support.nursery import Nursery
from tests.support.paper_process import PaperProcess
from tests.support.redis_server import RedisServer
from tests.support.system import System, system

Opener = Callable[..., System]


@pytest.fixture
def opener(tmp_path: Path, redis_server: RedisServer, redis_url: str, nursery: Nursery) -> Iterator[Opener]:
    opened = []

    def open_one(limits: str) -> System:
        exchange = PaperProcess(tmp_path / "exchange", "--price", "BTCUSDT=20000", "--limits", limits)
        url = f"sqlite:///{tmp_path / 'journal.db'}"
        manager = system(
            tmp_path / "system", redis=redis_server, database_url=url, exchange=exchange.start(), nursery=nursery
        )
        opened.append((manager, exchange))
        # The processes are told the address that the exchange has by now.
        return manager.__enter__()

    yield open_one
    for manager, exchange in opened:
        manager.__exit__(None, None, None)
        exchange.stop()


def refusals(here: System) -> dict[str, dict[str, int]]:
    told: dict[str, dict[str, int]] = here.exchange.control("GET", "limits")
    return told


def test_storm_of_twenty_workers_on_small_limits_earns_no_ban_and_finishes_every_order(opener: Opener) -> None:
    """A single request above the limit would be a ban here: nothing is answered 429 first."""
    here = opener("weight=600,orders_10s=12,orders_1m=60,ban_after=0")
    keys = [here.order(f"storm-{number:02d}") for number in range(36)]
    for _ in range(20):
        here.start("worker", "orders")
    for queue in ("positions", "ledger", "pnl", "urgent"):
        here.start("worker", queue)
    here.start("sweeper")
    here.start("reconciler")
    rows = here.wait_until_booked(*keys, timeout_s=170)
    assert {row.state for row in rows} == {IntentState.FILLED}
    assert sum(row.snoozes for row in rows) > 0  # the gate was met, or the test has shown nothing
    assert refusals(here) == {"futures": {"429": 0, "418": 0}, "spot": {"429": 0, "418": 0}}
    assert here.problems() == []


def test_limits_are_read_from_the_exchange_and_shared(opener: Opener) -> None:
    here = opener("weight=321,orders_10s=7")
    context = here.context("one")
    assert weight_per_minute(context, Venue.USDM) == 2_400
    here.order("first")
    run_order(context, "first")
    second = here.context("two")
    assert weight_per_minute(second, Venue.USDM) == 321
    assert second.rate.limits(Venue.USDM) == (
        Limit(kind="weight", window_ms=60_000, most=321),
        Limit(kind="orders", window_ms=10_000, most=7),
        Limit(kind="orders", window_ms=60_000, most=1_200),
    )
    learn(second, Venue.SPOT)
    assert weight_per_minute(context, Venue.SPOT) == 321


def test_question_that_would_break_a_limit_is_not_asked(opener: Opener) -> None:
    here = opener("weight=100,ban_after=0")
    context = here.context("one")
    learn(context, Venue.USDM)
    for _ in range(3):
        context.gateway.income(context.clock.now_ms() - 1_000)
    with pytest.raises(ExchangeQueryError, match="held_back"):
        context.gateway.income(context.clock.now_ms() - 1_000)
    assert refusals(here)["futures"] == {"429": 0, "418": 0}


def test_ban_stops_questions_of_every_process_until_it_is_over(opener: Opener) -> None:
    here = opener("wide")
    here.exchange.faults({"action": "reply_instead", "canned": "banned_418", "match": {"path": "/fapi/v1/userTrades"}})
    first, second = here.context("one"), here.context("two")
    with pytest.raises(ExchangeQueryError):
        first.gateway.newest_trades(Venue.USDM, "BTCUSDT")
    here.exchange.faults()
    for ask in (second.gateway.server_time, first.gateway.server_time, second.gateway.balances):
        with pytest.raises(ExchangeQueryError, match="held_back"):
            ask(Venue.USDM)
    second.gateway.server_time(Venue.SPOT)
    left_ms = first.pause.remaining_ms("usdm")
    assert 60_000 < left_ms <= 121_000


def test_each_question_costs_what_the_table_says(opener: Opener) -> None:
    """The local exchange charges Binance's documented weights; its headers tell."""
    here = opener("wide")
    gateway = make_gateway(here.installation.settings, SystemClock())
    wait_for_quiet_minute(gateway)
    spent: list[tuple[Venue, str, int, int]] = []
    used = dict.fromkeys(Venue, 0)
    for venue in Venue:
        gateway.server_time(venue)
        used[venue] = gateway.limits_seen[venue].used_weight["1M"]
    asked: list[int] = []

    def count(venue: Venue, endpoint: str, parameters: object) -> None:
        asked.append(weight_of(venue, endpoint, parameters))  # type: ignore[arg-type]

    gateway.before_query = count  # type: ignore[assignment]
    now_ms = SystemClock().now_ms()
    questions: list[tuple[Venue, str, Callable[[], object]]] = []
    for venue in Venue:
        questions += [
            (venue, "time", lambda venue=venue: gateway.server_time(venue)),
            (venue, "info", lambda venue=venue: gateway.exchange_info(venue)),
            (venue, "price", lambda venue=venue: gateway.price(venue, "BTCUSDT")),
            (venue, "order", lambda venue=venue: gateway.get_order(venue, "BTCUSDT", order_id=1)),
            (venue, "open", lambda venue=venue: gateway.open_orders(venue, "BTCUSDT")),
            (venue, "open of all", lambda venue=venue: gateway.open_orders(venue)),
            (venue, "all", lambda venue=venue: gateway.all_orders(venue, "BTCUSDT", now_ms)),
            (venue, "newest trades", lambda venue=venue: gateway.newest_trades(venue, "BTCUSDT")),
            (venue, "trades of order", lambda venue=venue: gateway.trades_of_order(venue, "BTCUSDT", 1)),
            (venue, "balances", lambda venue=venue: gateway.balances(venue)),
        ]
    algo = {"is_algo": True}
    questions += [
        (Venue.USDM, "positions", gateway.positions),
        (Venue.USDM, "income", lambda: gateway.income(now_ms)),
        (Venue.USDM, "algo order", lambda: gateway.get_order(Venue.USDM, "BTCUSDT", order_id=1, **algo)),
        (Venue.USDM, "open algo", lambda: gateway.open_orders(Venue.USDM, "BTCUSDT", **algo)),
        (Venue.USDM, "all algo", lambda: gateway.all_orders(Venue.USDM, "BTCUSDT", now_ms, **algo)),
    ]
    for venue, name, ask in questions:
        asked.clear()
        ask()
        now_used = gateway.limits_seen[venue].used_weight["1M"]
        spent.append((venue, name, now_used - used[venue], sum(asked)))
        used[venue] = now_used
    assert [one for one in spent if one[2] != one[3]] == []


def wait_for_quiet_minute(gateway: ExchangeGateway) -> None:
    """Have no window of the exchange end inside a short test."""
    while gateway.server_time(Venue.USDM).server_time_ms % 60_000 > 45_000:
        time.sleep(0.1)
