"""Which URLs are fit to be a store or an exchange. Each function returns what is wrong, or None."""

from ipaddress import ip_address
from typing import Final
from urllib.parse import SplitResult, urlsplit

from app.settings.mode import TradingMode

LIVE_HOSTS: Final = {
    "/fapi": frozenset({"fapi.binance.com"}),
    "/api": frozenset(
        {"api.binance.com", "api-gcp.binance.com", "api1.binance.com", "api2.binance.com", "api3.binance.com"}
        | {"api4.binance.com"}
    ),
}
"""Binance's own trading hosts. https://developers.binance.com/docs/binance-spot-api-docs/rest-api/general-api-information"""

TESTNET_HOSTS: Final = {
    "/fapi": frozenset({"testnet.binancefuture.com", "demo-fapi.binance.com"}),
    "/api": frozenset({"testnet.binance.vision", "demo-api.binance.com"}),
}
"""Where orders cost nothing. A testnet runs with permits bypassed, so no other host may pass for one."""

TESTNET_FUTURES_URL: Final = "https://testnet.binancefuture.com/fapi"
TESTNET_SPOT_URL: Final = "https://testnet.binance.vision/api"

_REDIS_SCHEMES: Final = ("redis", "rediss", "unix", "redis+sentinel")
_DATABASE_SCHEMES: Final = ("sqlite", "postgresql+psycopg")


def is_loopback(url: str) -> bool:
    """Return whether `url` points at this machine and nowhere else."""
    host = _split(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def exchange_url_error(url: str, *, suffix: str, mode: TradingMode) -> str | None:
    """Return why `url` cannot be the exchange's base URL in `mode`, or None.

    Args:
        url: the base URL.
        suffix: the path it must end in: `/fapi` or `/api`.
        mode: decides which hosts may be talked to at all.
    """
    parts = _split(url)
    host = parts.hostname or ""
    if parts.scheme not in {"http", "https"} or not host:
        return f"must be an http or https URL such as https://host{suffix}"
    if parts.query or parts.fragment or parts.username is not None or any(mark in url for mark in "{} \t\r\n"):
        return f"must be a plain base URL such as https://host{suffix}: no user, query, fragment, braces or spaces"
    if not parts.path.endswith(suffix):
        return f"must end in {suffix}"
    loopback = is_loopback(url)
    if parts.scheme == "http" and not loopback:
        return "plain http is for loopback only: use https"
    if mode is TradingMode.PAPER and not loopback:
        return "mode paper talks to the local exchange only: use a loopback address, or another TRADING_MODE"
    if mode is TradingMode.TESTNET and not loopback and host not in TESTNET_HOSTS[suffix]:
        return f"is no testnet host; mode testnet talks to {', '.join(sorted(TESTNET_HOSTS[suffix]))} or loopback"
    if mode is TradingMode.LIVE and not (host in LIVE_HOSTS[suffix] and parts.port in {None, 443}):
        return f"is not Binance's own host; mode live talks to {', '.join(sorted(LIVE_HOSTS[suffix]))}"
    return None


def redis_url_error(url: str) -> str | None:
    """Return why `url` cannot name a Redis, or None."""
    return _scheme_error(url, _REDIS_SCHEMES)


def database_url_error(url: str) -> str | None:
    """Return why `url` cannot name a journal, or None."""
    scheme, _, place = url.partition("://")
    if scheme in {"postgres", "postgresql"}:
        return "must name its driver: write postgresql+psycopg://"
    if scheme == "sqlite" and (not place.strip("/") or ":memory:" in place or "mode=memory" in place):
        return "is a database in memory: a journal must outlive its process; name a file, sqlite:////absolute/path"
    return _scheme_error(url, _DATABASE_SCHEMES)


def webhook_url_error(url: str) -> str | None:
    """Return why `url` cannot take alerts, or None. Never quotes it: it may hold a token."""
    parts = _split(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        return "must be an https URL"
    if parts.scheme == "http" and not is_loopback(url):
        return "plain http is for loopback only: use https"
    return None


def _scheme_error(url: str, schemes: tuple[str, ...]) -> str | None:
    scheme, mark, place = url.partition("://")
    if mark and place and scheme in schemes:
        return None
    return f"must begin with {', '.join(f'{name}://' for name in schemes)}"


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises on nonsense, which must not surface later
    except ValueError:
        return urlsplit("")
    return parts
