"""The exchange's limits, shared by all workers: what is counted before it is sent, and pauses that it asks for.

Request weight counts per address, orders per account. What opens risk stops short of a limit, so that cancels,
reductions and the questions that settle doubts always find room.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Final, cast

from redis import Redis
from redis.exceptions import RedisError

from app.job_safety import scripts
from app.job_safety.effect import EffectKind, GateMode
from app.job_safety.errors import InvariantViolatedError, StoreUnavailableError
from app.job_safety.names import GuardNames
from app.job_safety.outcome import Venue

_UNITS_MS: Final = {"S": 1_000, "M": 60_000, "H": 3_600_000, "D": 86_400_000}
ORDER_WEIGHT: Final = {Venue.USDM: 0, Venue.SPOT: 1}
CANCEL_WEIGHT: Final = 1
MAX_SEEN_AGE_S: Final = 2.0
"""A window of the exchange may have ended since."""

_WORDS_REMEMBERED: Final = 64


class Pause:
    """Closes a venue for everybody who shares this Redis, and tells whether it is closed."""

    def __init__(self, redis: Redis, names: GuardNames) -> None:
        self._redis = redis
        self._names = names
        self._pause = redis.register_script(scripts.source("pause"))

    def close(self, venue: str, *, for_ms: int, why: str, whole_address: bool) -> int:
        """Keep everybody from sending to `venue` for `for_ms`; return how long it stays closed.

        Args:
            venue: Which exchange.
            for_ms: How long. A longer pause that is already there stays.
            why: For people and logs.
            whole_address: Whether the limit counts for this IP address (weight, bans: everything stops, questions too)
                or for the account (new orders stop).

        Raises:
            StoreUnavailableError: Redis did not answer.
        """
        key = self._names.pauses(venue)[0 if whole_address else 1]
        try:
            return int(self._pause(keys=[key], args=[why, max(for_ms, 1)]))
        except RedisError as error:
            raise StoreUnavailableError(f"redis: {error}") from error

    def remaining_ms(self, venue: str) -> int:
        """Return for how long nothing at all may be sent to `venue`, not even a question; 0 if it is open.

        Raises:
            StoreUnavailableError: Redis did not answer.
        """
        try:
            return max(0, int(self._redis.pttl(self._names.pauses(venue)[0])))
        except RedisError as error:
            raise StoreUnavailableError(f"redis: {error}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """At most `most` of `kind` (weight, orders, raw) in any window of `window_ms`."""

    kind: str
    window_ms: int
    most: int


DEFAULTS: Final[Mapping[Venue, Sequence[Limit]]] = {
    Venue.USDM: (
        Limit(kind="weight", window_ms=60_000, most=2_400),
        Limit(kind="orders", window_ms=10_000, most=300),
        Limit(kind="orders", window_ms=60_000, most=1_200),
    ),
    Venue.SPOT: (
        Limit(kind="weight", window_ms=60_000, most=6_000),
        Limit(kind="orders", window_ms=10_000, most=100),
    ),
}
"""Binance's published limits, used only until the exchange's own answer has been read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RatePolicy:
    """How much of the limits is used: `use_percent` at most, and by what opens risk `reserve_percent` less."""

    mode: GateMode = GateMode.ENFORCE
    use_percent: int = 95
    reserve_percent: int = 20

    def share(self, kind: EffectKind) -> int:
        """Return the percentage of every limit that this kind of request may use up."""
        return self.use_percent - (self.reserve_percent if kind is EffectKind.OPEN else 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class RateBlocked:
    """The request does not fit now: `why` (`rate:weight`, `pause:429:…`), and in how many ms it may, if known."""

    why: str
    for_ms: int | None


class RateGate:
    """Counts what this process is about to send, together with everybody else's."""

    def __init__(
        self, redis: Redis, names: GuardNames, policy: RatePolicy, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.policy = policy
        self._redis = redis
        self._names = names
        self._monotonic = monotonic
        self._keys = cache(names.rates)
        self._words = lru_cache(_WORDS_REMEMBERED)(self._words_of)
        self._spend = redis.register_script(scripts.source("spend_weight"))
        self._seen: dict[Venue, tuple[float, str]] = {}
        self._mine = threading.local()

    @property
    def is_on(self) -> bool:
        """Whether anything is counted."""
        return self.policy.mode is not GateMode.OFF

    def keys(self, venue: str) -> Sequence[str]:
        """Return where a venue's limits and counters live."""
        return self._keys(venue)

    def order_words(self, kind: EffectKind, venue: Venue) -> str:
        """Return what Lua is told of an order or a cancel (lib_rate.lua)."""
        is_cancel = kind is EffectKind.CANCEL
        weight = CANCEL_WEIGHT if is_cancel else ORDER_WEIGHT[venue]
        return self.words(venue, kind, weight=weight, orders=0 if is_cancel else 1)

    def words(self, venue: Venue, kind: EffectKind, *, weight: int = 0, orders: int = 0) -> str:
        """Return what Lua is told of a request; empty when nothing is counted."""
        return self._words(venue, kind, weight, orders)

    def _words_of(self, venue: Venue, kind: EffectKind, weight: int, orders: int) -> str:
        if not self.is_on:
            return ""
        limits = limits_text(DEFAULTS[venue])
        return f"{self.policy.mode.value} {self.policy.share(kind)} {weight} {orders} {limits}"

    def spend(self, venue: Venue, weight: int) -> RateBlocked | str:
        """Count a question of `weight`; return why it must not be asked, or what an observing gate would have blocked.

        What `prepaid` has counted already costs nothing.

        Raises:
            StoreUnavailableError: Redis did not answer. A question opens no risk: the caller decides.
        """
        if self._take_prepaid(venue, weight):
            return ""
        script_keys = [*self.keys(venue.value), self._names.pauses(venue.value)[0]]
        arguments = [self.words(venue, EffectKind.BOOK, weight=weight), self.take_seen(venue)]
        try:
            told = self._spend(keys=script_keys, args=arguments)
        except RedisError as error:
            raise StoreUnavailableError(f"redis: {error}") from error
        match told:
            case [b"spent", bytes(would)]:
                return would.decode()
            case [b"blocked", bytes(why), int(left)]:
                return RateBlocked(why=why.decode(), for_ms=left if left >= 0 else None)
            case _:
                raise InvariantViolatedError(f"spend_weight.lua answered {told!r}")

    @contextmanager
    def prepaid(self, venue: Venue, weight: int) -> Iterator[None]:
        """Let the questions of this thread use `weight` that its admission has counted."""
        self._mine.venue, self._mine.weight = venue, weight
        try:
            yield
        finally:
            self._mine.weight = 0

    def saw(self, venue: Venue, *, used_weight: Mapping[str, int], order_count: Mapping[str, int]) -> None:
        """Keep what an answer's headers said of the exchange's own counters; the next round trip takes it along."""
        told = [*_seen_words("weight", used_weight), *_seen_words("orders", order_count)]
        if told:
            self._seen[venue] = (self._monotonic(), " ".join(told))

    def take_seen(self, venue: Venue) -> str:
        """Return what `saw` has kept, once (lib_rate_seen.lua), unless it is too old to speak of the present window."""
        seen_at, told = self._seen.pop(venue, (0.0, ""))
        return told if told and self._monotonic() - seen_at <= MAX_SEEN_AGE_S else ""

    def publish(self, venue: Venue, limits: Sequence[Limit]) -> None:
        """Make the exchange's own limits known to everybody.

        Raises:
            StoreUnavailableError: Redis did not answer.
        """
        try:
            self._redis.set(self.keys(venue.value)[0], limits_text(limits))
        except RedisError as error:
            raise StoreUnavailableError(f"redis: {error}") from error

    def limits(self, venue: Venue) -> tuple[Limit, ...] | None:
        """Return the limits that the exchange has published; None if nobody has read them yet.

        Raises:
            StoreUnavailableError: Redis did not answer.
        """
        try:
            told = cast("bytes | None", self._redis.get(self.keys(venue.value)[0]))
        except RedisError as error:
            raise StoreUnavailableError(f"redis: {error}") from error
        if told is None:
            return None
        words = told.decode().split()
        triples = zip(words[::3], words[1::3], words[2::3], strict=True)
        return tuple(Limit(kind=kind, window_ms=int(window), most=int(most)) for kind, window, most in triples)

    def _take_prepaid(self, venue: Venue, weight: int) -> bool:
        left: int = getattr(self._mine, "weight", 0)
        if left < weight or getattr(self._mine, "venue", None) is not venue:
            return False
        self._mine.weight = left - weight
        return weight > 0


def limits_text(limits: Sequence[Limit]) -> str:
    """Return limits as Lua reads them."""
    return " ".join(f"{limit.kind} {limit.window_ms} {limit.most}" for limit in limits)


def _seen_words(kind: str, counts: Mapping[str, int]) -> list[str]:
    """Return header counts (`1M`: 12) as Lua reads them; a label that is not understood is passed over."""
    words = []
    for label, count in counts.items():
        number, unit = label[:-1], label[-1:].upper()
        if number.isdigit() and unit in _UNITS_MS:
            words.append(f"{kind} {int(number) * _UNITS_MS[unit]} {count}")
    return words
