"""Fault schedules: rules that make the exchange fail on purpose, and count how often they did.

A rule is a match and an action. Every rule whose match fits a request strikes; their effects add up (delays sum, for
the rest the first rule that says something wins). Faults live in memory only: a restarted exchange has none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from enum import StrEnum
from fnmatch import fnmatchcase
from random import Random
from typing import Any

from app.exchange.paper.canned import CannedReply, canned
from app.exchange.paper.wire import Manner, Reply


class FaultAction(StrEnum):
    """What a rule does to a request it strikes."""

    ANSWER_LOST_AFTER_EXECUTION = "answer_lost_after_execution"
    """Executed; the connection is closed without a reply."""
    RESET_BEFORE = "reset_before"
    """Not executed; the connection is reset."""
    RESET_AFTER = "reset_after"
    """Executed; the connection is reset."""
    DELAY_BEFORE = "delay_before_ms"
    """Passes the gateway's checks, then waits ``ms`` before the engine, which checks recvWindow again."""
    DELAY_REPLY = "delay_reply_ms"
    """Executed at once, answered ``ms`` later."""
    REPLY_INSTEAD = "reply_instead"
    """Not executed; the given or canned reply is sent."""
    REPLY_AFTER_EXECUTION = "reply_after_execution"
    """Executed; the given or canned reply is sent instead of the true one."""
    TRUNCATE_JSON = "truncate_json"
    """Executed; the JSON ends in the middle, with a Content-Length that fits what is sent."""
    CUT_BODY = "cut_body"
    """Executed; the connection closes in the middle of the body."""
    DRIP = "drip"
    """Executed; the reply comes byte by byte, ``ms`` apart."""
    DUPLICATE_ACK = "duplicate_ack"
    """Executed once; the reply is sent twice on the same connection."""
    READ_LAG = "read_lag_ms"
    """A read (orders, trades, balances, positions, income: by its path) shows the account as it was ``ms`` ago."""
    PARTIAL_FILL = "partial_fill"
    """An order finds liquidity for ``fraction`` of its quantity only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultMatch:
    """Which requests a rule strikes; what is not given matches all.

    Attributes:
        method: HTTP method.
        path: Path, or a glob such as ``/fapi/*/order``.
        venue: ``futures`` or ``spot``.
        symbol: Value of the ``symbol`` parameter.
        client_order_id: Regular expression, searched in the client (algo) order id.
        nth: Strike only the nth fitting request, from 1.
        probability: Strike with this probability, of 1, drawn from the schedule's seed.
        times: Strike at most this often.
    """

    method: str = ""
    path: str = ""
    venue: str = ""
    symbol: str = ""
    client_order_id: str = ""
    nth: int = 0
    probability: float = 1.0
    times: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultRule:
    """One rule. ``reply`` is for the two reply actions, ``fraction`` (a decimal) for partial fills."""

    name: str
    action: FaultAction
    match: FaultMatch = FaultMatch()
    ms: int = 0
    fraction: str = "0.5"
    canned: CannedReply | None = None
    reply: Reply | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Strike:
    """The sum of all rules that struck one request."""

    delay_before_ms: int = 0
    delay_reply_ms: int = 0
    read_lag_ms: int = 0
    fraction: str = ""
    refuse_manner: Manner | None = None
    reply_instead: Reply | None = None
    reply_after: Reply | None = None
    truncate_json: bool = False
    manner: Manner = Manner.WHOLE
    drip_ms: int = 0


NO_STRIKE = Strike()


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What the rules look at."""

    method: str
    path: str
    venue: str
    params: dict[str, str]
    now_ms: int

    @property
    def client_order_id(self) -> str:
        """The client order id the request names, if any."""
        for name in ("newClientOrderId", "origClientOrderId", "clientAlgoId"):
            if name in self.params:
                return self.params[name]
        return ""

    @property
    def is_risk_reducing(self) -> bool:
        """Binance exempts such orders from -1008."""
        return "true" in (self.params.get("reduceOnly", "").lower(), self.params.get("closePosition", "").lower())


@dataclass(slots=True, kw_only=True)
class _Counter:
    rule: FaultRule
    seen: int = 0
    struck: int = 0
    pattern: re.Pattern[str] | None = None


@dataclass(slots=True, kw_only=True)
class FaultPlan:
    """The schedule in force."""

    counters: list[_Counter] = field(default_factory=list)
    random: Random

    @classmethod
    def of(cls, rules: list[FaultRule], seed: int = 1) -> FaultPlan:
        """A schedule with fresh counters.

        Raises:
            re.error: A client_order_id pattern is not a regular expression.
        """
        counters = [
            _Counter(
                rule=rule,
                pattern=re.compile(rule.match.client_order_id) if rule.match.client_order_id else None,
            )
            for rule in rules
        ]
        return cls(counters=counters, random=Random(seed))  # noqa: S311  reproducible faults, not a secret

    def strike(self, target: Target) -> Strike:
        """Let every fitting rule strike; returns what to do to the request."""
        effect = NO_STRIKE
        for counter in self.counters:
            if self._fits(counter, target):
                counter.struck += 1
                effect = _add(effect, counter.rule, target)
        return effect

    def _fits(self, counter: _Counter, target: Target) -> bool:
        rule, match = counter.rule, counter.rule.match
        if match.method and match.method != target.method:
            return False
        if match.path and match.path != target.path and not fnmatchcase(target.path, match.path):
            return False
        if match.venue and match.venue != target.venue:
            return False
        if match.symbol and match.symbol != target.params.get("symbol"):
            return False
        if counter.pattern is not None and not counter.pattern.search(target.client_order_id):
            return False
        if rule.canned is CannedReply.THROTTLED_1008 and target.is_risk_reducing:
            return False
        counter.seen += 1
        if match.times and counter.struck >= match.times:
            return False
        if match.nth and counter.seen != match.nth:
            return False
        return match.probability >= 1 or self.random.random() < match.probability

    def report(self) -> list[dict[str, Any]]:
        """Per rule: how many requests fitted and how many were struck."""
        return [
            {
                "name": one.rule.name,
                "action": one.rule.action.value,
                "canned": one.rule.canned.value if one.rule.canned else None,
                "seen": one.seen,
                "struck": one.struck,
            }
            for one in self.counters
        ]


_MANNERS = {
    FaultAction.ANSWER_LOST_AFTER_EXECUTION: Manner.CLOSE,
    FaultAction.RESET_AFTER: Manner.RESET,
    FaultAction.CUT_BODY: Manner.CUT,
    FaultAction.DUPLICATE_ACK: Manner.TWICE,
    FaultAction.DRIP: Manner.DRIP,
}


def _add(effect: Strike, rule: FaultRule, target: Target) -> Strike:
    reply = canned(rule.canned, target.path, target.now_ms) if rule.canned is not None else rule.reply
    match rule.action:
        case FaultAction.RESET_BEFORE:
            return replace(effect, refuse_manner=effect.refuse_manner or Manner.RESET)
        case FaultAction.DELAY_BEFORE:
            return replace(effect, delay_before_ms=effect.delay_before_ms + rule.ms)
        case FaultAction.DELAY_REPLY:
            return replace(effect, delay_reply_ms=effect.delay_reply_ms + rule.ms)
        case FaultAction.REPLY_INSTEAD:
            return replace(effect, reply_instead=effect.reply_instead or reply)
        case FaultAction.REPLY_AFTER_EXECUTION:
            return replace(effect, reply_after=effect.reply_after or reply)
        case FaultAction.TRUNCATE_JSON:
            return replace(effect, truncate_json=True)
        case FaultAction.READ_LAG:
            return replace(effect, read_lag_ms=effect.read_lag_ms + rule.ms)
        case FaultAction.PARTIAL_FILL:
            return replace(effect, fraction=effect.fraction or rule.fraction)
        case _:
            if effect.manner is not Manner.WHOLE:
                return effect
            return replace(effect, manner=_MANNERS[rule.action], drip_ms=rule.ms or 20)
