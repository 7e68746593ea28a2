"""Request parameters: parsing and typed access, with Binance's errors for what is absent or malformed."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from urllib.parse import unquote_plus

from app.exchange.paper.errors import PaperError, illegal_characters, invalid, missing

Params = dict[str, str]

_NUMBER = re.compile(r"[0-9]{1,20}(\.[0-9]{1,20})?")
_NUMBER_RANGE = "^([0-9]{1,20})(\\.[0-9]{1,20})?$"
_FUTURES_ID = re.compile(r"[\.A-Z\:/a-z0-9_-]{1,36}")
_SPOT_ID = re.compile(r"[a-zA-Z0-9_-]{1,36}")
_MAX_ID_LENGTH = 36


def parse(query: str, body: str) -> Params:
    """Parameters of query string and form body together; on a clash the query string wins, as at Binance."""
    found: Params = {}
    for source in (body, query):
        for pair in source.split("&") if source else ():
            name, _, value = pair.partition("=")
            found[name] = unquote_plus(value) if "%" in value or "+" in value else value
    return found


def required(params: Params, name: str) -> str:
    """A parameter that must be there.

    Raises:
        PaperError: -1102.
    """
    value = params.get(name)
    if not value:
        raise missing(name)
    return value


def integer(params: Params, name: str) -> int | None:
    """A whole number, or None if it was not sent.

    Raises:
        PaperError: -1100 if it is not a number.
    """
    value = params.get(name)
    if not value:
        return None
    if not value.isdigit() or len(value) > 20:
        raise illegal_characters(name, "^[0-9]{1,20}$")
    return int(value)


def decimal(params: Params, name: str) -> Decimal | None:
    """A decimal number, or None if it was not sent. Signs and exponents are illegal, as at Binance.

    Raises:
        PaperError: -1100.
    """
    value = params.get(name)
    if not value:
        return None
    if not _NUMBER.fullmatch(value):
        raise illegal_characters(name, _NUMBER_RANGE)
    try:
        return Decimal(value)
    except InvalidOperation as error:
        raise illegal_characters(name, _NUMBER_RANGE) from error


def boolean(params: Params, name: str) -> bool:
    """``true`` or ``false``, false if it was not sent.

    Raises:
        PaperError: -1130.
    """
    value = params.get(name, "false").lower()
    if value not in {"true", "false"}:
        raise invalid(name)
    return value == "true"


def one_of(params: Params, name: str, allowed: frozenset[str], default: str, *, code: int, msg: str) -> str:
    """One of a few words.

    Raises:
        PaperError: ``code`` and ``msg`` for any other word.
    """
    value = params.get(name) or default
    if value not in allowed:
        raise PaperError(code, msg)
    return value


def side(params: Params) -> str:
    """BUY or SELL.

    Raises:
        PaperError: -1102 or -1117.
    """
    required(params, "side")
    return one_of(params, "side", frozenset({"BUY", "SELL"}), "", code=-1117, msg="Invalid side.")


def time_in_force(params: Params, allowed: frozenset[str], default: str) -> str:
    """How long an order stays.

    Raises:
        PaperError: -1115.
    """
    return one_of(params, "timeInForce", allowed, default, code=-1115, msg="Invalid timeInForce.")


def futures_client_id(params: Params, name: str) -> str | None:
    """A futures client order id, or None if it was not sent.

    Raises:
        PaperError: -4015 (too long) or -1100.
    """
    value = params.get(name)
    if not value:
        return None
    if len(value) > _MAX_ID_LENGTH:
        raise PaperError(-4015, "Client order id length should not be more than 36 chars.")
    if not _FUTURES_ID.fullmatch(value):
        raise illegal_characters(name, r"^[\.A-Z\:/a-z0-9_-]{1,36}$")
    return value


def spot_client_id(params: Params, name: str) -> str | None:
    """A Spot client order id, or None if it was not sent.

    Raises:
        PaperError: -1100.
    """
    value = params.get(name)
    if not value:
        return None
    if not _SPOT_ID.fullmatch(value):
        raise illegal_characters(name, "^[a-zA-Z0-9-_]{1,36}$")
    return value


def limit(params: Params, default: int, most: int) -> int:
    """Page size.

    Raises:
        PaperError: -1100 or -1130.
    """
    value = integer(params, "limit")
    if value is None:
        return default
    if value < 1:
        raise invalid("limit")
    return min(value, most)
