"""What can be broken: every way in which the exchange can answer an order, and the strikes of a storm.

The modes are made from the enums of the local exchange: a new action or canned reply is a new case by itself.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import Any

from app.exchange.paper.canned import CannedReply
from app.exchange.paper.faults import FaultAction
from app.job_safety.faults import FaultPoint

LAG = "lag"
ORDER_PATH = "/*/*/order"
READ_PATH = "/*/v*/*"

CERTAINLY_NOT_EXECUTED = frozenset(
    {
        CannedReply.UNAVAILABLE_503,
        CannedReply.DISCONNECTED_503,
        CannedReply.THROTTLED_1008,
        CannedReply.BUSY_1008,
        CannedReply.TIMESTAMP_1021,
        CannedReply.TOO_MANY_ORDERS_1015,
        CannedReply.RATE_LIMITED_429,
        CannedReply.BANNED_418,
        CannedReply.HTML_403,
    }
)
"""Replies that by the exchange's documentation mean "not executed" (on futures). After an execution they would be a
lie, against which nobody can be safe. Written down here, not asked of our classifier: a reply that it takes wrongly for
a refusal must turn a run red."""

CLOSES_THE_VENUE = frozenset(
    {CannedReply.TOO_MANY_ORDERS_1015, CannedReply.RATE_LIMITED_429, CannedReply.BANNED_418, CannedReply.HTML_403}
)
"""Replies after which nobody sends for 10 s to 2 min. A run lets that time pass at once: it ends the pause in Redis."""

ACTIONS_WITH_REPLY = {FaultAction.REPLY_INSTEAD, FaultAction.REPLY_AFTER_EXECUTION}
IN_TIME_MS, TOO_LATE_MS, LAG_MS = 500, 1_600, 2_500
"""Delays around the scaled-down fence of 1 s: executed, refused, and a read side that lags behind all of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mode:
    """One way to answer an order."""

    name: str
    action: FaultAction
    canned: CannedReply | None = None
    ms: int = 0

    @property
    def closes_the_venue(self) -> bool:
        """Whether everybody stops sending after it."""
        return self.canned in CLOSES_THE_VENUE

    @property
    def rule_names(self) -> tuple[str, ...]:
        """The names of the rules that must all strike for the mode to have struck."""
        return (self.name, f"{self.name} (order)") if self.action is FaultAction.READ_LAG else (self.name,)

    @property
    def is_refusal(self) -> bool:
        """Whether the order was certainly not executed, and whoever sent it is told so."""
        is_too_late = self.action is FaultAction.DELAY_BEFORE and self.ms == TOO_LATE_MS
        return is_too_late or (self.action is FaultAction.REPLY_INSTEAD and self.canned in CERTAINLY_NOT_EXECUTED)

    def rule(self) -> dict[str, Any]:
        """Return the exchange's rule, which still matches everything."""
        rule: dict[str, Any] = {"name": self.name, "action": self.action.value}
        if self.ms:
            rule["ms"] = self.ms
        if self.canned is not None:
            rule["canned"] = self.canned.value
        return rule

    def rules(self, client_order_id: str) -> list[dict[str, Any]]:
        """Return the exchange's rules that let this strike the order's first request, once."""
        match: dict[str, Any] = {
            "method": "POST", "path": ORDER_PATH, "client_order_id": f"^{client_order_id}$", "times": 1
        }  # fmt: skip
        rule = {**self.rule(), "match": match}
        if self.action is not FaultAction.READ_LAG:
            return [rule]
        # A read side that lags matters to an order whose answer was lost; all that is read lags alike.
        lost = {**rule, "name": self.rule_names[-1], "action": FaultAction.ANSWER_LOST_AFTER_EXECUTION.value}
        return [lost, {**self.rule(), "match": {"method": "GET", "path": READ_PATH}}]


def modes() -> list[Mode]:
    """Return every way to answer an order."""
    return [*_plain_modes(), *_reply_modes()]


def _plain_modes() -> Iterator[Mode]:
    delays = {
        FaultAction.DELAY_BEFORE: (IN_TIME_MS, TOO_LATE_MS),
        FaultAction.DELAY_REPLY: (IN_TIME_MS, TOO_LATE_MS),
        FaultAction.READ_LAG: (LAG_MS,),
        FaultAction.DRIP: (2,),
    }
    for action in FaultAction:
        if action not in ACTIONS_WITH_REPLY:
            for ms in delays.get(action, (0,)):
                yield Mode(name=f"{action.value}_{ms}" if ms else action.value, action=action, ms=ms)


def _reply_modes() -> Iterator[Mode]:
    for reply in CannedReply:
        yield Mode(name=f"{reply.value}:not_executed", action=FaultAction.REPLY_INSTEAD, canned=reply)
        if reply not in CERTAINLY_NOT_EXECUTED:
            yield Mode(name=f"{reply.value}:executed", action=FaultAction.REPLY_AFTER_EXECUTION, canned=reply)


def matrix() -> list[tuple[FaultPoint, Mode]]:
    """Return every fault point with every mode."""
    return [(point, mode) for mode in modes() for point in FaultPoint]


def dealt(seed: int, seeds: int) -> list[Mode]:
    """Return the modes of the matrix that belong to this seed: the seeds 0 to `seeds` - 1 together have all."""
    shuffled = modes()
    Random(0).shuffle(shuffled)
    return shuffled[seed % seeds :: seeds]


class Strike(StrEnum):
    """What a storm can do. Each is seen to strike, or the run fails."""

    KILL_CHILD = "kill -9 of a child of the supervisor"
    """Roles take turns, so that a role that is new is struck by itself."""
    KILL_SUPERVISOR = "kill -9 of the supervisor"
    KILL_EXCHANGE = "kill -9 of the exchange"
    STOP_CHILD = "SIGSTOP of a child for three leases"
    KILL_REDIS = "kill -9 of Redis"
    FLUSH_REDIS = "FLUSHALL"
    STOP_REDIS = "Redis stopped"
    FULL_REDIS = "Redis maxmemory reached"
    LOSE_REDIS_ANSWERS = "Redis answers lost"
    FAIL_OVER_REDIS = "Sentinel promotes a replica without the last writes"
    KILL_DATABASE = "kill -9 of PostgreSQL"
    LOCK_DATABASE = "SQLite locked"
    FILL_DISK = "disk full"
    ANSWER_BADLY = "exchange answers badly"
    MOVE_EXCHANGE_CLOCK = "exchange clock jumps ahead"
    CLOCK_AHEAD = "local clock 5 s ahead"
    CLOCK_BEHIND = "local clock 5 s behind"
    CLOCK_JUMPS = "local clock jumps"
    SUBMIT_TWENTYFOLD = "one intent 20 times at once from 4 processes"
    REPLAY_QUEUE = "queue entries replayed"


KILLS = frozenset(
    {
        Strike.KILL_CHILD,
        Strike.KILL_SUPERVISOR,
        Strike.KILL_EXCHANGE,
        Strike.KILL_REDIS,
        Strike.FAIL_OVER_REDIS,
        Strike.KILL_DATABASE,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """One strike, and when: seconds after the start."""

    at_s: float
    strike: Strike


def storm(random: Random, weights: dict[Strike, int], *, count: int, pause_s: float) -> list[Planned]:
    """Return a schedule: every strike of `weights` at least once, `count` in all, about `pause_s` apart."""
    strikes = [*weights, *random.choices([*weights], [*weights.values()], k=max(count - len(weights), 0))]
    random.shuffle(strikes)
    planned, at_s = [], 0.3
    for strike in strikes:
        planned.append(Planned(at_s=at_s, strike=strike))
        at_s += pause_s * random.uniform(0.4, 1.6)
    return planned


def bad_answers(random: Random) -> list[dict[str, Any]]:
    """Return rules by which many orders are answered badly, one is refused, and reads lag now and then.

    One only, since an order may hear a refusal once and not often: after the third or fifth it is given up, and rightly
    so. What closes the venue has its turn in the matrix.
    """
    refusals = [mode for mode in modes() if mode.is_refusal and not mode.closes_the_venue]
    others = [mode for mode in modes() if not mode.is_refusal and mode.action is not FaultAction.READ_LAG]
    chosen = [(mode, {"probability": 0.4}) for mode in random.sample(others, 3)]
    chosen.append((random.choice(refusals), {"times": 1}))
    rules = [{**mode.rule(), "match": {"method": "POST", "path": ORDER_PATH, **when}} for mode, when in chosen]
    lag = {"name": LAG, "action": "read_lag_ms", "ms": 1_000, "match": {"method": "GET", "probability": 0.2}}
    return [*rules, lag]
