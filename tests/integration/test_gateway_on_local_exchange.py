"""The gateway and the local exchange speak the same language: every request it has, over HTTP."""

import json
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from itertools import count
from pathlib import Path

import pytest

from app.clock import SystemClock
from app.exchange.answers import spot_fills
from app.exchange.config import GatewayConfig
from app.exchange.errors import ExchangeClockUnknownError
from app.exchange.gateway import ExchangeGateway
from app.exchange.models import CancelAccepted, OrderAbsent, PinnedCancel, PinnedOrder
from app.job_safety.outcome import Accepted, ExchangeOrder, FailureClass, Refused, Unknown, Venue
from app.settings import load_settings
from app.wiring import make_gateway
from tests.support.clock import FakeClock
from tests.support.paper_process import PaperProcess

ROOT = Path(__file__).resolve().parents[2]
KEY, SECRET = "edge-key", "edge-secret"
VENUES = list(Venue)
numbers = count(1)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ExchangeGateway]:
    # An exchange clock an hour ahead of ours: every timestamp must come from the exchange.
    command = [sys.executable, "-m", "app.exchange.paper", "--port", "0", "--seed", "1", "--limits", "wide"]
    command += ["--speed", "0", "--clock-offset-ms", "3600000", "--api-key", KEY, "--api-secret", SECRET]
    command += ["--data", str(tmp_path_factory.mktemp("exchange"))]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            told = json.loads(process.stdout.readline())
            config = GatewayConfig(
                futures_url=told["futures_url"],
                spot_url=told["spot_url"],
                api_key=lambda: KEY,
                api_secret=lambda: SECRET,
            )
            made = ExchangeGateway(config, SystemClock())
            yield made
            made.close()
        finally:
            process.terminate()
            process.wait(timeout=20)


def pinned(gateway: ExchangeGateway, venue: Venue, **changes: object) -> PinnedOrder:
    fields: dict[str, object] = {
        "venue": venue,
        "symbol": "BTCUSDT",
        "side": "BUY",
        "order_type": "MARKET",
        "quantity": Decimal("0.010"),
        "client_order_id": f"edge-{next(numbers)}",
        "timestamp_ms": gateway.exchange_clock.lower_bound_ms(venue),
        "recv_window_ms": 3000,
    }
    return PinnedOrder(**(fields | changes))


def limit_far_below(gateway: ExchangeGateway, venue: Venue) -> PinnedOrder:
    price = gateway.exchange_info(venue).rules["BTCUSDT"].round_price(gateway.price(venue, "BTCUSDT") * Decimal("0.97"))
    return pinned(gateway, venue, order_type="LIMIT", price=price, time_in_force="GTC")


@pytest.mark.parametrize("venue", VENUES)
def test_settings_say_how_often_the_exchanges_clock_is_read_and_how_long_that_counts(
    tmp_path: Path, venue: Venue
) -> None:
    (tmp_path / "config.yaml").write_text("exchange: {clock_refresh_s: 300, clock_max_age_s: 400}\n")
    with PaperProcess(tmp_path / "exchange") as exchange:
        environment = {
            "TRADING_MODE": "paper",
            "FILLONCE_CONFIG": str(tmp_path),
            "BINANCE_FUTURES_URL": f"{exchange.url}/fapi",
            "BINANCE_SPOT_URL": f"{exchange.url}/api",
        }
        clock = FakeClock()
        gateway = make_gateway(load_settings(environment, tmp_path), clock)
        first_ms = gateway.exchange_clock.upper_bound_ms(venue)
        exchange.control("POST", "clock", {"advance_ms": 3_600_000})
        clock.advance(299_000)
        assert gateway.exchange_clock.upper_bound_ms(venue) < first_ms + 300_000  # not asked again yet
        clock.advance(2_000)
        assert gateway.exchange_clock.lower_bound_ms(venue) > first_ms + 3_500_000
        exchange.kill()
        clock.advance(399_000)
        gateway.exchange_clock.lower_bound_ms(venue)  # a failure is borne until the age at which it counts no longer
        clock.advance(2_000)
        with pytest.raises(ExchangeClockUnknownError):
            gateway.exchange_clock.lower_bound_ms(venue)
        gateway.close()


@pytest.mark.parametrize("venue", VENUES)
def test_market_order_fills_and_its_trades_add_up(gateway: ExchangeGateway, venue: Venue) -> None:
    before = gateway.server_time(venue).server_time_ms
    placed = gateway.place_order(pinned(gateway, venue))
    assert isinstance(placed, Accepted)
    found = gateway.get_order(venue, "BTCUSDT", client_order_id=placed.order.client_order_id)
    assert isinstance(found, ExchangeOrder)
    assert (found.order_id, found.status) == (placed.order.order_id, "FILLED")
    trades = gateway.trades_of_order(venue, "BTCUSDT", found.order_id)
    assert sum(trade.quantity for trade in trades) == found.executed_quantity == Decimal("0.010")
    numbers_seen = {trade.trade_id for trade in trades}
    assert numbers_seen <= {trade.trade_id for trade in gateway.trades_since(venue, "BTCUSDT", start_ms=before)}
    assert numbers_seen <= {trade.trade_id for trade in gateway.trades_since(venue, "BTCUSDT", from_id=0)}
    assert found.order_id in {order.order_id for order in gateway.all_orders(venue, "BTCUSDT", before)}
    if venue is Venue.SPOT:
        assert [(one.trade_id, one.quantity, one.commission) for one in spot_fills(placed)] == [
            (one.trade_id, one.quantity, one.commission) for one in trades
        ]
    else:
        assert spot_fills(placed) == ()


@pytest.mark.parametrize("venue", VENUES)
def test_canceled_order_is_still_found_by_its_client_id(gateway: ExchangeGateway, venue: Venue) -> None:
    order = limit_far_below(gateway, venue)
    placed = gateway.place_order(order)
    assert isinstance(placed, Accepted)
    assert placed.order.order_id in {one.order_id for one in gateway.open_orders(venue, "BTCUSDT")}
    cancel = PinnedCancel(
        venue=venue,
        symbol="BTCUSDT",
        order_id=placed.order.order_id,
        client_order_id=order.client_order_id,
        timestamp_ms=gateway.exchange_clock.lower_bound_ms(venue),
        recv_window_ms=3000,
    )
    assert isinstance(gateway.cancel_order(cancel), CancelAccepted)
    found = gateway.get_order(venue, "BTCUSDT", client_order_id=order.client_order_id)
    assert isinstance(found, ExchangeOrder)
    assert found.status == "CANCELED"
    again = gateway.cancel_order(cancel)
    assert isinstance(again, Unknown)
    assert again.failure.code == -2011


@pytest.mark.parametrize("venue", VENUES)
@pytest.mark.parametrize("is_algo", [False, True])
def test_order_that_never_was_is_absent(gateway: ExchangeGateway, venue: Venue, is_algo: bool) -> None:
    if venue is Venue.USDM or not is_algo:
        found = gateway.get_order(venue, "BTCUSDT", client_order_id="edge-never", is_algo=is_algo)
        assert isinstance(found, OrderAbsent)


@pytest.mark.parametrize("venue", VENUES)
def test_stale_timestamp_is_refused_by_the_exchange(gateway: ExchangeGateway, venue: Venue) -> None:
    """The fence: what the gateway sends late does not become an order."""
    late = gateway.exchange_clock.lower_bound_ms(venue) - 10_000
    outcome = gateway.place_order(pinned(gateway, venue, timestamp_ms=late))
    assert isinstance(outcome, Refused)
    assert outcome.failure.failure_class is FailureClass.CLOCK_SKEW


def test_conditional_order_lives_on_the_algo_endpoint(gateway: ExchangeGateway) -> None:
    before = gateway.server_time(Venue.USDM).server_time_ms
    order = pinned(gateway, Venue.USDM, order_type="STOP_MARKET", side="SELL", stop_price=Decimal(15000))
    placed = gateway.place_order(order)
    assert isinstance(placed, Accepted)
    number = placed.order.order_id
    by_name = gateway.get_order(Venue.USDM, "BTCUSDT", client_order_id=order.client_order_id, is_algo=True)
    assert isinstance(by_name, ExchangeOrder)
    assert (by_name.order_id, by_name.is_algo) == (number, True)
    assert number in {one.order_id for one in gateway.open_orders(Venue.USDM, "BTCUSDT", is_algo=True)}
    assert number in {one.order_id for one in gateway.all_orders(Venue.USDM, "BTCUSDT", before, is_algo=True)}
    cancel = PinnedCancel(
        venue=Venue.USDM,
        symbol="BTCUSDT",
        order_id=number,
        client_order_id=order.client_order_id,
        is_algo=True,
        timestamp_ms=gateway.exchange_clock.lower_bound_ms(Venue.USDM),
        recv_window_ms=3000,
    )
    assert isinstance(gateway.cancel_order(cancel), CancelAccepted)
    assert gateway.open_orders(Venue.USDM, "BTCUSDT", is_algo=True) == []


@pytest.mark.parametrize("venue", VENUES)
def test_rules_agree_with_what_the_exchange_refuses(gateway: ExchangeGateway, venue: Venue) -> None:
    rules = gateway.exchange_info(venue).rules["BTCUSDT"]
    odd = Decimal("0.0123456789")
    price = gateway.price(venue, "BTCUSDT")
    assert rules.problems(order_type="MARKET", quantity=odd, reference_price=price) != []
    refused = gateway.place_order(pinned(gateway, venue, quantity=odd))
    assert isinstance(refused, Refused)
    good = rules.round_quantity(odd, "MARKET")
    assert rules.problems(order_type="MARKET", quantity=good, reference_price=price) == []
    assert isinstance(gateway.place_order(pinned(gateway, venue, quantity=good)), Accepted)


def test_account_is_read(gateway: ExchangeGateway) -> None:
    before = gateway.server_time(Venue.USDM).server_time_ms
    gateway.place_order(pinned(gateway, Venue.USDM, symbol="ETHUSDT", quantity=Decimal("0.1")))
    (position,) = gateway.positions("ETHUSDT")
    assert position.quantity == Decimal("0.1")
    assert any(line.income_type == "COMMISSION" and line.symbol == "ETHUSDT" for line in gateway.income(before))
    assert {balance.asset for balance in gateway.balances(Venue.USDM)} == {"USDT"}
    assert {"USDT", "BTC"} <= {balance.asset for balance in gateway.balances(Venue.SPOT)}
    assert gateway.limits_seen[Venue.USDM].used_weight.keys() == {"1M"}
