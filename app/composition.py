"""Builds what one process needs to execute intents, from an installation."""

import os
import random
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from functools import partial
from pathlib import Path

from sqlalchemy import Connection, select

from app.books import booked, booking, fills, income, opening
from app.clock import Clock, SystemClock
from app.exchange.filters import RulesCache
from app.exchange.gateway import ExchangeGateway
from app.exchange.models import Balance, ExchangePosition, ExchangeTrade, Income
from app.execution.context import Booked, ExecutionContext, Horizons
from app.execution.kill import KillSwitch
from app.execution.limits import hold_back
from app.execution.settle import close_gate
from app.job_safety import faults, kill_switch
from app.job_safety.admission import Admission
from app.job_safety.circuit_breaker import BreakerPolicy, Breakers
from app.job_safety.effect import GateMode
from app.job_safety.kill_key import KillKey
from app.job_safety.kill_switch import KillSource, KillState
from app.job_safety.lease_keeper import LeaseKeeper
from app.job_safety.outcome import Failure, Venue
from app.job_safety.rate_limit import Pause, RateGate, RatePolicy
from app.job_safety.retry_policy import RetryLimits
from app.job_safety.side_effect_guard import Gates, GuardNames, SideEffectGuard
from app.journal import schema
from app.observability.log import make_logger
from app.observability.recorder import Recorder
from app.once_redis import PatientOnceRedis
from app.settings import Settings, config_hash, opening_read_lag_ms
from app.wiring import (
    REDIS_TIMEOUT_S,
    Installation,
    connect_redis,
    open_installation,
    settings_from_environment,
)

QUICK_REDIS_S = 0.3
FAULTS_VARIABLE = "FILLONCE_FAULTS"
"""A plan of faults for tests (see `app.job_safety.faults`). Refused in mode live."""


class JournalBooks:
    """The books as execution sees them, for one account."""

    def __init__(self, account: str) -> None:
        self._account = account

    def record_fills(
        self, connection: Connection, *, trades: Sequence[ExchangeTrade], key: str | None, now_ms: int
    ) -> Sequence[ExchangeTrade]:
        """Book trades into fills and positions, with follow-ups for ledger and PnL; return the new ones."""
        return booking.record_fills(connection, account=self._account, trades=trades, key=key, now_ms=now_ms)

    def record_owned(
        self, connection: Connection, *, owned: Mapping[str, Sequence[ExchangeTrade]], now_ms: int
    ) -> Mapping[str, Booked]:
        """Book trades of our orders, by the keys of their intents, and mark those booked that are."""
        new = booking.record_owned(connection, account=self._account, owned=owned, now_ms=now_ms)
        booked.mark_all_booked(connection, owned, now_ms=now_ms)
        traded = fills.quantities_of(connection, owned)
        return {key: Booked(new=len(new[key]), quantity=traded[key]) for key in owned}

    def position(self, connection: Connection, *, venue: Venue, symbol: str) -> Decimal:
        """Return the booked quantity, negative when short."""
        table = schema.positions.c
        query = select(table.quantity).where(
            table.account == self._account, table.venue == venue.value, table.symbol == symbol
        )
        quantity: Decimal | None = connection.execute(query).scalar()
        return Decimal(0) if quantity is None else quantity

    def is_open(self, connection: Connection, venue: Venue) -> bool:
        """Return whether the opening entries of `venue` are booked."""
        return opening.is_open(connection, venue)

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
        return opening.book_opening(
            connection,
            account=self._account,
            venue=venue,
            balances=balances,
            positions=positions,
            watermarks=watermarks,
            now_ms=now_ms,
        )

    def book_income(self, connection: Connection, entries: Sequence[Income], *, now_ms: int) -> int:
        """Book funding, transfers and the like once; return how many were new."""
        return len(income.book_income(connection, entries, now_ms=now_ms))

    def mark_booked(self, connection: Connection, *, key: str, now_ms: int) -> bool:
        """Mark an intent booked if all of its fills are; return whether it is."""
        return booked.mark_booked(connection, key, now_ms)


def open_here(clock: Clock | None = None, *, redis_timeout_s: float = REDIS_TIMEOUT_S) -> Installation:
    """Open the installation that this process' environment names."""
    return open_installation(settings_from_environment(), clock or SystemClock(), redis_timeout_s=redis_timeout_s)


def compose(installation: Installation, owner: str, *, gateway: ExchangeGateway | None = None) -> ExecutionContext:
    """Return the dependencies of one process, with a `gateway` of its own unless one is given.

    Nothing connects before it is used.

    Raises:
        ValueError: no exchange is named, or the plan of faults cannot be read.
    """
    settings, clock = installation.settings, installation.clock
    names = guard_names(settings)
    gates = Gates(
        breakers=make_breakers(installation),
        rate=RateGate(installation.redis, names, rate_policy(settings), monotonic=clock.monotonic),
    )
    guard = SideEffectGuard(
        installation.redis,
        names,
        lease_ttl_ms=settings.guard.lease_ttl_ms,
        result_ttl_s=settings.guard.result_ttl_s,
        gates=gates,
    )
    gateway = gateway or installation.gateway()
    log = make_logger(owner=owner, mode=installation.mode, account=installation.account)
    chance = random.SystemRandom()
    # What is only told or looked at must not hold up a transaction while Redis hangs.
    quick = connect_redis(installation.redis_url, timeout_s=QUICK_REDIS_S, kind=PatientOnceRedis)
    record = Recorder(
        log,
        quick,
        clock,
        mode=installation.mode,
        account=installation.account,
        is_counting=settings.metrics.enabled,
    )
    context = ExecutionContext(
        owner=owner,
        account=installation.account,
        mode=installation.mode,
        config_hash=config_hash(settings),
        clock=clock,
        journal=installation.journal,
        delivery=installation.delivery,
        admission=Admission(
            installation.redis, names, owner=owner, lease_ttl_ms=settings.guard.lease_ttl_ms, gates=gates
        ),
        guard=guard,
        pause=Pause(installation.redis, names),
        breakers=gates.breakers,
        rate=gates.rate,
        read_kill_key=partial(kill_switch.read_key, quick, names.kill_switch),
        read_kill_here=kill_sources_here(settings),
        kill=make_kill_switch(installation, owner=owner, record=record),
        gateway=gateway,
        exchange_clock=gateway.exchange_clock,
        rules=RulesCache(gateway.exchange_info, clock),
        books=JournalBooks(installation.account),
        record=record,
        leases=LeaseKeeper(guard, renew_s=settings.guard.lease_renew_ms / 1000),
        jitter=lambda limit: chance.randint(0, limit),
        symbols={Venue.USDM: settings.universe.usdm, Venue.SPOT: settings.universe.spot},
        doubt_closes_symbol=settings.policy.doubt_closes_symbol,
        horizons=_horizons(settings),
        retry=RetryLimits(
            max_attempts=settings.retry.max_attempts,
            backoff_base_ms=settings.retry.backoff_base_ms,
            backoff_cap_ms=settings.retry.backoff_max_ms,
            recv_window_ms=settings.exchange.recv_window_ms,
        ),
        faults=faults.parse_plan(os.environ.get(FAULTS_VARIABLE, "")),
    )
    gateway.on_query_failure = lambda venue, failure: _query_failed(context, venue, failure)
    gateway.before_query = lambda venue, endpoint, asked: hold_back(context, venue, endpoint, asked)
    gateway.on_limits(
        lambda venue, told: gates.rate.saw(venue, used_weight=told.used_weight, order_count=told.order_count)
    )
    return context


def make_kill_switch(installation: Installation, *, owner: str, record: Recorder) -> KillSwitch:
    """Return the kill switch of an installation, for the process `owner`."""
    settings = installation.settings
    return KillSwitch(
        journal=installation.journal,
        key=KillKey(installation.redis, settings.guard.kill_switch_key),
        read_here=kill_sources_here(settings),
        clock=installation.clock,
        record=record,
        owner=owner,
        config_hash=config_hash(settings),
    )


def make_breakers(installation: Installation) -> Breakers:
    """Return the circuits of an installation."""
    settings = installation.settings
    return Breakers(installation.redis, guard_names(settings), breaker_policy(settings))


def breaker_policy(settings: Settings) -> BreakerPolicy:
    """Return when circuits open and close, as configured."""
    told = settings.breaker
    return BreakerPolicy(
        mode=GateMode(told.mode),
        window_ms=told.window_ms,
        window_calls=told.window_calls,
        min_calls=told.min_calls,
        rate_percent=told.rate_percent,
        consecutive=told.consecutive,
        unknown_weight=told.unknown_weight,
        open_ms=told.open_ms,
        open_max_ms=told.open_max_ms,
        probes=told.probes,
        lease_ms=told.probe_lease_ms,
        config_hash=config_hash(settings),
    )


def rate_policy(settings: Settings) -> RatePolicy:
    """Return how much of the exchange's limits is used, as configured."""
    told = settings.rate_limits
    return RatePolicy(mode=GateMode(told.mode), use_percent=told.use_percent, reserve_percent=told.reserve_percent)


def _query_failed(context: ExecutionContext, venue: Venue, failure: Failure) -> None:
    context.record.event("query_failed", level="debug", venue=venue.value, failure_class=failure.failure_class.value)
    close_gate(context, venue, failure, strikes=1)


def kill_sources_here(settings: Settings) -> Callable[[], Mapping[str, KillState]]:
    """Return what reads the sources of this machine: the file in the home folder, and what this process was told."""
    path = str(kill_file(settings))  # every order looks there twice: a text needs no turning into one
    told = kill_switch.parse(settings.kill_switch.state)
    return lambda: {KillSource.FILE: kill_switch.read_file(path), KillSource.ENVIRONMENT: told}


def kill_file(settings: Settings) -> Path:
    """Return where the file lies, or would lie, that stops everything."""
    return settings.stores.home / kill_switch.FILE_NAME


def guard_names(settings: Settings) -> GuardNames:
    """Return where guards and gates live in Redis."""
    return GuardNames(
        namespace=settings.guard.namespace,
        kill_switch=settings.guard.kill_switch_key,
        mode=settings.mode.value,
        account=settings.account,
        breaker_namespace=settings.guard.breaker_namespace,
        rate_namespace=settings.guard.rate_namespace,
    )


def _horizons(settings: Settings) -> Horizons:
    exchange, horizons = settings.exchange, settings.horizons
    return Horizons(
        recv_window_ms=exchange.recv_window_ms,
        pin_to_send_limit_ms=exchange.pin_to_send_limit_ms,
        fence_margin_ms=horizons.fence_margin_ms,
        absent_answers=horizons.absent_answers,
        absent_spread_usdm_ms=horizons.absent_spread_usdm_ms,
        absent_spread_spot_ms=horizons.absent_spread_spot_ms,
        absent_spread_algo_ms=horizons.absent_spread_algo_ms,
        all_orders_lookback_ms=horizons.all_orders_lookback_ms,
        max_read_lag_ms=horizons.max_read_lag_ms,
        opening_read_lag_ms=opening_read_lag_ms(settings),
        quarantine_after_ms=horizons.quarantine_after_ms,
        healthy_for_ms=horizons.healthy_for_ms,
        orphan_after_ms=exchange.outer_deadline_ms + settings.guard.lease_ttl_ms,
        lease_check_ms=settings.guard.lease_ttl_ms + 500,
    )
