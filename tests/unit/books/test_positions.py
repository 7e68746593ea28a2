"""Arithmetic of positions against fractions, and by hand."""

from decimal import Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.books.positions import ENTRY_STEP, FLAT, Position, apply, money_realized
from app.exchange.models import ExchangeTrade
from app.exchange.paper import futures
from app.exchange.paper.book import Fill
from app.job_safety.outcome import Venue
from tests.unit.books import oracle

D = Decimal


def trade(side: str, quantity: str, price: str, **changes: object) -> ExchangeTrade:
    fields = {
        "venue": Venue.USDM,
        "symbol": "BTCUSDT",
        "trade_id": 1,
        "order_id": 1,
        "side": side,
        "price": D(price),
        "quantity": D(quantity),
        "quote_quantity": D(0),
        "commission": D(0),
        "commission_asset": "USDT",
        "time_ms": 0,
    }
    return ExchangeTrade(**(fields | changes))  # type: ignore[arg-type]


def held(quantity: str, entry: str) -> Position:
    return Position(quantity=D(quantity), entry_price=D(entry))


@pytest.mark.parametrize(
    ("before", "step", "after", "realized"),
    [
        (FLAT, ("BUY", "0.3", "100"), held("0.3", "100"), "0"),
        (held("0.1", "100"), ("BUY", "0.2", "130"), held("0.3", "120"), "0"),
        (held("0.3", "120"), ("SELL", "0.1", "121"), held("0.2", "120"), "0.1"),
        (held("0.3", "120"), ("SELL", "0.3", "110"), held("0", "0"), "-3"),
        (held("0.3", "120"), ("SELL", "0.5", "110"), held("-0.2", "110"), "-3"),
        (held("-0.2", "110"), ("SELL", "0.2", "90"), held("-0.4", "100"), "0"),
        (held("-0.4", "100"), ("BUY", "0.1", "90"), held("-0.3", "100"), "1"),
        (held("-0.4", "100"), ("BUY", "1", "105"), held("0.6", "105"), "-2"),
    ],
)
def test_position_opens_increases_reduces_closes_and_flips(before, step, after, realized):
    assert apply(before, trade(*step)) == (after, D(realized))


def test_entry_price_is_rounded_half_to_even_to_its_step():
    third, _ = apply(held("1", "1"), trade("BUY", "2", "2"))
    assert third.entry_price == D("1.66666667")
    tie, _ = apply(held("1", "0.00000001"), trade("BUY", "1", "0.00000002"))
    assert tie.entry_price == D("0.00000002")
    spot, _ = apply(held("1", "1"), trade("BUY", "2", "2", venue=Venue.SPOT))
    assert spot.entry_price == D("1.666666666666666667")


def test_realized_money_of_futures_is_the_word_of_the_exchange():
    assert money_realized(trade("SELL", "1", "2", realized_pnl=D("7")), D("6.99")) == D("7")
    assert money_realized(trade("SELL", "1", "2", realized_pnl=D("7"), venue=Venue.SPOT), D("6.99")) == D("6.99")


def test_spot_fee_in_the_base_asset_leaves_the_position_at_its_average_price():
    spot = {"venue": Venue.SPOT, "symbol": "BNBUSDT", "commission_asset": "BNB"}
    bought, realized = apply(FLAT, trade("BUY", "1", "500", commission=D("0.001"), **spot), base="BNB")
    assert (bought, realized) == (held("0.999", "500"), D(0))
    sold, realized = apply(bought, trade("SELL", "0.999", "510", commission=D("0.002"), **spot), base="BNB")
    assert (sold, realized) == (held("-0.002", "510"), D("9.99"))
    closed, _ = apply(held("1.002", "500"), trade("SELL", "1", "510", commission=D("0.002"), **spot), base="BNB")
    assert closed == FLAT


def test_quantities_of_more_than_28_digits_are_not_rounded():
    with localcontext() as context:
        context.prec = 28
        huge = "12345678901234567890.123456789012345678"
        opened, _ = apply(FLAT, trade("SELL", huge, "3"))
        assert format(opened.quantity, "f") == f"-{huge}"
        closed, realized = apply(opened, trade("BUY", huge, "1"))
    assert closed == FLAT
    assert format(realized, "f") == "24691357802469135780.246913578024691356"


@pytest.mark.parametrize("step", [("HOLD", "1", "1"), ("BUY", "0", "1"), ("BUY", "-1", "1"), ("BUY", "1", "0")])
def test_what_is_not_a_trade_is_refused(step):
    with pytest.raises(ValueError, match="trade 1 of BTCUSDT"):
        apply(FLAT, trade(*step))


amounts = st.integers(min_value=1, max_value=10**24).map(lambda n: D(n).scaleb(-18))
prices = st.integers(min_value=1, max_value=10**14).map(lambda n: D(n).scaleb(-8))


@given(
    st.sampled_from(list(Venue)), st.lists(st.tuples(st.sampled_from(["BUY", "SELL"]), amounts, prices), max_size=12)
)
def test_any_sequence_of_trades_equals_the_same_in_fractions(venue, steps):
    trades = [
        trade(side, format(quantity, "f"), format(price, "f"), venue=venue, trade_id=number)
        for number, (side, quantity, price) in enumerate(steps)
    ]
    position, realized = FLAT, Fraction(0)
    for each in trades:
        position, gained = apply(position, each, base="BTC")
        realized += Fraction(gained if venue is Venue.SPOT else 0)
        assert position.entry_price.is_finite()
        assert position.quantity == 0 or position.entry_price % ENTRY_STEP[venue] == 0 or venue is Venue.USDM
    books = oracle.compute(trades, {(str(venue), "BTCUSDT", each.trade_id): None for each in trades})
    lot = books.positions[(str(venue), "BTCUSDT")]
    assert (Fraction(position.quantity), Fraction(position.entry_price), realized) == (
        lot.quantity,
        lot.entry,
        lot.realized,
    )


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["BUY", "SELL"]),
            st.integers(1, 10**7).map(lambda n: D(n).scaleb(-3)),
            st.integers(1, 10**9).map(lambda n: D(n).scaleb(-2)),
        ),
        max_size=20,
    )
)
def test_futures_positions_equal_those_of_the_local_exchange(steps):
    """Else `ledger check` would show differences in the last digit of entry prices that mean nothing."""
    position, theirs = FLAT, futures.Position()
    for side, quantity, price in steps:
        position, realized = apply(position, trade(side, format(quantity, "f"), format(price, "f")))
        assert realized == futures._apply(theirs, side, Fill(price=price, quantity=quantity))
        assert (position.quantity, position.entry_price) == (theirs.amount, theirs.entry)
