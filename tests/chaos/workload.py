"""What is asked for while things break: a seeded mix of orders, each with the ends that are right for it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

from app.job_safety.state import IntentState

S = IntentState
LONG_S = 600
"""Validity of what must not expire: longer than any run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """One intent, as it is submitted, and the states in which it may end."""

    intent: dict[str, Any]
    ends: frozenset[IntentState]

    @property
    def key(self) -> str:
        """Its idempotency key."""
        return str(self.intent["key"])


FILLED = frozenset({S.FILLED})
MAY_EXPIRE = frozenset({S.FILLED, S.EXPIRED})
MAY_BE_CUT = frozenset({S.FILLED, S.EXPIRED_BY_EXCHANGE})
CANCELED = frozenset({S.CANCELED, S.EXPIRED, S.FILLED})
REDUCED = frozenset({S.FILLED, S.REJECTED, S.EXPIRED_BY_EXCHANGE, S.EXPIRED})
"""Reduce-only: refused when there is nothing left to reduce; EXPIRED if that was so after an attempt in doubt."""

DONE = frozenset({S.DONE, S.REJECTED})


def market(key: str, *, side: str = "BUY", symbol: str = "BTCUSDT", venue: str = "usdm", **more: Any) -> Wish:
    """Return a market order that must be filled."""
    quantity = "0.010" if symbol == "BTCUSDT" else "0.200"
    intent = {
        "type": "order", "key": key, "venue": venue, "symbol": symbol, "side": side, "quantity": quantity,
        "valid_for_s": LONG_S, **more,
    }  # fmt: skip
    return Wish(intent=intent, ends=FILLED)


@dataclass(slots=True)
class Workload:
    """Makes wishes for ever; the same seed makes the same ones."""

    random: Random
    prefix: str = "w"
    count: int = 0
    kinds: list[str] = field(
        default_factory=lambda: ["market"] * 8 + ["spot"] * 2 + ["short", "ioc", "reduce", "resting"]
    )

    def __iter__(self) -> Iterator[list[Wish]]:
        """Yield the next wishes that belong together: mostly one, for a resting order it and its cancel."""
        while True:
            self.count += 1
            yield self._next(f"{self.prefix}-{self.count:04d}", self.random.choice(self.kinds))

    def _next(self, key: str, kind: str) -> list[Wish]:
        side = self.random.choice(["BUY", "SELL"])
        symbol = self.random.choice(["BTCUSDT", "BTCUSDT", "ETHUSDT"])
        match kind:
            case "spot":
                return [market(key, side="BUY", symbol="BTCUSDT", venue="spot")]
            case "short":
                one = market(key, side=side, symbol=symbol, valid_for_s=8)
                return [Wish(intent=one.intent, ends=MAY_EXPIRE)]
            case "ioc":
                price = {"BUY": "21000.00", "SELL": "19000.00"}[side]
                one = market(key, side=side, order_type="LIMIT", time_in_force="IOC", price=price)
                return [Wish(intent=one.intent, ends=MAY_BE_CUT)]
            case "reduce":
                one = market(key, side="SELL", symbol=symbol, reduce_only=True)
                return [Wish(intent={**one.intent, "valid_for_s": None}, ends=REDUCED)]
            case "resting":
                one = market(key, side="BUY", order_type="LIMIT", price="15000.00")
                cancel = {"type": "cancel", "key": f"{key}-cancel", "order_key": key}
                return [Wish(intent=one.intent, ends=CANCELED), Wish(intent=cancel, ends=DONE)]
            case _:
                return [market(key, side=side, symbol=symbol)]
