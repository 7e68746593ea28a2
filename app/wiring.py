"""Puts an installation together from settings: stores opened and stamped, queue port, gateway."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

from app.clock import Clock
from app.delivery import QUEUES, Delivery
from app.exchange.config import GatewayConfig
from app.exchange.exchange_clock import ExchangeClockLimits
from app.exchange.gateway import ExchangeGateway
from app.job_safety.errors import TerminalError
from app.job_safety.redis_facts import Names
from app.job_safety.redis_safety import MIB, RedisLimits
from app.journal import meta, migrate
from app.journal.engine import Journal
from app.once_redis import OnceRedis, PatientOnceRedis
from app.settings import PAPER_KEY, PAPER_SECRET, Settings, load_settings, with_local_exchange

REDIS_TIMEOUT_S: Final = 5
CLAIM_LEASES: Final = 5
"""How many half leases the queues stay a journal's after its last process."""

UNREADABLE_URL: Final = (
    "DATABASE_URL or REDIS_URL cannot be read: is its port a number, and its password percent-encoded?"
)

SENTINEL_SCHEME: Final = "redis+sentinel"
OTHER_PREFIXES: Final = ("metrics:", "delivery:")
"""Keys of ours in Redis whose place is not configured."""


class NoExchangeError(TerminalError):
    """Nothing says which exchange to talk to, and no local one runs here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """One account in one mode: its settings and its opened stores. Safe to make before a fork: connections are lazy."""

    settings: Settings
    clock: Clock
    redis_url: str
    journal: Journal
    redis: Redis
    delivery: Delivery
    meta: meta.Meta

    @property
    def account(self) -> str:
        """The account label."""
        return self.settings.account

    @property
    def mode(self) -> str:
        """The trading mode."""
        return self.settings.mode.value

    def gateway(self) -> ExchangeGateway:
        """Return a gateway of this process; it connects when it is first used."""
        return make_gateway(self.settings, self.clock)


def settings_from_environment() -> Settings:
    """Return the settings of this process.

    Raises:
        SettingsError: they are not usable; says all that is wrong.
    """
    return load_settings(os.environ, Path.cwd())


def open_installation(settings: Settings, clock: Clock, *, redis_timeout_s: float = REDIS_TIMEOUT_S) -> Installation:
    """Open the stores that `settings` name, starting the private Redis and making the journal's tables where needed.

    Raises:
        WrongInstallationError: the journal belongs to another account or mode.
        StoreUnavailableError: a store does not answer.
        EmbeddedRedisError: the private Redis cannot be started.
    """
    journal = open_journal(settings)
    stamp = meta.claim(journal, account=settings.account, mode=settings.mode.value, now_ms=clock.now_ms())
    url = redis_url(settings, clock)
    redis = connect_redis(url, timeout_s=redis_timeout_s, kind=PatientOnceRedis)
    return Installation(
        settings=settings,
        clock=clock,
        redis_url=url,
        journal=journal,
        redis=redis,
        delivery=Delivery(
            redis,
            account=settings.account,
            mode=settings.mode.value,
            installation=stamp.installation,
            claim_ttl_ms=settings.guard.lease_ttl_ms * CLAIM_LEASES // 2,
        ),
        meta=stamp,
    )


def open_journal(settings: Settings) -> Journal:
    """Open the journal at its newest schema.

    Raises:
        StoreUnavailableError: the database does not answer.
    """
    journal = Journal(database_url(settings))
    migrate.upgrade(journal)
    return journal


def database_url(settings: Settings) -> str:
    """Return the URL of the journal: the configured one, or SQLite under the home folder."""
    if settings.stores.database_url is not None:
        return settings.stores.database_url.reveal()
    from app.embedded.home import prepare_home

    return f"sqlite:///{prepare_home(settings.stores.home) / 'journal.db'}"


def redis_url(settings: Settings, clock: Clock) -> str:
    """Return the URL of Redis: the configured one, or that of the private server, which is started if need be."""
    if settings.stores.redis_url is not None:
        return settings.stores.redis_url.reveal()
    from app.embedded.redis_server import ensure_redis

    return ensure_redis(settings.stores.home, clock, appendfsync=settings.stores.appendfsync).url


def connect_redis(url: str, *, timeout_s: float = REDIS_TIMEOUT_S, kind: type[Redis] = OnceRedis) -> Redis:
    """Return a client that sends every command once: redis-py's own retries repeat writes whose answer was lost."""
    options: Mapping[str, object] = {
        "retry": Retry(NoBackoff(), 0),
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "health_check_interval": 0,
    }
    if urlsplit(url).scheme == SENTINEL_SCHEME:
        return _sentinel(url, options, kind)
    return kind.from_url(url, **options)


def redis_names(settings: Settings) -> Names:
    """Return which keys in Redis are ours."""
    guard, own = settings.guard, f"{settings.mode.value}:{settings.account}"
    return Names(
        guards=f"{guard.namespace}:{own}:",
        own=(
            *(guard.namespace, guard.breaker_namespace, guard.rate_namespace, guard.kill_switch_key),
            settings.redis_safety.status_key,
            *OTHER_PREFIXES,
        ),
        probe=f"{guard.namespace}:{own}:probe",
        queues=frozenset(QUEUES),
    )


def redis_limits(settings: Settings) -> RedisLimits:
    """Return what counts as too much or too little in Redis."""
    safety = settings.redis_safety
    return RedisLimits(
        guard_budget_bytes=safety.memory_budget_mb * MIB,
        min_headroom_bytes=safety.min_headroom_mb * MIB,
        max_clock_skew_ms=safety.max_clock_skew_ms,
        max_replica_lag_s=safety.max_replica_lag_s,
        expects_limit=settings.stores.redis_url is not None,
    )


def make_gateway(settings: Settings, clock: Clock, *, kind: type[ExchangeGateway] = ExchangeGateway) -> ExchangeGateway:
    """Return a gateway to the exchange that `settings` name.

    Raises:
        NoExchangeError: no exchange is named.
    """
    settings = with_local_exchange(settings)
    exchange = settings.exchange
    if exchange.futures_url is None or exchange.spot_url is None:
        raise NoExchangeError(
            "no exchange is named: set BINANCE_FUTURES_URL and BINANCE_SPOT_URL, or start one with `fillonce up`"
        )
    return kind(
        GatewayConfig(
            futures_url=exchange.futures_url,
            spot_url=exchange.spot_url,
            # Modes that stay on this machine fall back on what the local exchange takes unless it is told otherwise.
            api_key=exchange.api_key.reveal if exchange.api_key else lambda: PAPER_KEY,
            api_secret=exchange.api_secret.reveal if exchange.api_secret else lambda: PAPER_SECRET,
            recv_window_ms=exchange.recv_window_ms,
            connect_timeout_s=exchange.connect_timeout_ms / 1000,
            read_timeout_s=exchange.read_timeout_ms / 1000,
            outer_deadline_s=exchange.outer_deadline_ms / 1000,
            clock_limits=ExchangeClockLimits(
                refresh_after_s=exchange.clock_refresh_s, max_age_s=exchange.clock_max_age_s
            ),
        ),
        clock,
    )


def _sentinel(url: str, options: Mapping[str, object], kind: type[Redis]) -> Redis:
    parts = urlsplit(url)
    hosts = [_host(item) for item in parts.netloc.rpartition("@")[2].split(",")]
    credentials = {"username": parts.username or None, "password": parts.password} if "@" in parts.netloc else {}
    sentinel: Any = Sentinel(hosts, sentinel_kwargs={"socket_timeout": REDIS_TIMEOUT_S})  # type: ignore[no-untyped-call]  # redis-py has no types here
    client: Redis = sentinel.master_for(parts.path.strip("/") or "mymaster", redis_class=kind, **options, **credentials)
    return client


def _host(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return (host, int(port)) if host else (text, 26379)
