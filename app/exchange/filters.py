"""What an exchange allows on a symbol: steps, bounds and least notionals, read from exchangeInfo.

A check here saves a round trip and a refusal; it never replaces the exchange's own. What cannot be judged without a
price (MARKET orders' notional) is judged only if the caller has one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from app.clock import Clock
from app.exchange.answers import decimal, flag, integer, text
from app.exchange.errors import AnswerShapeError
from app.exchange.models import RateLimit
from app.job_safety.outcome import Venue
from app.money import EXACT, ZERO, is_multiple, plain, round_down

_INTERVALS: Final = {"SECOND": 1, "MINUTE": 60, "HOUR": 3600, "DAY": 86400}
MAX_AGE_S: Final = 3600.0
"""How long rules are used without asking again. Binance announces changes days ahead; an hour is soon enough."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One reason why the exchange would refuse an order: the field of the order, what is wrong, and what would help."""

    field: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        """Return all three as one sentence."""
        return f"{self.field}: {self.problem}; {self.remedy}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Allowed values of a price or quantity: `least` to `most` in multiples of `step`. A zero means: no such rule.

    `origin` is where counting starts: futures count from the least value, Spot from zero.
    """

    least: Decimal = ZERO
    most: Decimal = ZERO
    step: Decimal = ZERO
    origin: Decimal = ZERO

    def floor(self, value: Decimal) -> Decimal:
        """Return the largest allowed step that is not above `value`. It may still be below `least`."""
        if self.step <= 0 or value < self.origin:
            return value
        return EXACT.add(self.origin, round_down(EXACT.subtract(value, self.origin), self.step))

    def problems(self, name: str, value: Decimal) -> list[Problem]:
        """Return what is wrong with `value` as the field `name`."""
        found = []
        if self.least > 0 and value < self.least:
            problem = f"{plain(value)} is below the least allowed {plain(self.least)}"
            found.append(Problem(field=name, problem=problem, remedy=f"use at least {plain(self.least)}"))
        if self.most > 0 and value > self.most:
            problem = f"{plain(value)} is above the most allowed {plain(self.most)}"
            found.append(
                Problem(field=name, problem=problem, remedy=f"use at most {plain(self.most)}, or several orders")
            )
        if self.step > 0 and not is_multiple(EXACT.subtract(value, self.origin), self.step):
            problem = f"{plain(value)} is not on the grid of {plain(self.step)}"
            found.append(Problem(field=name, problem=problem, remedy=f"round it down to {plain(self.floor(value))}"))
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class SymbolRules:
    """The rules of one symbol on one venue.

    `status` is Binance's word; orders are taken only while it is TRADING. `least_notional` is in the quote asset.
    """

    venue: Venue
    symbol: str
    status: str
    base_asset: str
    quote_asset: str
    order_types: frozenset[str]
    price: Grid
    quantity: Grid
    market_quantity: Grid
    least_notional: Decimal = ZERO
    most_notional: Decimal = ZERO
    least_notional_applies_to_market: bool = True
    max_open_orders: int = 0

    @property
    def is_trading(self) -> bool:
        """Whether new orders are taken at all."""
        return self.status == "TRADING"

    def round_quantity(self, quantity: Decimal, order_type: str) -> Decimal:
        """Return `quantity` rounded down to what `order_type` allows, never up; zero if that is below the least."""
        rounded = self.quantity.floor(quantity)
        if order_type != "LIMIT":
            rounded = min(rounded, self.market_quantity.floor(quantity))
        # Two grids may disagree; what both allow is found by flooring on the first again.
        rounded = self.quantity.floor(rounded)
        return rounded if rounded >= self.quantity.least else ZERO

    def round_price(self, price: Decimal) -> Decimal:
        """Return `price` rounded down to a tick. For a SELL limit that is the more generous direction."""
        return self.price.floor(price)

    def problems(
        self,
        *,
        order_type: str,
        quantity: Decimal,
        price: Decimal | None = None,
        stop_price: Decimal | None = None,
        reduce_only: bool = False,
        reference_price: Decimal | None = None,
    ) -> list[Problem]:
        """Return every reason to expect a refusal; empty if none is known.

        Args:
            order_type: MARKET, LIMIT, STOP_MARKET or TAKE_PROFIT_MARKET.
            quantity: In base units.
            price: Of a LIMIT order.
            stop_price: Trigger of a conditional order.
            reduce_only: Futures exempt such orders from the least notional.
            reference_price: A recent price, to judge the notional of an order without a price of its own.
        """
        found = []
        if not self.is_trading:
            remedy = "wait until trading resumes, or choose another symbol"
            found.append(Problem(field="symbol", problem=f"{self.symbol} is {self.status}", remedy=remedy))
        found += self.quantity.problems("quantity", quantity)
        if order_type != "LIMIT":
            found += [one for one in self.market_quantity.problems("quantity", quantity) if one not in found]
        for name, value in (("price", price), ("stop_price", stop_price)):
            if value is not None:
                found += self.price.problems(name, value)
        return found + self._notional_problems(
            order_type, quantity, price or stop_price or reference_price, reduce_only
        )

    def _notional_problems(
        self,
        order_type: str,
        quantity: Decimal,
        price: Decimal | None,
        reduce_only: bool,  # noqa: FBT001 - one caller
    ) -> list[Problem]:
        is_exempt = reduce_only or (order_type != "LIMIT" and not self.least_notional_applies_to_market)
        if price is None or is_exempt:
            return []
        notional = EXACT.multiply(quantity, price)
        value = f"{plain(quantity)} x {plain(price)} = {plain(notional)} {self.quote_asset}"
        if notional < self.least_notional:
            problem = f"{value} is below the least notional {plain(self.least_notional)}"
            return [Problem(field="quantity", problem=problem, remedy="order more, or not at all")]
        if self.most_notional > 0 and notional > self.most_notional:
            problem = f"{value} is above the most notional {plain(self.most_notional)}"
            return [Problem(field="quantity", problem=problem, remedy="order less, or in several orders")]
        return []


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeInfo:
    """What exchangeInfo tells: the rules by symbol, and the rate limits."""

    venue: Venue
    rules: Mapping[str, SymbolRules]
    rate_limits: tuple[RateLimit, ...]


def read_exchange_info(venue: Venue, told: Mapping[str, Any]) -> ExchangeInfo:
    """Return what the exchangeInfo answer of either venue says.

    Raises:
        AnswerShapeError: it is not an exchangeInfo answer.
    """
    symbols, limits = told.get("symbols"), told.get("rateLimits")
    if not isinstance(symbols, list) or not isinstance(limits, list):
        raise AnswerShapeError("exchangeInfo without symbols or rateLimits")
    rules = [_read_symbol(venue, symbol) for symbol in symbols]
    return ExchangeInfo(
        venue=venue,
        rules={rule.symbol: rule for rule in rules},
        rate_limits=tuple(
            RateLimit(
                kind=text(limit, "rateLimitType"),
                interval_s=_INTERVALS[text(limit, "interval")] * integer(limit, "intervalNum"),
                limit=integer(limit, "limit"),
            )
            for limit in limits
            if limit.get("interval") in _INTERVALS
        ),
    )


class RulesCache:
    """Symbol rules of both venues, asked for again once they are older than `max_age_s`."""

    def __init__(self, fetch: Callable[[Venue], ExchangeInfo], clock: Clock, max_age_s: float = MAX_AGE_S) -> None:
        self._fetch = fetch
        self._clock = clock
        self._max_age_s = max_age_s
        self._known: dict[Venue, tuple[float, ExchangeInfo]] = {}

    def info(self, venue: Venue) -> ExchangeInfo:
        """Return rules no older than `max_age_s`; whatever the fetching raises if there are none."""
        asked = self._clock.monotonic()
        known = self._known.get(venue)
        if known is None or asked - known[0] > self._max_age_s:
            known = (asked, self._fetch(venue))
            self._known[venue] = known
        return known[1]

    def rules(self, venue: Venue, symbol: str) -> SymbolRules | None:
        """Return the rules of `symbol`; None if the venue does not list it."""
        return self.info(venue).rules.get(symbol)


@dataclass(slots=True)
class _Filters:
    by_type: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def grid(self, name: str, least: str, most: str, step: str, *, counts_from_least: bool) -> Grid:
        told = self.by_type.get(name, {})
        lowest = decimal(told, least, ZERO)
        return Grid(
            least=lowest,
            most=decimal(told, most, ZERO),
            step=decimal(told, step, ZERO),
            origin=lowest if counts_from_least else ZERO,
        )


def _read_symbol(venue: Venue, told: Mapping[str, Any]) -> SymbolRules:
    filters = _Filters({text(one, "filterType"): one for one in told.get("filters", ())})
    is_futures = venue is Venue.USDM
    lot = ("minQty", "maxQty", "stepSize")
    simple = filters.by_type.get("MIN_NOTIONAL", {})
    ranged = filters.by_type.get("NOTIONAL", {})
    open_orders = filters.by_type.get("MAX_NUM_ORDERS", {})
    applies = True
    if not is_futures:
        applies = flag(ranged, "applyMinToMarket") if ranged else flag(simple, "applyToMarket")
    return SymbolRules(
        venue=venue,
        symbol=text(told, "symbol"),
        status=text(told, "status"),
        base_asset=text(told, "baseAsset"),
        quote_asset=text(told, "quoteAsset"),
        order_types=frozenset(told.get("orderTypes") or told.get("OrderType") or ()),
        price=filters.grid("PRICE_FILTER", "minPrice", "maxPrice", "tickSize", counts_from_least=is_futures),
        quantity=filters.grid("LOT_SIZE", *lot, counts_from_least=is_futures),
        market_quantity=filters.grid("MARKET_LOT_SIZE", *lot, counts_from_least=is_futures),
        least_notional=max(
            decimal(simple, "notional", ZERO),
            decimal(simple, "minNotional", ZERO),
            decimal(ranged, "minNotional", ZERO),
        ),
        most_notional=decimal(ranged, "maxNotional", ZERO),
        least_notional_applies_to_market=applies,
        max_open_orders=integer(open_orders, "limit", integer(open_orders, "maxNumOrders", 0)),
    )
