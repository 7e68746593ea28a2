"""What counts as proof that an attempt was never executed. Pure: from facts to a verdict (PROTOCOL.md, Reconcile).

    a  the exchange's own clock is past the fence, plus a margin
    b  enough answers "does not exist", spread over enough time, all asked after (a)
    c  the list of all orders since before the first attempt lacks it, and everything in it is accounted for
    d  the same list shows another order taken after the fence: a read side that lags cannot show that
    e  the venue has left nothing unknown lately, and its circuit is closed

Evidence starts at zero for every attempt and is kept in the journal, so that a restart neither loses nor invents any.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any, Self

from app.job_safety.outcome import ExchangeOrder


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The order that is looked for: what it would look like, and when the exchange began to refuse it.

    `fence_ms` is the latest fence of all attempts that are not ended by their own answer; exchange milliseconds.
    """

    client_order_id: str
    symbol: str
    side: str
    quantity: str
    fence_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How much of each kind of evidence is enough. Exchange milliseconds."""

    margin_ms: int
    answers: int
    spread_ms: int
    max_read_lag_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What is known so far of an attempt. Times are the exchange's; 0 means never."""

    fence_ms: int
    absent_count: int = 0
    first_absent_ms: int = 0
    last_absent_ms: int = 0
    clean_listing_ms: int = 0
    witness_order_id: int = 0
    witness_time_ms: int = 0

    @classmethod
    def read(cls, text: str | None, *, fence_ms: int) -> Self:
        """Return stored evidence, or none if it belongs to another fence."""
        if text is None:
            return cls(fence_ms=fence_ms)
        stored: Mapping[str, Any] = json.loads(text)
        return cls(**stored) if stored.get("fence_ms") == fence_ms else cls(fence_ms=fence_ms)

    def as_json(self) -> dict[str, object]:
        """Return what is stored with the attempt."""
        return asdict(self)

    def with_absence(self, server_time_ms: int, rules: Rules) -> Self:
        """Add one answer "does not exist", asked after the exchange's clock showed `server_time_ms`."""
        if server_time_ms < self.fence_ms + rules.margin_ms:
            return self
        return replace(
            self,
            absent_count=self.absent_count + 1,
            first_absent_ms=self.first_absent_ms or server_time_ms,
            last_absent_ms=server_time_ms,
        )

    def with_listing(self, listing: "Listing", server_time_ms: int) -> Self:
        """Add one reading of all orders. A list that is not clean takes back what an earlier one had shown."""
        if not listing.is_clean:
            return replace(self, clean_listing_ms=0, witness_order_id=0, witness_time_ms=0)
        witness = listing.witness
        return replace(
            self,
            clean_listing_ms=server_time_ms,
            witness_order_id=witness.order_id if witness else 0,
            witness_time_ms=witness.time_ms if witness else 0,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What one answer of allOrders says about the order that is looked for."""

    found: ExchangeOrder | None
    suspects: Sequence[ExchangeOrder]
    witness: ExchangeOrder | None

    @property
    def is_clean(self) -> bool:
        """Whether it lacks the order and leaves nothing unexplained."""
        return self.found is None and not self.suspects


class Verdict(StrEnum):
    """What the evidence allows."""

    WAIT = "wait"
    """Not enough yet: ask again."""
    ABSENT = "absent"
    """Proven never executed: it may be sent again."""
    CLOSE = "close"
    """The lesser evidence: it may be closed as expired, and never sent again."""


def read_listing(orders: Sequence[ExchangeOrder], wanted: Wanted, known: "KnownOrders") -> Listing:
    """Return what `orders`, every page of allOrders, say about `wanted`.

    A suspect is an order that nobody claims and that could be ours without its id (a canceled Spot order has lost it),
    or one with our prefix that no intent explains.
    """
    found = next((order for order in orders if order.client_order_id == wanted.client_order_id), None)
    suspects = [
        order
        for order in orders
        if not known.claims(order)
        and (
            known.is_ours(order)
            or (order.side == wanted.side and format(order.quantity.normalize(), "f") == wanted.quantity)
        )
    ]
    witnesses = [
        order
        for order in orders
        if order.client_order_id != wanted.client_order_id
        and order.symbol == wanted.symbol
        and order.time_ms > wanted.fence_ms
    ]
    witness = min(witnesses, key=lambda order: order.time_ms, default=None)
    return Listing(found=found, suspects=suspects, witness=witness)


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownOrders:
    """Which of the listed orders the journal can explain."""

    client_order_ids: frozenset[str]
    order_ids: frozenset[int]
    prefix: str

    def claims(self, order: ExchangeOrder) -> bool:
        """Whether an intent owns `order`, by its client order id or by its exchange order id."""
        return order.client_order_id in self.client_order_ids or order.order_id in self.order_ids

    def is_ours(self, order: ExchangeOrder) -> bool:
        """Whether `order` carries an id of our making."""
        return order.client_order_id.startswith(self.prefix)


def enough_answers(evidence: Evidence, rules: Rules) -> bool:
    """Return whether (a) and (b) hold."""
    spread_ms = evidence.last_absent_ms - evidence.first_absent_ms
    return evidence.absent_count >= rules.answers and spread_ms >= rules.spread_ms


def judge(
    evidence: Evidence,
    rules: Rules,
    *,
    server_time_ms: int,
    venue_is_healthy: bool,
    opens_risk: bool,
    is_over: bool,
    nothing_unexplained: bool,
) -> Verdict:
    """Return what may be done with an order that was not found.

    Args:
        evidence: What has been gathered.
        rules: How much is enough.
        server_time_ms: The exchange's clock, freshly read.
        venue_is_healthy: (e).
        opens_risk: Whether a second execution could enlarge a position. What only reduces may be sent again on a to c
            after the longest read lag: a duplicate cannot flip the position, and a missing exit can ruin it.
        is_over: Whether its validity has run out, or it may not be sent again for another reason.
        nothing_unexplained: Whether every trade since the first attempt and the position are accounted for.
    """
    if not (enough_answers(evidence, rules) and evidence.clean_listing_ms):
        return Verdict.WAIT
    lag_is_over = server_time_ms >= evidence.fence_ms + rules.max_read_lag_ms
    proven = evidence.witness_order_id != 0 and evidence.witness_time_ms > evidence.fence_ms and venue_is_healthy
    if is_over:
        return Verdict.CLOSE if proven or (lag_is_over and nothing_unexplained) else Verdict.WAIT
    if proven or (not opens_risk and lag_is_over):
        return Verdict.ABSENT
    return Verdict.WAIT
