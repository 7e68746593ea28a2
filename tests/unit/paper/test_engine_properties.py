"""Whatever is traded, the books of the engine add up exactly, and a replay of its commands gives the same state."""

from __future__ import annotations

import json
from decimal import Decimal
from fractions import Fraction
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from app.exchange.paper import truth
from app.exchange.paper.commands import (
    CancelOrder,
    Configure,
    Deposit,
    Funding,
    PlaceAlgo,
    PlaceOrder,
    SetPrice,
    decode,
    encode,
)
from app.exchange.paper.errors import PaperError
from app.exchange.paper.exchange import Exchange
from app.exchange.paper.futures import ENTRY_PLACES

D = Decimal
SYMBOL = "BTCUSDT"
CONFIGURE = Configure(
    at=0,
    level_notional=D(3000),
    levels=5,
    gap_ticks=3,
    futures_maker_rate=D("0.0002"),
    futures_taker_rate=D("0.0005"),
    spot_maker_rate=D("0.001"),
    spot_taker_rate=D("0.001"),
    spot_fee_in_bnb=False,
    max_open_orders=20,
)

steps = st.integers(1, 400)
prices = st.integers(190_000, 210_000).map(lambda tenths: D(tenths) / 10)
actions = st.one_of(
    st.tuples(
        st.just("place"),
        st.sampled_from(["futures", "spot"]),
        st.sampled_from(["BUY", "SELL"]),
        st.sampled_from(["MARKET", "GTC", "IOC", "FOK", "GTX"]),
        prices,
        steps.map(lambda count: D(count) / 1000),
        st.booleans(),
        st.integers(0, 5),
    ),
    st.tuples(st.just("price"), prices),
    st.tuples(st.just("cancel"), st.sampled_from(["futures", "spot"]), st.integers(0, 3)),
    st.tuples(st.just("fund"), st.integers(-30, 30).map(lambda count: D(count) / 10_000)),
    st.tuples(st.just("stop"), st.sampled_from(["BUY", "SELL"]), prices, steps.map(lambda count: D(count) / 1000)),
)


def started() -> tuple[Exchange, list[Any]]:
    first = [
        CONFIGURE,
        SetPrice(at=0, symbol=SYMBOL, price=D(20_000)),
        Deposit(at=0, venue="futures", asset="USDT", amount=D(5000)),
        Deposit(at=0, venue="spot", asset="USDT", amount=D(5000)),
        Deposit(at=0, venue="spot", asset="BTC", amount=D("0.5")),
    ]
    exchange = Exchange()
    for command in first:
        exchange.execute(command)
    return exchange, first


def command_for(exchange: Exchange, action: tuple[Any, ...], at: int) -> Any:
    match action:
        case ("place", venue, side, kind, price, quantity, reduce_only, name):
            is_market = kind == "MARKET"
            return PlaceOrder(
                at=at,
                venue=venue,
                symbol=SYMBOL,
                side=side,
                type="MARKET" if is_market else "LIMIT",
                time_in_force="GTC" if is_market or (venue == "spot" and kind == "GTX") else kind,
                price=None if is_market else price,
                quantity=quantity,
                reduce_only=reduce_only and venue == "futures",
                client_order_id=f"c{name}",
            )
        case ("price", price):
            return SetPrice(at=at, symbol=SYMBOL, price=price)
        case ("cancel", venue, index):
            engine = exchange.futures if venue == "futures" else exchange.spot
            open_ids = list(engine.stores[SYMBOL].open)
            order_id = open_ids[index % len(open_ids)] if open_ids else 1
            return CancelOrder(at=at, venue=venue, symbol=SYMBOL, order_id=order_id, new_client_order_id=f"x{at}")
        case ("fund", rate):
            return Funding(at=at, symbol=SYMBOL, rate=rate)
        case (_, side, price, quantity):
            return PlaceAlgo(
                at=at,
                symbol=SYMBOL,
                side=side,
                type="STOP_MARKET",
                client_algo_id=f"a{at}",
                trigger_price=price,
                quantity=quantity,
                actual_client_order_id=f"t{at}",
            )
    raise AssertionError(action)


def check_futures(exchange: Exchange) -> None:
    futures = exchange.futures
    trades = futures.stores[SYMBOL].trades.items
    funding = sum((entry.amount for entry in futures.ledger.items if entry.kind == "FUNDING_FEE"), D(0))
    realized = sum((trade.realized_pnl for trade in trades), D(0))
    fees = sum((trade.fee for trade in trades), D(0))
    assert futures.wallet == futures.deposits + realized - fees + funding
    assert Fraction(futures.wallet) == sum(Fraction(entry.amount) for entry in futures.ledger.items)
    for trade in trades:
        rate = futures.maker_rate if trade.is_maker else futures.taker_rate
        assert Fraction(trade.fee) == Fraction(trade.price) * Fraction(trade.quantity) * Fraction(rate)
    signed = sum((trade.quantity if trade.side == "BUY" else -trade.quantity for trade in trades), D(0))
    position = futures.positions[SYMBOL]
    assert position.amount == signed
    assert (position.entry == 0) == (signed == 0)
    assert position.entry == position.entry.quantize(ENTRY_PLACES)
    resting = [order for order in futures.stores[SYMBOL].open.values() if not order.reduce_only]
    for side, reserved in (("BUY", position.open_buys), ("SELL", position.open_sells)):
        assert reserved == sum((one.remaining * one.price for one in resting if one.side == side), D(0))


def check_spot(exchange: Exchange) -> None:
    spot = exchange.spot
    trades = spot.stores[SYMBOL].trades.items
    sign = {"BUY": 1, "SELL": -1}
    base = sum((sign[one.side] * one.quantity - (one.fee if one.fee_asset == "BTC" else 0) for one in trades), D(0))
    quote = sum(
        (-sign[one.side] * one.quantity * one.price - (one.fee if one.fee_asset == "USDT" else 0) for one in trades),
        D(0),
    )
    assert spot.balances["BTC"].total == spot.deposits["BTC"] + base
    assert spot.balances["USDT"].total == spot.deposits["USDT"] + quote
    for balance in spot.balances.values():
        assert balance.free >= 0
    resting = spot.stores[SYMBOL].open.values()
    assert spot.balances["USDT"].locked == sum((o.remaining * o.price for o in resting if o.side == "BUY"), D(0))
    assert spot.balances["BTC"].locked == sum((o.remaining for o in resting if o.side == "SELL"), D(0))


def check_orders(exchange: Exchange) -> None:
    for engine in (exchange.futures, exchange.spot):
        store = engine.stores[SYMBOL]
        for order in store.orders.items:
            assert order.executed == sum((trade.quantity for trade in order.trades), D(0)) <= order.quantity
            assert order.is_open == (order.order_id in store.open)
            assert (order.executed == order.quantity) == (order.status == "FILLED")
        assert [trade.trade_id for trade in store.trades.items] == [
            500_000_001 + number for number in range(len(store.trades.items))
        ]
        assert {one.client_order_id for one in store.open.values()} == set(store.open_by_client_id)


@settings(max_examples=150, deadline=None)
@given(st.lists(actions, max_size=40))
def test_wallet_positions_and_balances_are_the_exact_sum_of_their_trades(sequence: list[tuple[Any, ...]]) -> None:
    exchange, log = started()
    for at, action in enumerate(sequence, start=1):
        command = command_for(exchange, action, at)
        before = json.dumps(truth.whole(exchange))
        try:
            exchange.execute(command)
        except PaperError:
            assert json.dumps(truth.whole(exchange)) == before, "a refusal must change nothing"
        else:
            log.append(command)
        check_futures(exchange)
        check_spot(exchange)
        check_orders(exchange)
    again = Exchange()
    for command in log:
        again.execute(decode(json.loads(json.dumps(encode(command)))))
    assert truth.whole(again) == truth.whole(exchange)


def test_entry_price_is_the_weighted_average_and_profit_is_exact() -> None:
    exchange, _ = started()
    exchange.execute(CONFIGURE)

    def trade(side: str, price: str, quantity: str, at: int) -> Any:
        exchange.execute(SetPrice(at=at, symbol=SYMBOL, price=D(price)))
        order = PlaceOrder(
            at=at,
            venue="futures",
            symbol=SYMBOL,
            side=side,
            type="MARKET",
            quantity=D(quantity),
            client_order_id=f"o{at}",
        )
        return exchange.place(order)

    trade("BUY", "19999.9", "0.010", 1)
    trade("BUY", "20099.9", "0.020", 2)
    assert exchange.futures.positions[SYMBOL].entry == D("20066.66666667")
    order = trade("SELL", "20200.0", "0.050", 3)
    assert order.trades[0].realized_pnl == (D("20200.0") - D("20066.66666667")) * D("0.030")
    position = exchange.futures.positions[SYMBOL]
    assert (position.amount, position.entry) == (D("-0.020"), D("20200.0"))
