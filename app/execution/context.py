"""What one process needs to execute intents: its identity, its stores, its way to the exchange, its limits."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final, Protocol

from sqlalchemy import Connection

from app.clock import Clock
from app.delivery import Delivery, Leavings, Parcel
from app.exchange.exchange_clock import ExchangeClock
from app.exchange.filters import RulesCache
from app.exchange.gateway import ExchangeGateway
from app.exchange.models import Balance, ExchangePosition, ExchangeTrade, Income
from app.execution.account_reading import AccountReading
from app.execution.kill import KillSwitch
from app.job_safety.admission import Admission, Admitted, Ahead
from app.job_safety.circuit_breaker import Breakers
from app.job_safety.errors import StoreUnavailableError
from app.job_safety.faults import Faults
from app.job_safety.kill_switch import KillState
from app.job_safety.lease_keeper import LeaseKeeper
from app.job_safety.outcome import Venue
from app.job_safety.rate_limit import Pause, RateGate
from app.job_safety.retry_policy import Jitter, RetryLimits
from app.job_safety.side_effect_guard import GuardEnd, SideEffectGuard, Token, Told
from app.journal.engine import Journal
from app.observability.recorder import Recorder

REDELIVER_AFTER_MS: Final = 5_000
"""When the sweeper looks after something that was handed to the queue. Handing it over twice is harmless."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Horizons:
    """How long to wait before silence counts as evidence. Exchange milliseconds unless named otherwise."""

    recv_window_ms: int = 3_000
    pin_to_send_limit_ms: int = 500
    fence_margin_ms: int = 2_000
    absent_answers: int = 3
    absent_spread_usdm_ms: int = 5_000
    absent_spread_spot_ms: int = 10_000
    absent_spread_algo_ms: int = 30_000
    all_orders_lookback_ms: int = 60_000
    max_read_lag_ms: int = 15_000
    opening_read_lag_ms: int = 15_000
    """How far behind an answer may be from which the books are opened."""
    quarantine_after_ms: int = 120_000
    healthy_for_ms: int = 30_000
    orphan_after_ms: int = 20_000
    """Without Redis no lease can be read: a dispatched row this old has no owner (outer deadline + lease)."""
    lease_check_ms: int = 4_500
    """When somebody looks whether a dispatched row's owner still holds its lease."""

    def absent_spread_ms(self, venue: Venue, *, is_algo: bool) -> int:
        """Return over what time the answers "does not exist" must be spread."""
        if is_algo:
            return self.absent_spread_algo_ms
        return self.absent_spread_spot_ms if venue is Venue.SPOT else self.absent_spread_usdm_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Booked:
    """What booking trades of one order of ours came to: how many were new, and what it has traded in all."""

    new: int
    quantity: Decimal


class Books(Protocol):
    """What execution asks of the books; composed at the edge, since neither imports the other."""

    def record_fills(
        self, connection: Connection, *, trades: Sequence[ExchangeTrade], key: str | None, now_ms: int
    ) -> Sequence[ExchangeTrade]:
        """Book trades into fills and positions, with follow-ups for ledger and PnL; return the new ones."""
        ...

    def record_owned(
        self, connection: Connection, *, owned: Mapping[str, Sequence[ExchangeTrade]], now_ms: int
    ) -> Mapping[str, Booked]:
        """Book trades of our orders, by the keys of their intents, and mark those booked that are."""
        ...

    def position(self, connection: Connection, *, venue: Venue, symbol: str) -> Decimal:
        """Return the booked quantity, negative when short."""
        ...

    def is_open(self, connection: Connection, venue: Venue) -> bool:
        """Return whether the opening entries of `venue` are booked."""
        ...

    def book_opening(
        self,
        connection: Connection,
        *,
        venue: Venue,
        balances: Sequence[Balance],
        positions: Sequence[ExchangePosition],
        watermarks: Mapping[str, int],
        now_ms: int,
    ) -> bool:
        """Book what the account held before us, once; return whether this call did."""
        ...

    def book_income(self, connection: Connection, entries: Sequence[Income], *, now_ms: int) -> int:
        """Book funding, transfers and the like once; return how many were new."""
        ...

    def mark_booked(self, connection: Connection, *, key: str, now_ms: int) -> bool:
        """Mark an intent booked if all of its fills are; return whether it is."""
        ...


@dataclass(slots=True)
class Afterwards:
    """What the job under way leaves for Redis. Its worker tells it all in one round trip, when the job ends."""

    leavings: Leavings | None = None


@dataclass(slots=True)
class Early:
    """The admission that came with the beginning of the job under way, until the job takes it.

    `known_epoch` is the kill switch's epoch that this process has read last: what it asks next, it asks in this one or
    a later one.
    """

    ahead: Ahead | None = None
    known_epoch: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionContext:
    """One process' dependencies. `owner` is unique per process start."""

    owner: str
    account: str
    mode: str
    config_hash: str
    clock: Clock
    journal: Journal
    delivery: Delivery
    admission: Admission
    guard: SideEffectGuard
    pause: Pause
    breakers: Breakers
    rate: RateGate
    read_kill_key: Callable[[], KillState]
    """What the kill switch's Redis key says now; what cannot be read stops what opens risk."""
    gateway: ExchangeGateway
    exchange_clock: ExchangeClock
    rules: RulesCache
    books: Books
    record: Recorder
    leases: LeaseKeeper
    jitter: Jitter
    symbols: Mapping[Venue, Sequence[str]]
    read_kill_here: Callable[[], Mapping[str, KillState]] = dict
    """What the kill switch's file and environment say now, on this machine."""
    stay_alone: Callable[[], bool] = lambda: True
    """Have this process be at nothing but the job under way until that ends, if that can be; else return False."""
    kill: KillSwitch | None = None
    """Through which this process latches what it sees; None: somebody else does."""
    doubt_closes_symbol: bool = False
    """Whether an order that is merely in doubt closes its symbol for new opening orders, as a quarantined one does."""
    horizons: Horizons = field(default_factory=Horizons)
    retry: RetryLimits = field(default_factory=RetryLimits)
    faults: Faults = field(default_factory=Faults)
    opened: set[str] = field(default_factory=set)
    """Venues whose opening entries this process has seen; they never vanish."""
    first_looks: dict[Venue, AccountReading] = field(default_factory=dict)
    """What this process saw of accounts whose books are not open yet, to be compared with a second look."""
    watched_since_ms: dict[Venue, int] = field(default_factory=dict)
    """Since when this process watches such an account (exchange ms)."""
    limits_looked: dict[Venue, float] = field(default_factory=dict)
    """When this process looks again whether a venue's limits are known (monotonic seconds)."""
    afterwards: Afterwards = field(default_factory=Afterwards)
    early: Early = field(default_factory=Early)

    @property
    def is_dry_run(self) -> bool:
        """Whether everything is done but the sending."""
        return self.mode == "dry_run"

    def end_lease(
        self,
        effect_type: str,
        key: str,
        token: Token,
        hint: str | None = None,
        *,
        told: Told | None = None,
        now: bool = False,
    ) -> None:
        """Give a lease back, or keep `hint` as the effect's result, and tell the gates what the call has shown.

        At the end of the job under way unless it must be `now`. Without Redis the lease runs out by itself, and the
        journal is asked where a result is missing.
        """
        ending = self.guard.ending(effect_type, key, token, hint, told)
        if self.afterwards.leavings is not None and not now:
            self.afterwards.leavings.guards.append(ending)
        else:
            self.end(ending)

    def end_early(self, ahead: Ahead, *, now: bool = False) -> None:
        """Give back the lease, and the permit, of an admission that nobody has used."""
        if isinstance(ahead.answer, Admitted):
            told = Told(venue=Venue(ahead.venue), ticket=ahead.answer.ticket)
            self.end_lease("order", ahead.key, ahead.token, told=told, now=now)

    def end(self, ending: GuardEnd) -> None:
        """Do now what `ending` says."""
        try:
            self.guard.end(ending)
        except StoreUnavailableError as error:
            self.record.event("lease_not_ended", level="warning", count=False, guard=ending.keys[0], error=str(error))

    def hand_over(self, parcels: Sequence[Parcel]) -> bool:
        """Deliver what the journal already holds; without Redis, leave it to the sweeper and return False."""
        if not parcels:
            return True
        if self.afterwards.leavings is not None:
            self.afterwards.leavings.parcels.extend(parcels)
            return True
        try:
            self.delivery.deliver(parcels)
        except StoreUnavailableError as error:
            self.record.event(
                "delivery_postponed", level="warning", count=False, error=str(error), parcels=len(parcels)
            )
            return False
        return True
