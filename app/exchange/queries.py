"""Everything that is only asked. A query may be repeated; a failed one proves nothing and is told as an error."""

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Final, TypeVar

from app.exchange import answers
from app.exchange.answers import JsonObject
from app.exchange.asking import ExchangeAsker
from app.exchange.errors import AnswerShapeError, ExchangeQueryError, unreadable
from app.exchange.filters import ExchangeInfo, read_exchange_info
from app.exchange.models import (
    Balance,
    ExchangePosition,
    ExchangeTrade,
    Income,
    OrderAbsent,
    OrderArchived,
)
from app.exchange.paging import forward_pages, whole_span
from app.exchange.transport import RawAnswer
from app.job_safety.outcome import ExchangeOrder, Venue

NO_SUCH_ORDER: Final = -2013
SPOT_ORDER_ARCHIVED: Final = -2026
HISTORY_PAGE: Final = 1000
"""Most items of a page of orders, trades or income, on either venue."""
ALGO_HISTORY_PAGE: Final = 100
_DAY_MS: Final = 24 * 3600 * 1000
HISTORY_WINDOW_MS: Final = {Venue.USDM: 7 * _DAY_MS - 60_000, Venue.SPOT: _DAY_MS - 60_000}
"""Longest span of one history request: Binance allows less than 7 days, and 24 hours on Spot."""

_Read = TypeVar("_Read")


class ExchangeQueries(ExchangeAsker):
    """Reads from the exchange: each try with a fresh timestamp, all tries within one short deadline.

    Every method raises `ExchangeQueryError` if it is not answered usably.
    """

    # Orders

    def get_order(
        self,
        venue: Venue,
        symbol: str,
        *,
        client_order_id: str | None = None,
        order_id: int | None = None,
        is_algo: bool = False,
    ) -> ExchangeOrder | OrderAbsent | OrderArchived:
        """Ask for one order by its client order id, or by its number (for an algo order the algoId).

        `OrderAbsent` is HTTP 400 with exactly -2013: one piece of evidence, no proof.
        """
        if (client_order_id is None) == (order_id is None):
            raise ValueError("client_order_id, order_id: exactly one is needed")
        by_number, by_name = ("algoId", "clientAlgoId") if is_algo else ("orderId", "origClientOrderId")
        asked = {by_number: str(order_id)} if order_id is not None else {by_name: str(client_order_id)}
        endpoint = _by_venue(venue, "futures_get_algo_order" if is_algo else "futures_get_order", "get_order")

        def read(answer: RawAnswer) -> ExchangeOrder | OrderAbsent | OrderArchived:
            told = answers.load_object(answer.body)
            if answer.http_status == 400:
                kind = OrderAbsent if told.get("code") == NO_SUCH_ORDER else OrderArchived
                return kind(venue=venue, symbol=symbol, client_order_id=client_order_id, order_id=order_id)
            order = answers.algo_order(told) if is_algo else answers.plain_order(venue, told)
            is_other = order.symbol != symbol or (
                order.order_id != order_id if order_id is not None else order.client_order_id != client_order_id
            )
            if is_other:
                raise AnswerShapeError(f"asked for {asked} on {symbol}, told of {order.order_id} on {order.symbol}")
            return order

        expected = {NO_SUCH_ORDER, SPOT_ORDER_ARCHIVED} if venue is Venue.SPOT else {NO_SUCH_ORDER}
        parameters = asked if is_algo else {"symbol": symbol, **asked}
        return self._ask(venue, endpoint, parameters, read, codes_400=frozenset(expected))

    def all_orders(self, venue: Venue, symbol: str, start_ms: int, *, is_algo: bool = False) -> list[ExchangeOrder]:
        """Return every order of `symbol` since `start_ms`, whatever its state, every page.

        If it takes several pages, the newest is asked for first (see `paging.whole_span`).
        """
        endpoint = _by_venue(
            venue, "futures_get_all_algo_orders" if is_algo else "futures_get_all_orders", "get_all_orders"
        )
        read = answers.algo_order if is_algo else _order_reader(venue)
        limit = ALGO_HISTORY_PAGE if is_algo else HISTORY_PAGE
        return self._history(
            venue, endpoint, {"symbol": symbol}, read, lambda order: order.order_id, start_ms=start_ms, page_limit=limit
        )

    def open_orders(self, venue: Venue, symbol: str | None = None, *, is_algo: bool = False) -> list[ExchangeOrder]:
        """Return the orders that are open now (of all symbols: dear in request weight)."""
        endpoint = _by_venue(
            venue, "futures_get_open_algo_orders" if is_algo else "futures_get_open_orders", "get_open_orders"
        )
        read = answers.algo_order if is_algo else _order_reader(venue)
        parameters = {} if symbol is None else {"symbol": symbol}
        return self._ask(venue, endpoint, parameters, lambda answer: answers.load_list(answer.body, read))

    # Trades

    def trades_of_order(self, venue: Venue, symbol: str, order_id: int) -> list[ExchangeTrade]:
        """Return every trade of one order, every page, oldest first."""
        parameters = {"symbol": symbol, "orderId": str(order_id)}
        page = self._trades(venue, parameters)
        if len(page) >= HISTORY_PAGE:
            # Without an id a page holds the newest trades; so start at the very first.
            page = self._trades_from(venue, parameters, 0)
        found = {trade.trade_id: trade for trade in page if trade.order_id == order_id and trade.symbol == symbol}
        return [found[number] for number in sorted(found)]

    def newest_trades(self, venue: Venue, symbol: str) -> list[ExchangeTrade]:
        """Return the newest page of trades of `symbol`, oldest first; empty if there never was one."""
        return self._trades(venue, {"symbol": symbol})

    def trades_since(
        self, venue: Venue, symbol: str, *, from_id: int | None = None, start_ms: int | None = None
    ) -> list[ExchangeTrade]:
        """Return every trade of `symbol` from the trade id `from_id` on, or since `start_ms`, every page."""
        if (from_id is None) == (start_ms is None):
            raise ValueError("from_id, start_ms: exactly one is needed")
        if from_id is not None:
            return self._trades_from(venue, {"symbol": symbol}, from_id)
        return self._history(
            venue,
            _TRADES[venue],
            {"symbol": symbol},
            _trade_reader(venue),
            lambda trade: trade.trade_id,
            start_ms=start_ms or 0,
            page_limit=HISTORY_PAGE,
        )

    # Account

    def balances(self, venue: Venue) -> list[Balance]:
        """Return what the account holds, by asset."""

        def read(answer: RawAnswer) -> list[Balance]:
            if venue is Venue.USDM:
                return answers.load_list(answer.body, answers.futures_balance)
            told = answers.load_object(answer.body)
            updated = answers.integer(told, "updateTime", 0)
            return [answers.spot_balance(one, updated) for one in answers.objects(told, "balances")]

        return self._ask(venue, _by_venue(venue, "futures_account_balance", "get_account"), {}, read)

    def positions(self, symbol: str | None = None) -> list[ExchangePosition]:
        """Return the futures positions; symbols without position and open order are missing."""
        parameters = {} if symbol is None else {"symbol": symbol}
        return self._ask(
            Venue.USDM,
            "futures_position_information",
            parameters,
            lambda answer: answers.load_list(answer.body, answers.position),
        )

    def income(self, start_ms: int) -> list[Income]:
        """Return every line of the futures income history since `start_ms`, every page."""
        return self._history(
            Venue.USDM,
            "futures_income_history",
            {},
            answers.income,
            lambda line: line,
            start_ms=start_ms,
            page_limit=1000,
        )

    # Market

    def exchange_info(self, venue: Venue) -> ExchangeInfo:
        """Return the venue's symbol rules and rate limits."""
        return self._ask(
            venue,
            _by_venue(venue, "futures_exchange_info", "get_exchange_info"),
            {},
            lambda answer: read_exchange_info(venue, answers.load_object(answer.body)),
            is_signed=False,
        )

    def price(self, venue: Venue, symbol: str) -> Decimal:
        """Return the last price of `symbol`."""
        return self._ask(
            venue,
            _by_venue(venue, "futures_symbol_ticker", "get_symbol_ticker"),
            {"symbol": symbol},
            lambda answer: answers.decimal(answers.load_object(answer.body), "price"),
            is_signed=False,
        )

    # How

    def _trades(self, venue: Venue, parameters: Mapping[str, str]) -> list[ExchangeTrade]:
        read = _trade_reader(venue)
        limited = {**parameters, "limit": str(HISTORY_PAGE)}
        return self._ask(venue, _TRADES[venue], limited, lambda answer: answers.load_list(answer.body, read))

    def _trades_from(self, venue: Venue, parameters: Mapping[str, str], from_id: int) -> list[ExchangeTrade]:
        return self._complete(
            lambda: forward_pages(
                lambda first: self._trades(venue, {**parameters, "fromId": str(first)}),
                lambda trade: trade.trade_id,
                from_id=from_id,
                page_limit=HISTORY_PAGE,
            ),
            _TRADES[venue],
        )

    def _history(
        self,
        venue: Venue,
        endpoint: str,
        parameters: Mapping[str, str],
        read: Callable[[JsonObject], _Read],
        key: Callable[[_Read], object],
        *,
        start_ms: int,
        page_limit: int,
    ) -> list[_Read]:
        def fetch(first_ms: int, last_ms: int | None) -> list[_Read]:
            span = {"startTime": str(first_ms), "limit": str(page_limit)}
            if last_ms is not None:
                span["endTime"] = str(last_ms)
            return self._ask(
                venue, endpoint, {**parameters, **span}, lambda answer: answers.load_list(answer.body, read)
            )

        return self._complete(
            lambda: whole_span(
                fetch,
                key,
                start_ms=start_ms,
                now_ms=self._now_ms(venue),
                window_ms=HISTORY_WINDOW_MS[venue],
                page_limit=page_limit,
            ),
            endpoint,
        )

    def _complete(self, read_all: Callable[[], list[_Read]], endpoint: str) -> list[_Read]:
        try:
            return read_all()
        except AnswerShapeError as error:
            raise ExchangeQueryError(unreadable(rule="incomplete_history", message=str(error)), endpoint) from error


_TRADES: Final = {Venue.USDM: "futures_account_trades", Venue.SPOT: "get_my_trades"}


def _by_venue(venue: Venue, futures: str, spot: str) -> str:
    return futures if venue is Venue.USDM else spot


def _order_reader(venue: Venue) -> Callable[[JsonObject], ExchangeOrder]:
    return lambda told: answers.plain_order(venue, told)


def _trade_reader(venue: Venue) -> Callable[[JsonObject], ExchangeTrade]:
    return lambda told: answers.trade(venue, told)
