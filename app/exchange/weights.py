"""What a question costs of the address' request weight (BINANCE: each endpoint's documentation), before it is asked."""

from collections.abc import Callable, Mapping
from typing import Final

from app.job_safety.outcome import Venue

_Parameters = Mapping[str, str]
_Weight = int | Callable[[_Parameters], int]

_USDM: Final[Mapping[str, _Weight]] = {
    "futures_time": 1,
    "futures_exchange_info": 1,
    "futures_symbol_ticker": lambda asked: 1 if "symbol" in asked else 2,
    "futures_get_order": 1,
    "futures_get_algo_order": 1,
    "futures_get_open_orders": lambda asked: 1 if "symbol" in asked else 40,
    "futures_get_open_algo_orders": lambda asked: 1 if "symbol" in asked else 40,
    "futures_get_all_orders": 5,
    "futures_get_all_algo_orders": 5,
    "futures_account_trades": 5,
    "futures_account_balance": 5,
    "futures_position_information": 5,
    "futures_income_history": 30,
}
_SPOT: Final[Mapping[str, _Weight]] = {
    "get_server_time": 1,
    "get_exchange_info": 20,
    "get_symbol_ticker": lambda asked: 2 if "symbol" in asked else 4,
    "get_order": 4,
    "get_open_orders": lambda asked: 6 if "symbol" in asked else 80,
    "get_all_orders": 20,
    "get_my_trades": lambda asked: 5 if "orderId" in asked else 20,
    "get_account": 20,
}
_BY_VENUE: Final = {Venue.USDM: _USDM, Venue.SPOT: _SPOT}
UNLISTED: Final = 40
"""What an endpoint that is not listed is taken for: dear rather than cheap."""


def weight_of(venue: Venue, endpoint: str, parameters: _Parameters) -> int:
    """Return the request weight of asking `endpoint` once."""
    weight = _BY_VENUE[venue].get(endpoint, UNLISTED)
    return weight if isinstance(weight, int) else weight(parameters)
