"""Rate limits of one venue: request weight per address and minute, orders per account, growing bans.

Windows are aligned to the exchange clock, as Binance's are. Counters live in memory: a restart forgets them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from app.exchange.paper.errors import TEAPOT, TOO_MANY_REQUESTS, PaperError
from app.exchange.paper.model import Venue

MINUTE_MS = 60_000
FIRST_BAN_S = 120
LONGEST_BAN_S = 3 * 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderLimit:
    """At most ``most`` orders per ``window_ms``. ``label`` is Binance's suffix in the header."""

    label: str
    interval: str
    interval_num: int
    window_ms: int
    most: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitProfile:
    """The limits of one venue. ``ban_after`` requests answered 429 in one minute lead to a ban."""

    weight_per_minute: int
    orders: tuple[OrderLimit, ...]
    max_open_orders: int = 200
    ban_after: int = 10


_WIDE = 1_000_000_000


_ORDER_WINDOWS = {"orders_10s": "10S", "orders_1m": "1M", "orders_1d": "1D"}


def profile(name: str, venue: Venue) -> LimitProfile:
    """The limits called ``binance`` or ``wide``, or Binance's with some replaced: ``weight=300,orders_10s=15``.

    Replaceable are ``weight`` (per minute), ``orders_10s``, ``orders_1m``, ``orders_1d`` (where the venue has such a
    window) and ``ban_after`` (how many requests of a minute are answered 429 before the address is banned).

    Raises:
        ValueError: No such profile, or no such limit.
    """
    if "=" in name:
        return _changed(profile("binance", venue), name)
    if name not in {"binance", "wide"}:
        raise ValueError(f"no limit profile called {name!r}")
    is_wide = name == "wide"
    if venue is Venue.FUTURES:
        rows = (("10S", "SECOND", 10, 10_000, 300), ("1M", "MINUTE", 1, MINUTE_MS, 1200))
        weight = 2400
    else:
        rows = (("10S", "SECOND", 10, 10_000, 100), ("1D", "DAY", 1, 86_400_000, 200_000))
        weight = 6000
    return LimitProfile(
        weight_per_minute=_WIDE if is_wide else weight,
        max_open_orders=_WIDE if is_wide else 200,
        orders=tuple(
            OrderLimit(
                label=label, interval=interval, interval_num=num, window_ms=window, most=_WIDE if is_wide else most
            )
            for label, interval, num, window, most in rows
        ),
    )


def _changed(limits: LimitProfile, words: str) -> LimitProfile:
    told: dict[str, int] = {}
    for word in words.split(","):
        key, _, number = word.partition("=")
        if key not in {"weight", "ban_after", *_ORDER_WINDOWS} or not (number.isascii() and number.isdigit()):
            raise ValueError(f"no such limit: {word!r}")
        told[key] = int(number)
    most = {_ORDER_WINDOWS[key]: number for key, number in told.items() if key in _ORDER_WINDOWS}
    return replace(
        limits,
        weight_per_minute=told.get("weight", limits.weight_per_minute),
        ban_after=told.get("ban_after", limits.ban_after),
        orders=tuple(replace(rule, most=most.get(rule.label, rule.most)) for rule in limits.orders),
    )


@dataclass(slots=True, kw_only=True)
class _Address:
    minute: int = 0
    weight: int = 0
    refused: int = 0
    banned_until_ms: int = 0
    bans: int = 0


class RateLimiter:
    """Counts requests and orders of one venue."""

    def __init__(self, limits: LimitProfile, venue: Venue) -> None:
        self.limits = limits
        self._venue = venue
        self._addresses: dict[str, _Address] = {}
        self._orders: list[tuple[int, int]] = [(0, 0) for _ in limits.orders]
        self.refusals = {429: 0, 418: 0}
        """How many requests have been refused, by HTTP status."""

    def take_weight(self, peer: str, weight: int, now_ms: int) -> tuple[str, str]:
        """Count a request; returns the header that says how much is used.

        Raises:
            PaperError: -1003 with HTTP 429, or 418 while the address is banned.
        """
        address = self._addresses.get(peer)
        if address is None:
            address = self._addresses[peer] = _Address()
        if now_ms < address.banned_until_ms:
            self.refusals[418] += 1
            raise _banned(address.banned_until_ms, now_ms)
        minute = now_ms // MINUTE_MS
        if minute != address.minute:
            address.minute, address.weight, address.refused = minute, 0, 0
        address.weight += weight
        if address.weight > self.limits.weight_per_minute:
            raise self._too_much(address, peer, now_ms)
        return ("X-MBX-USED-WEIGHT-1M", str(address.weight))

    def _too_much(self, address: _Address, peer: str, now_ms: int) -> PaperError:
        address.refused += 1
        if address.refused > self.limits.ban_after:
            ban_s = min(FIRST_BAN_S * 2**address.bans, LONGEST_BAN_S)
            address.bans += 1
            address.banned_until_ms = now_ms + ban_s * 1000
            self.refusals[418] += 1
            return _banned(address.banned_until_ms, now_ms)
        self.refusals[429] += 1
        wait = ("Retry-After", str(_seconds_left(now_ms, MINUTE_MS)))
        used = ("X-MBX-USED-WEIGHT-1M", str(address.weight))
        most = self.limits.weight_per_minute
        text = (
            f"Too many requests; current limit of IP({peer}) is {most} requests per minute. "
            "Please use the websocket for live updates to avoid polling the API."
            if self._venue is Venue.FUTURES
            else f"Too much request weight used; current limit is {most} request weight per 1 MINUTE. "
            "Please use WebSocket Streams for live updates to avoid polling the API."
        )
        return PaperError(-1003, text, TOO_MANY_REQUESTS, (wait, used))

    def take_order(self, now_ms: int) -> None:
        """Count a new order.

        Raises:
            PaperError: -1015 with HTTP 429.
        """
        for index, (rule, (window, count)) in enumerate(zip(self.limits.orders, self._orders, strict=True)):
            if window == now_ms // rule.window_ms and count >= rule.most:
                self.refusals[429] += 1
                text = (
                    f"Too many new orders; current limit is {rule.most} orders per {rule.interval_num} {rule.interval}."
                )
                wait = ("Retry-After", str(_seconds_left(now_ms, rule.window_ms)))
                raise PaperError(-1015, text, TOO_MANY_REQUESTS, (wait,))
            if window != now_ms // rule.window_ms:
                self._orders[index] = (now_ms // rule.window_ms, 0)
        self._orders = [(window, count + 1) for window, count in self._orders]

    def order_filled(self) -> None:
        """Spot counts unfilled orders only: a fill gives one back."""
        if self._venue is Venue.SPOT:
            self._orders = [(window, max(count - 1, 0)) for window, count in self._orders]

    def order_counts(self, now_ms: int) -> list[tuple[OrderLimit, int]]:
        """Orders counted in each current window."""
        return [
            (rule, count if window == now_ms // rule.window_ms else 0)
            for rule, (window, count) in zip(self.limits.orders, self._orders, strict=True)
        ]

    def order_headers(self, now_ms: int) -> tuple[tuple[str, str], ...]:
        """The headers of a reply to a new order."""
        return tuple((f"X-MBX-ORDER-COUNT-{rule.label}", str(count)) for rule, count in self.order_counts(now_ms))


def _seconds_left(now_ms: int, window_ms: int) -> int:
    return (window_ms - now_ms % window_ms + 999) // 1000


def _banned(until_ms: int, now_ms: int) -> PaperError:
    text = (
        f"Way too much request weight used; IP banned until {until_ms}. "
        "Please use the websocket for live updates to avoid bans."
    )
    return PaperError(-1003, text, TEAPOT, (("Retry-After", str((until_ms - now_ms + 999) // 1000)),))
