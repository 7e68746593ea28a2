"""The exchange's refusals: one exception, and the texts Binance documents for each code.

Source: the error code pages of the Binance USD-M futures and Spot documentation.
"""

from __future__ import annotations

BAD_REQUEST = 400
UNAUTHORIZED = 401
TOO_MANY_REQUESTS = 429
TEAPOT = 418


class PaperError(Exception):
    """A request that the exchange refuses; nothing was changed.

    Attributes:
        code: Binance's error code (negative).
        msg: Binance's text for it.
        status: HTTP status of the reply.
        headers: Extra reply headers, such as Retry-After.
    """

    def __init__(
        self, code: int, msg: str, status: int = BAD_REQUEST, headers: tuple[tuple[str, str], ...] = ()
    ) -> None:
        super().__init__(code, msg, status, headers)
        self.code = code
        self.msg = msg
        self.status = status
        self.headers = headers


def missing(name: str) -> PaperError:
    """A mandatory parameter is absent, empty or malformed."""
    return PaperError(-1102, f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed.")


def illegal_characters(name: str, legal: str) -> PaperError:
    """A parameter holds characters outside its legal range."""
    return PaperError(-1100, f"Illegal characters found in parameter '{name}'; legal range is '{legal}'.")


def invalid(name: str) -> PaperError:
    """A parameter that is present has a value that is not allowed."""
    return PaperError(-1130, f"Data sent for parameter '{name}' is not valid.")


def invalid_symbol() -> PaperError:
    """The symbol is not traded here."""
    return PaperError(-1121, "Invalid symbol.")


def no_such_order() -> PaperError:
    """A query found nothing."""
    return PaperError(-2013, "Order does not exist.")


def unknown_order() -> PaperError:
    """A cancel found nothing open."""
    return PaperError(-2011, "Unknown order sent.")


def outside_recv_window() -> PaperError:
    """The timestamp is too old for its recvWindow."""
    return PaperError(-1021, "Timestamp for this request is outside of the recvWindow.")


def ahead_of_server() -> PaperError:
    """The timestamp lies a second or more in the future."""
    return PaperError(-1021, "Timestamp for this request was 1000ms ahead of the server's time.")


def outside_engine_window() -> PaperError:
    """Futures only: the order reached the matching engine after its recvWindow."""
    return PaperError(-5028, "Timestamp for this request is outside of the ME recvWindow.")


def insufficient_balance() -> PaperError:
    """Spot: not enough of the asset that the order spends."""
    return PaperError(-2010, "Account has insufficient balance for requested action.")


def filter_failure(name: str) -> PaperError:
    """Spot: the order breaks the named filter."""
    return PaperError(-1013, f"Filter failure: {name}")
