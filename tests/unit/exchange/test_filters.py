"""Symbol rules of both venues: rounding never goes up, and every problem names its field and a remedy."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.exchange.errors import AnswerShapeError
from app.exchange.filters import ExchangeInfo, Grid, RulesCache, SymbolRules, read_exchange_info
from app.job_safety.outcome import Venue


def rules_of(venue: Venue, filters: list[dict[str, object]], status: str = "TRADING") -> SymbolRules:
    told = {
        "symbols": [
            {"symbol": "BTCUSDT", "status": status, "baseAsset": "BTC", "quoteAsset": "USDT", "filters": filters}
        ],
        "rateLimits": [{"rateLimitType": "ORDERS", "interval": "SECOND", "intervalNum": 10, "limit": 300}],
    }
    return read_exchange_info(venue, told).rules["BTCUSDT"]


FUTURES_FILTERS: list[dict[str, object]] = [
    {"filterType": "PRICE_FILTER", "minPrice": "556.80", "maxPrice": "4529764", "tickSize": "0.10"},
    {"filterType": "LOT_SIZE", "minQty": "0.001", "maxQty": "1000", "stepSize": "0.001"},
    {"filterType": "MARKET_LOT_SIZE", "minQty": "0.001", "maxQty": "120", "stepSize": "0.001"},
    {"filterType": "MAX_NUM_ORDERS", "limit": 200},
    {"filterType": "MIN_NOTIONAL", "notional": "100"},
]
SPOT_FILTERS: list[dict[str, object]] = [
    {"filterType": "PRICE_FILTER", "minPrice": "0.01000000", "maxPrice": "1000000.0", "tickSize": "0.01000000"},
    {"filterType": "LOT_SIZE", "minQty": "0.00001000", "maxQty": "9000.0", "stepSize": "0.00001000"},
    {"filterType": "MARKET_LOT_SIZE", "minQty": "0.00000000", "maxQty": "120.5", "stepSize": "0.00000000"},
    {
        "filterType": "NOTIONAL",
        "minNotional": "5.0",
        "applyMinToMarket": True,
        "maxNotional": "9000000.0",
        "applyMaxToMarket": False,
    },
]
FUTURES = rules_of(Venue.USDM, FUTURES_FILTERS)
SPOT = rules_of(Venue.SPOT, SPOT_FILTERS)


def test_quantity_is_rounded_down_to_the_step() -> None:
    assert FUTURES.round_quantity(Decimal("0.0109999"), "MARKET") == Decimal("0.010")
    assert SPOT.round_quantity(Decimal("0.00012999"), "LIMIT") == Decimal("0.00012")


def test_quantity_below_the_least_becomes_zero() -> None:
    assert FUTURES.round_quantity(Decimal("0.0009"), "MARKET") == 0


def test_futures_price_grid_counts_from_its_least_price() -> None:
    grid = Grid(least=Decimal("0.05"), most=Decimal(0), step=Decimal("0.1"), origin=Decimal("0.05"))
    assert grid.floor(Decimal("0.30")) == Decimal("0.25")
    assert grid.problems("price", Decimal("0.25")) == []
    assert grid.problems("price", Decimal("0.30")) != []


def test_zero_step_and_zero_bounds_mean_no_rule() -> None:
    assert SPOT.market_quantity.problems("quantity", Decimal("0.123456789")) == []


@pytest.mark.parametrize(
    ("quantity", "price", "named", "words"),
    [
        ("0.0105", "23000.10", "quantity", "round it down to 0.01"),
        ("0.0001", "9000000.1", "quantity", "at least 0.001"),
        ("1001", "23000.10", "quantity", "at most 1000"),
        ("0.01", "23000.15", "price", "round it down to 23000.1"),
        ("0.01", "500", "price", "at least 556.8"),
        ("0.001", "23000.10", "quantity", "least notional 100"),
    ],
)
def test_problem_names_field_and_remedy(quantity: str, price: str, named: str, words: str) -> None:
    found = FUTURES.problems(order_type="LIMIT", quantity=Decimal(quantity), price=Decimal(price))
    assert any(one.field == named and words in str(one) for one in found), found


def test_good_order_has_no_problems() -> None:
    assert FUTURES.problems(order_type="LIMIT", quantity=Decimal("0.010"), price=Decimal("23140.40")) == []
    assert SPOT.problems(order_type="MARKET", quantity=Decimal("0.01"), reference_price=Decimal(23000)) == []


def test_market_orders_have_a_smaller_most() -> None:
    assert FUTURES.problems(order_type="LIMIT", quantity=Decimal(121), price=Decimal(1000)) == []
    assert [one.field for one in FUTURES.problems(order_type="MARKET", quantity=Decimal(121))] == ["quantity"]


def test_reduce_only_is_exempt_from_the_least_notional() -> None:
    small = Decimal("0.001")
    price = Decimal(23000)
    assert FUTURES.problems(order_type="MARKET", quantity=small, reference_price=price) != []
    assert FUTURES.problems(order_type="MARKET", quantity=small, reference_price=price, reduce_only=True) == []


def test_halted_symbol_is_a_problem() -> None:
    halted = rules_of(Venue.USDM, FUTURES_FILTERS, status="BREAK")
    assert [one.field for one in halted.problems(order_type="MARKET", quantity=Decimal(1))] == ["symbol"]


def test_rate_limits_are_read_in_seconds() -> None:
    told = {
        "symbols": [],
        "rateLimits": [{"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 2400}],
    }
    (limit,) = read_exchange_info(Venue.USDM, told).rate_limits
    assert (limit.kind, limit.interval_s, limit.limit) == ("REQUEST_WEIGHT", 60, 2400)


def test_answer_without_symbols_is_refused() -> None:
    with pytest.raises(AnswerShapeError):
        read_exchange_info(Venue.USDM, {"code": -1})


positive = st.decimals(min_value=Decimal("0.00000001"), max_value=Decimal(900), places=8).filter(lambda one: one > 0)


@given(quantity=positive, rules=st.sampled_from([FUTURES, SPOT]), order_type=st.sampled_from(["MARKET", "LIMIT"]))
def test_rounded_quantity_is_never_more_and_always_allowed(
    quantity: Decimal, rules: SymbolRules, order_type: str
) -> None:
    rounded = rules.round_quantity(quantity, order_type)
    assert rounded <= quantity
    if rounded > 0 and quantity <= rules.market_quantity.most:
        assert rules.problems(order_type=order_type, quantity=rounded) == []


def test_cache_asks_again_only_when_too_old() -> None:
    class Steady:
        seconds = 0.0

        def monotonic(self) -> float:
            return self.seconds

    asked: list[Venue] = []

    def fetch(venue: Venue) -> ExchangeInfo:
        asked.append(venue)
        return ExchangeInfo(venue=venue, rules={"BTCUSDT": FUTURES}, rate_limits=())

    clock = Steady()
    cache = RulesCache(fetch, clock, max_age_s=10)
    assert cache.rules(Venue.USDM, "BTCUSDT") == FUTURES
    assert cache.rules(Venue.USDM, "NOPE") is None
    assert asked == [Venue.USDM]
    clock.seconds = 10.1
    cache.rules(Venue.USDM, "BTCUSDT")
    assert asked == [Venue.USDM, Venue.USDM]
