"""The main job, end to end: from an intent to an order at the exchange to exact books. Every process is a real one."""

import contextlib
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from app.clock import SystemClock
from app.exchange.gateway import ExchangeGateway
from app.exchange.models import PinnedOrder
from app.intents import IntentError
from app.job_safety.keys import client_order_id
from app.job_safety.outcome import Accepted, Venue
from app.journal import meta
from app.journal.rows import IntentRow
from app.wiring import make_gateway
from tests.support.nursery import Nursery
from tests.support.paper_process import PaperProcess
from tests.support.postgres import Postgres
from tests.support.redis_server import RedisServer
from tests.support.system import System, system

KILL_KEY = "quantum:global:kill_switch"
DEPOSITS = ("futures:USDT:100000", "spot:USDT:100000", "spot:BNB:10")
Opener = Callable[..., System]


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis")).start()
    yield server
    server.kill()


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def here(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, redis: RedisServer, nursery: Nursery
) -> Iterator[System]:
    """One installation with all its workers, for tests that use keys of their own."""
    folder = tmp_path_factory.mktemp("main")
    redis.renew()
    with contextlib.ExitStack() as stack:
        exchange = stack.enter_context(new_exchange(folder))
        url = f"sqlite:///{folder / 'journal.db'}"
        if request.param == "postgres":
            postgres: Postgres = request.getfixturevalue("postgres_server")
            url = stack.enter_context(postgres.fresh_database())
        one = stack.enter_context(
            system(folder / "system", redis=redis, database_url=url, exchange=exchange, nursery=nursery)
        )
        one.start_all()
        yield one


@pytest.fixture
def opened(tmp_path: Path, redis_server: RedisServer, redis_url: str, nursery: Nursery) -> Iterator[Opener]:
    """Open an installation of one's own, on an exchange of one's own, with SQLite and without any process yet."""
    with contextlib.ExitStack() as stack:
        exchange = stack.enter_context(new_exchange(tmp_path))
        url = f"sqlite:///{tmp_path / 'journal.db'}"

        def open_one(**environment: str) -> System:
            folder = tmp_path / "system"
            return stack.enter_context(
                system(folder, redis=redis_server, database_url=url, exchange=exchange, nursery=nursery, **environment)
            )

        yield open_one


def new_exchange(folder: Path) -> PaperProcess:
    deposits = [word for deposit in DEPOSITS for word in ("--deposit", deposit)]
    return PaperProcess(folder / "exchange", "--price", "BTCUSDT=20000", "--price", "ETHUSDT=1000", *deposits)


@pytest.fixture(autouse=True)
def _calm(request: pytest.FixtureRequest) -> None:
    """Every test finds the same prices, a deep market and no faults."""
    if "here" in request.fixturenames:
        calm(request.getfixturevalue("here").exchange)


def calm(exchange: PaperProcess) -> None:
    exchange.faults()
    exchange.control("POST", "market", {"level_notional": "250000", "spot_fee_in_bnb": False})
    exchange.price("BTCUSDT", "20000")
    exchange.price("ETHUSDT", "1000")


def limit(price: str, **changes: Any) -> dict[str, Any]:
    return {"order_type": "LIMIT", "price": price, **changes}


def stranger(here: System, **changes: Any) -> int:
    """Trade on the account behind our back; return the order id."""
    gateway = make_gateway(here.installation.settings, SystemClock())
    order: dict[str, Any] = {
        "venue": Venue.USDM,
        "symbol": "BTCUSDT",
        "side": "BUY",
        "order_type": "MARKET",
        "quantity": Decimal("0.020"),
        "client_order_id": "stranger",
        "timestamp_ms": _now_ms(gateway, changes.get("venue", Venue.USDM)),
        "recv_window_ms": 5000,
        **changes,
    }
    outcome = gateway.place_order(PinnedOrder(**order))
    gateway.close()
    assert isinstance(outcome, Accepted), outcome
    return outcome.order.order_id


def _now_ms(gateway: ExchangeGateway, venue: Venue) -> int:
    return gateway.server_time(venue).server_time_ms


def orders_of(here: System, row: IntentRow) -> list[Any]:
    return here.exchange.orders_of(row.client_order_id)


# Orders


def test_market_order_is_filled_once_and_booked(here: System) -> None:
    here.order("market", quantity="0.020")
    (row,) = here.wait_until_booked("market")
    assert (row.state, row.attempt, row.executed_quantity) == ("FILLED", 1, Decimal("0.020"))
    (order,) = orders_of(here, row)
    assert order["order_id"] == row.exchange_order_id
    assert row.client_order_id == client_order_id(account="main", mode="paper", key="market")
    assert here.problems() == []


def test_order_that_sweeps_many_levels_has_every_trade_booked(here: System) -> None:
    here.exchange.control("POST", "market", {"level_notional": "100"})
    here.order("sweeping", quantity="0.100")
    (row,) = here.wait_until_booked("sweeping")
    trades = [one for one in here.exchange.truth()["trades"] if one["order_id"] == row.exchange_order_id]
    assert len(trades) > 10
    assert here.problems() == []


def test_resting_limit_order_is_followed_until_its_last_part_is_filled(here: System) -> None:
    here.order("resting", **limit("19500"))
    here.wait_for_state("resting", "ACCEPTED")
    here.exchange.control("POST", "market", {"level_notional": "100"})  # 0.005 at each visit of the price
    here.exchange.price("BTCUSDT", "19500")
    row = here.wait_for_state("resting", "PARTIALLY_FILLED")
    assert row.executed_quantity == Decimal("0.005")
    assert row.booked_at_ms is None
    here.exchange.price("BTCUSDT", "19499")
    (row,) = here.wait_until_booked("resting")
    assert (row.state, row.executed_quantity, row.average_price) == ("FILLED", Decimal("0.010"), Decimal(19500))
    assert here.problems() == []


def test_rest_of_an_immediate_or_cancel_order_lapses_and_its_fill_is_booked(here: System) -> None:
    rule = {"action": "partial_fill", "fraction": "0.4", "match": {"method": "POST", "path": "/fapi/v1/order"}}
    here.exchange.faults(rule)
    here.order("ioc", **limit("20100", time_in_force="IOC"))
    (row,) = here.wait_until_booked("ioc")
    assert (row.state, row.executed_quantity) == ("EXPIRED_BY_EXCHANGE", Decimal("0.004"))
    assert here.exchange.struck() == [1]
    assert here.problems() == []


def test_stop_order_waits_at_the_exchange_and_sells_when_the_price_falls(here: System) -> None:
    here.order("to-protect", symbol="ETHUSDT", quantity="0.500")
    here.wait_until_booked("to-protect")
    stop = {"side": "SELL", "order_type": "STOP_MARKET", "stop_price": "970", "reduce_only": True}
    here.order("stop", symbol="ETHUSDT", quantity="0.500", **stop)
    row = here.wait_for_state("stop", "ACCEPTED")
    assert row.is_algo
    assert row.valid_until_ms is None
    assert orders_of(here, row) == []
    here.exchange.price("ETHUSDT", "969")
    (row,) = here.wait_until_booked("stop")
    assert (row.state, row.executed_quantity) == ("FILLED", Decimal("0.500"))
    assert row.actual_order_id not in {None, row.exchange_order_id}
    assert here.problems() == []


def test_reduce_only_order_never_opens_a_position(here: System) -> None:
    here.order("open", symbol="ETHUSDT", quantity="0.300")
    here.wait_until_booked("open")
    held = Decimal(here.exchange.truth()["positions"]["ETHUSDT"]["amount"])
    here.order("close", symbol="ETHUSDT", side="SELL", quantity=format(held, "f"), reduce_only=True)
    (row,) = here.wait_until_booked("close")
    assert row.state == "FILLED"
    assert here.exchange.truth()["summary"]["positions"].get("ETHUSDT") is None
    here.order("close-nothing", symbol="ETHUSDT", side="SELL", quantity="0.300", reduce_only=True)
    (row,) = here.wait_until_booked("close-nothing")
    assert row.state == "REJECTED"
    assert orders_of(here, row) == []
    assert here.problems() == []


def test_order_that_the_exchange_refuses_is_rejected_with_its_words(here: System) -> None:
    here.order("too-small", quantity="0.001")
    (row,) = here.wait_until_booked("too-small")
    assert row.state == "REJECTED"
    assert "notional" in (row.reason or "")
    assert orders_of(here, row) == []
    assert here.problems() == []


@pytest.mark.parametrize("fee", ["base", "bnb"])
def test_spot_orders_are_booked_with_their_fees_in_whatever_asset(here: System, fee: str) -> None:
    here.exchange.control("POST", "market", {"spot_fee_in_bnb": fee == "bnb"})
    here.order(f"spot-buy-{fee}", venue="spot", quantity="0.05000")
    here.order(f"spot-sell-{fee}", venue="spot", side="SELL", quantity="0.01000", **limit("19900"))
    rows = here.wait_until_booked(f"spot-buy-{fee}")
    (sold,) = here.wait_until_booked(f"spot-sell-{fee}")
    assert {row.state for row in (*rows, sold)} <= {"FILLED", "REJECTED"}
    trades = [one for one in here.exchange.truth()["trades"] if one["order_id"] == rows[0].exchange_order_id]
    assert {one["fee_asset"] for one in trades if one["venue"] == "spot"} == {"BNB" if fee == "bnb" else "BTC"}
    assert here.problems() == []


# Signals


def test_signal_becomes_one_order_rounded_down_and_its_fills_are_booked(here: System) -> None:
    signal = {"type": "signal", "key": "sig", "strategy": "sma", "symbol": "BTCUSDT", "side": "BUY"}
    here.enqueue({**signal, "quantity": "0.0109"})
    here.wait_until_booked("sig")
    (row,) = here.wait_until_booked("sig:order")
    assert (row.state, row.parent_key, row.executed_quantity) == ("FILLED", "sig", Decimal("0.010"))
    assert len(orders_of(here, row)) == 1
    assert here.problems() == []


def test_signal_below_one_step_becomes_no_order(here: System) -> None:
    signal = {"type": "signal", "key": "tiny", "strategy": "sma", "symbol": "BTCUSDT", "side": "BUY"}
    here.enqueue({**signal, "quantity": "0.0004"})
    (row,) = here.wait_until_booked("tiny")
    assert row.state == "REJECTED"
    assert here.problems() == []


# Cancels


def test_cancel_takes_a_resting_order_off_and_keeps_what_was_filled(here: System) -> None:
    rule = {"action": "partial_fill", "fraction": "0.3", "match": {"method": "POST", "path": "/fapi/v1/order"}}
    here.exchange.faults(rule)
    here.order("partly", **limit("20100"))
    here.wait_for_state("partly", "PARTIALLY_FILLED")
    here.exchange.faults()
    here.cancel("cancel-partly", "partly")
    canceled, cancel = here.wait_until_booked("partly", "cancel-partly")
    assert (canceled.state, canceled.executed_quantity) == ("CANCELED", Decimal("0.003"))
    assert cancel.state == "DONE"
    assert here.problems() == []


@pytest.mark.parametrize("venue", ["usdm", "spot"])
def test_cancel_whose_answer_is_lost_is_repeated_until_the_order_is_off(here: System, venue: str) -> None:
    here.order(f"lost-{venue}", venue=venue, **limit("19500"))
    here.wait_for_state(f"lost-{venue}", "ACCEPTED")
    here.exchange.faults({"action": "answer_lost_after_execution", "match": {"method": "DELETE", "times": 1}})
    here.cancel(f"cancel-lost-{venue}", f"lost-{venue}")
    canceled, cancel = here.wait_until_booked(f"lost-{venue}", f"cancel-lost-{venue}")
    assert (canceled.state, cancel.state) == ("CANCELED", "DONE")
    assert here.exchange.struck() == [1]
    assert here.problems() == []


def test_cancel_takes_a_waiting_stop_order_off(here: System) -> None:
    here.order("stop-off", order_type="STOP_MARKET", stop_price="21000")
    here.wait_for_state("stop-off", "ACCEPTED")
    here.cancel("cancel-stop", "stop-off")
    canceled, cancel = here.wait_until_booked("stop-off", "cancel-stop")
    assert (canceled.state, cancel.state) == ("CANCELED", "DONE")
    here.exchange.price("BTCUSDT", "21100")
    assert orders_of(here, canceled) == []
    assert here.problems() == []


def test_cancel_of_a_finished_order_changes_nothing(here: System) -> None:
    here.order("finished")
    here.wait_until_booked("finished")
    here.cancel("cancel-finished", "finished")
    order, cancel = here.wait_until_booked("finished", "cancel-finished")
    assert (order.state, cancel.state) == ("FILLED", "DONE")
    assert here.problems() == []


def test_cancel_of_an_unknown_order_is_refused_at_the_door(here: System) -> None:
    with pytest.raises(IntentError, match="names no order that the journal knows"):
        here.submit({"type": "cancel", "key": "cancel-nothing", "order_key": "never-heard-of"})


def test_order_that_is_canceled_while_in_doubt_is_found_and_then_canceled(here: System) -> None:
    match = {"method": "POST", "path": "/fapi/v1/order", "times": 1}
    hidden = {"method": "GET", "path": "/fapi/v1/order", "times": 3}
    here.exchange.faults(
        {"action": "answer_lost_after_execution", "match": match},
        {"action": "reply_instead", "canned": "503_unavailable", "match": hidden},
    )
    here.order("doubtful", **limit("19500"))
    here.wait_for_state("doubtful", "IN_DOUBT")
    here.cancel("cancel-doubtful", "doubtful")
    order, cancel = here.wait_until_booked("doubtful", "cancel-doubtful")
    assert (order.state, cancel.state, order.attempt) == ("CANCELED", "DONE", 1)
    assert len(orders_of(here, order)) == 1
    assert here.problems() == []


# Gates


@pytest.fixture
def kill_key(here: System) -> Iterator[Redis]:
    """The key as people set it: `redis-cli set quantum:global:kill_switch true`."""
    with here.redis.client() as client:
        yield client
        _resume(here, client)


def _resume(here: System, client: Redis) -> None:
    client.set(KILL_KEY, "false")
    here.until(lambda: latch(here) == "RUN", "the latch to be released")
    client.delete(KILL_KEY)


def latch(here: System) -> str:
    with here.installation.journal.read() as connection:
        return meta.load(connection).kill_state


def test_kill_key_that_is_flushed_away_releases_nothing(here: System, kill_key: Redis) -> None:
    kill_key.set(KILL_KEY, "true")
    here.until(lambda: latch(here) == "HALT", "the key to be mirrored")
    kill_key.delete(KILL_KEY)
    here.order("after-the-flush", valid_for_s=4)
    (row,) = here.wait_until_booked("after-the-flush")
    assert (row.state, row.attempt) == ("EXPIRED", 0)
    assert latch(here) == "HALT"
    assert orders_of(here, row) == []


def test_kill_key_holds_orders_back_until_it_says_false(here: System, kill_key: Redis) -> None:
    kill_key.set(KILL_KEY, "true")
    here.order("held-back")
    row = here.until(lambda: row if (row := here.row("held-back")).snoozes else None, "the order to be snoozed")
    assert (row.state, row.attempt) == ("RECEIVED", 0)
    assert "kill_switch" in (row.reason or "")
    _resume(here, kill_key)
    (row,) = here.wait_until_booked("held-back")
    assert (row.state, row.attempt) == ("FILLED", 1)
    assert here.problems() == []


def test_unsent_order_is_canceled_without_asking_the_exchange(here: System, kill_key: Redis) -> None:
    kill_key.set(KILL_KEY, "true")
    here.order("unsent")
    here.until(lambda: here.row("unsent").snoozes, "the order to be snoozed")
    here.cancel("cancel-unsent", "unsent")
    order, cancel = here.wait_until_booked("unsent", "cancel-unsent")
    assert (order.state, cancel.state) == ("EXPIRED", "DONE")
    _resume(here, kill_key)
    assert orders_of(here, order) == []
    assert here.problems() == []


def test_reduce_only_state_lets_exits_and_cancels_through_and_nothing_else(here: System, kill_key: Redis) -> None:
    here.order("to-exit", symbol="ETHUSDT", quantity="0.300")
    here.order("to-cancel", **limit("19500"))
    here.wait_until_booked("to-exit")
    here.wait_for_state("to-cancel", "ACCEPTED")
    kill_key.set(KILL_KEY, "reduce_only")
    here.order("entry", symbol="ETHUSDT", quantity="0.300", valid_for_s=4)
    here.order("exit", symbol="ETHUSDT", side="SELL", quantity="0.300", reduce_only=True)
    here.cancel("cancel-now", "to-cancel")
    exit_, canceled, entry = here.wait_until_booked("exit", "to-cancel", "entry")
    assert (exit_.state, canceled.state, entry.state) == ("FILLED", "CANCELED", "EXPIRED")
    assert orders_of(here, entry) == []
    assert here.problems() == []


def test_order_expires_when_its_validity_runs_out_before_it_could_be_sent(here: System, kill_key: Redis) -> None:
    kill_key.set(KILL_KEY, "true")
    here.order("stale", valid_for_s=4)
    (row,) = here.wait_until_booked("stale")
    assert (row.state, row.attempt) == ("EXPIRED", 0)
    _resume(here, kill_key)
    assert orders_of(here, row) == []
    assert here.problems() == []


# The account


def test_trades_that_are_not_ours_are_booked_as_external(here: System) -> None:
    here.order("ours", symbol="ETHUSDT", quantity="0.200")
    here.wait_until_booked("ours")
    stranger(here, symbol="ETHUSDT", quantity=Decimal("0.700"), side="SELL")
    stranger(here, venue=Venue.SPOT, quantity=Decimal("0.00500"))
    assert here.run("reconciler", "--once") == 0
    assert here.problems() == []
    assert '"account":"external"' in here.cli("ledger", "balances", "--json").replace(" ", "")


def test_account_that_is_not_empty_is_opened_with_what_it_holds(opened: Opener) -> None:
    here = opened()
    stranger(here, quantity=Decimal("0.033"))
    stranger(here, venue=Venue.SPOT, quantity=Decimal("0.05000"))
    here.start_all()
    here.order("close-theirs", side="SELL", quantity="0.033", reduce_only=True)
    here.order("sell-theirs", venue="spot", side="SELL", quantity="0.02000")
    rows = here.wait_until_booked("close-theirs", "sell-theirs")
    assert [row.state for row in rows] == ["FILLED", "FILLED"]
    assert here.exchange.truth()["summary"]["positions"] == {}
    assert here.problems() == []
    accounts = here.cli("ledger", "balances", "--json")
    assert '"opening"' in accounts
    assert '"external"' not in accounts


def test_dry_run_does_everything_but_the_sending(opened: Opener) -> None:
    here = opened(TRADING_MODE="dry_run")
    here.start_all()
    here.order("dry")
    (row,) = here.wait_until_booked("dry")
    assert (row.state, row.attempt) == ("SIMULATED", 0)
    assert here.exchange.truth()["orders"] == []


def test_orders_enqueued_by_the_command_line_are_waited_for_by_it(opened: Opener) -> None:
    here = opened()
    here.start_all()
    words = ("--symbol", "BTCUSDT", "--side", "BUY", "--quantity", "0.010")
    assert '"accepted"' in here.cli("enqueue", "order", "--key", "typed", *words)
    here.cli("intents", "wait", "typed", "--timeout", "50s")
    assert here.row("typed").state == "FILLED"
    assert here.problems() == []
