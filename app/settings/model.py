"""What can be configured, with every default and bound. Frozen; unknown keys are errors; durations carry their unit.

The values are plain: whoever needs one gets it passed in, and only entry points hold the whole.
"""

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from app.settings.mode import TradingMode
from app.settings.secret import Secret, StoreUrl
from app.settings.urls import database_url_error, exchange_url_error, redis_url_error, webhook_url_error

LIVE_REFUSED = (
    "mode live is refused: the permits and gates that real money needs do not exist in this version; "
    "use dry_run, paper or testnet"
)

MOST_THREADS = 16
"""Workers of one process: they share an interpreter, so that more of them only wait for each other."""

Ms = Annotated[int, Field(ge=1, le=86_400_000)]
Seconds = Annotated[int, Field(ge=1, le=31_536_000)]
Count = Annotated[int, Field(ge=1, le=1000)]
Account = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,16}\z")]
Namespace = Annotated[str, Field(pattern=r"^[A-Za-z0-9_:.-]{1,100}\z")]
_KILL_WORDS = ("run", "false", "0", "no", "reduce_only", "cancel_only", "halt", "true", "1", "yes")
Symbol = Annotated[str, Field(pattern=r"^[A-Z0-9_.-]{1,30}\z")]


def _redis(url: StoreUrl) -> StoreUrl:
    if error := redis_url_error(url.reveal()):
        raise ValueError(error)
    return url


def _database(url: StoreUrl) -> StoreUrl:
    if error := database_url_error(url.reveal()):
        raise ValueError(error)
    return url


def _webhook(url: Secret) -> Secret:
    if error := webhook_url_error(url.reveal()):
        raise ValueError(error)
    return url


def _kill_word(text: str) -> str:
    if text.strip().lower() not in _KILL_WORDS:
        raise ValueError(f"must be one of {', '.join(_KILL_WORDS)}: refusing to guess")
    return text.strip().lower()


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError("must be an absolute path: data must not be one `cd` away")
    return path


def _unique(symbols: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(symbols)) != len(symbols):
        raise ValueError("names a symbol twice")
    return symbols


KillWord = Annotated[str, AfterValidator(_kill_word)]


class Group(BaseModel):
    """A frozen group of settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Stores(Group):
    """Where the journal and Redis are. A URL that is None means: the private one under `home`."""

    home: Annotated[Path, AfterValidator(_absolute)]
    redis_url: Annotated[StoreUrl, AfterValidator(_redis)] | None = None
    database_url: Annotated[StoreUrl, AfterValidator(_database)] | None = None
    appendfsync: Literal["everysec", "always"] = "everysec"
    """Of the private Redis. `everysec` may lose a second on a power cut, which the journal repairs."""

    @property
    def are_embedded(self) -> bool:
        """Whether no store outside `home` is named."""
        return self.redis_url is None and self.database_url is None


class Exchange(Group):
    """How to reach the exchange, and how long to wait for it."""

    futures_url: str | None = None
    """Base URL ending in `/fapi`. None in modes paper and dry_run: whoever starts the local exchange fills it in."""
    spot_url: str | None = None
    """Base URL ending in `/api`. None: as above."""
    api_key: Secret | None = None
    api_secret: Secret | None = None
    recv_window_ms: Ms = 3000
    connect_timeout_ms: Ms = 3000
    read_timeout_ms: Ms = 12_000
    outer_deadline_ms: Ms = 15_000
    """When a request is given up whatever the socket does."""
    pin_to_send_limit_ms: Ms = 500
    """An attempt whose timestamp was pinned longer ago than this is not sent."""
    clock_refresh_s: Seconds = 30
    clock_max_age_s: Seconds = 60
    """An estimate of the exchange's clock older than this is no estimate."""


class Horizons(Group):
    """How long and how often to look before something counts as absent, stuck or healthy (PROTOCOL.md, Reconcile)."""

    fence_margin_ms: Ms = 2000
    absent_answers: Count = 3
    absent_spread_usdm_ms: Ms = 5000
    absent_spread_spot_ms: Ms = 10_000
    absent_spread_algo_ms: Ms = 30_000
    all_orders_lookback_ms: Ms = 60_000
    max_read_lag_ms: Ms = 15_000
    opening_read_lag_ms: Ms | None = None
    """How far behind an answer may be from which the books are opened. None: see `sanity.opening_read_lag_ms`."""
    quarantine_after_ms: Ms = 120_000
    healthy_for_ms: Ms = 30_000
    """How long the venue must have left no outcome unknown before absence may be concluded."""


class Guard(Group):
    """The Redis lease and result cache of an intent, and where they and their neighbors are kept."""

    lease_ttl_ms: Ms = 4000
    lease_renew_ms: Ms = 1000
    result_ttl_s: Seconds = 259_200
    namespace: Namespace = "idempotency:effect"
    breaker_namespace: Namespace = "circuit_breaker"
    rate_namespace: Namespace = "rate_limit"
    kill_switch_key: Namespace = "quantum:global:kill_switch"


GateMode = Literal["off", "observe", "enforce"]
"""A gate that observes counts everything, says what it would have blocked, and blocks nothing."""
Percent = Annotated[int, Field(ge=1, le=100)]


class Breaker(Group):
    """Circuit breakers: when the exchange fails, orders that open risk stop, and a few probes try again later."""

    mode: GateMode = "enforce"
    window_ms: Ms = 60_000
    window_calls: Count = 100
    min_calls: Count = 10
    """Fewer calls than this in the window have no failure rate."""
    rate_percent: Percent = 50
    consecutive: Count = 9
    """The weight of failures in a row that opens the circuit, however few calls there are."""
    unknown_weight: Count = 3
    """What an outcome that is not known weighs; any other failure weighs 1."""
    open_ms: Ms = 5000
    """How long it stays open; each probe that fails doubles it."""
    open_max_ms: Ms = 60_000
    probes: Count = 2
    """How many probes are on their way at once, and how many must succeed before it closes."""
    probe_lease_ms: Ms = 1800
    """How long a dead prober keeps its permit."""


class RateLimits(Group):
    """How much of the exchange's limits is used."""

    mode: GateMode = "enforce"
    use_percent: Percent = 95
    reserve_percent: Annotated[int, Field(ge=0, le=90)] = 20
    """Kept from what opens risk, for cancels, reductions and questions."""


class Retry(Group):
    """Attempts of one intent. Only what is certainly not executed is tried again."""

    max_attempts: Count = 5
    backoff_base_ms: Ms = 200
    backoff_max_ms: Ms = 30_000


class Workers(Group):
    """Worker processes per queue, and how many orders one of them is at."""

    urgent: Count = 1
    orders: Count = 2
    positions: Count = 1
    ledger: Count = 1
    pnl: Count = 1
    signals: Count = 1
    threads: Annotated[int, Field(ge=1, le=MOST_THREADS)] = 2
    """Workers of one process of the queues `urgent` and `orders`: one has the processor while others wait."""


class Sweep(Group):
    """The journal's sweep for what should be moving and is not."""

    interval_ms: Ms = 1000
    batch_size: Annotated[int, Field(ge=1, le=100_000)] = 500
    max_rescues: Count = 3
    """Deaths in a row of whoever worked on it, without a change of state, before an intent is quarantined as poison."""
    kill_switch_poll_ms: Ms = 300
    """How often the Redis key of the kill switch is mirrored into the journal."""


class Poll(Group):
    """Reading positions, trades and balances for the books."""

    interval_ms: Ms = 5000
    weight_share: Annotated[Decimal, Field(gt=0, lt=1)] = Decimal("0.10")
    """The part of the exchange's request weight that reading may use; orders and reconciliation have the rest."""


class KillSwitchSettings(Group):
    """What the processes of this environment are told of the kill switch, whatever its other sources say."""

    state: KillWord = "run"
    """Anything but run, false, 0 and no restricts; the journal remembers it after the process has ended."""
    http_token: Secret | None = None
    """What must be shown to the exporter to see and move the switch over HTTP. None: it is not served there."""


class AlertSettings(Group):
    """Where alerts go besides the log, and how hard that is tried."""

    webhook_url: Annotated[Secret, AfterValidator(_webhook)] | None = None
    """A POST with a JSON body for each alert. A secret: such addresses hold tokens."""
    min_severity: Literal["info", "warning", "critical"] = "info"
    """What is less severe does not go to the webhook."""
    timeout_ms: Ms = 5000
    retry_base_ms: Ms = 1000
    retry_max_ms: Ms = 60_000
    give_up_after_s: Seconds = 86_400
    """An alert that could not be delivered for so long is given up, visibly."""


class RedisSafety(Group):
    """What counts as a safe Redis, and how often it is looked at."""

    interval_s: Annotated[int, Field(ge=1, le=3600)] = 15
    memory_budget_mb: Annotated[int, Field(ge=1, le=1_000_000)] = 100
    """What all guards together may take."""
    min_headroom_mb: Annotated[int, Field(ge=0, le=1_000_000)] = 64
    """Below this much free memory there is a warning, whatever the percentage."""
    max_clock_skew_ms: Ms = 1000
    max_replica_lag_s: Seconds = 10
    sample_keys: Annotated[int, Field(ge=0, le=10_000)] = 200
    """Keys drawn at random to estimate what the guards take; 0: not measured."""
    status_key: Namespace = "redis_safety"


class Metrics(Group):
    """What is counted, the exporter, and when retries are a spike or odd."""

    enabled: bool = True
    """Whether anything is counted and exported. Nothing that is sent depends on it."""
    port: Annotated[int, Field(ge=0, le=65_535)] = 8000
    """Where the exporter listens; 0: no exporter beside the workers."""
    host: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]{1,100}\z")] = "127.0.0.1"
    """The address it listens on. Whoever can reach it can read keys of orders in `/status`."""
    window_minutes: Annotated[int, Field(ge=1, le=120)] = 60
    """The window of every rate."""
    spike_window_s: Annotated[int, Field(ge=60, le=3600)] = 300
    spike_samples: Annotated[int, Field(ge=4, le=48)] = 12
    """Completed windows in the baseline."""
    spike_factor: Annotated[Decimal, Field(gt=1, le=1000)] = Decimal(3)
    """A spike has at least so many times the baseline's median."""
    spike_mads: Annotated[Decimal, Field(gt=0, le=1000)] = Decimal(5)
    """And lies at least so many (scaled) median absolute deviations above it."""
    spike_least: Annotated[int, Field(ge=1, le=1_000_000)] = 10
    """And has at least so many retries."""
    anomaly_share_percent: Annotated[int, Field(ge=1, le=100)] = 50
    anomaly_least_jobs: Annotated[int, Field(ge=1, le=1_000_000)] = 10
    anomaly_attempts: Annotated[int, Field(ge=1, le=10_000)] = 10
    anomaly_age_s: Seconds = 3600


class Policy(Group):
    """What an intent may do unless it says otherwise. File policy.yaml."""

    valid_for_s: Seconds = 30
    """Validity of an intent that opens risk, from enqueue."""
    permit_wait_ms: Ms = 1200
    doubt_closes_symbol: bool = False
    """Whether an order in doubt closes its symbol for new opening orders; a quarantined one always does."""


class Universe(Group):
    """The symbols that are traded, per venue: watched and searched. It forbids no other. File universe.yaml."""

    usdm: Annotated[tuple[Symbol, ...], AfterValidator(_unique)] = ("BTCUSDT", "ETHUSDT")
    spot: Annotated[tuple[Symbol, ...], AfterValidator(_unique)] = ("BTCUSDT", "ETHUSDT")


class Settings(Group):
    """All that can be configured. Built by `load_settings`; every construction is checked, none can be changed."""

    mode: TradingMode
    account: Account = "main"
    permits_bypassed: bool = False
    """Only by `TESTNET=true`, only in mode testnet."""
    stores: Stores
    exchange: Exchange = Exchange()
    horizons: Horizons = Horizons()
    guard: Guard = Guard()
    breaker: Breaker = Breaker()
    rate_limits: RateLimits = RateLimits()
    retry: Retry = Retry()
    workers: Workers = Workers()
    sweep: Sweep = Sweep()
    poll: Poll = Poll()
    redis_safety: RedisSafety = RedisSafety()
    metrics: Metrics = Metrics()
    kill_switch: KillSwitchSettings = KillSwitchSettings()
    alerts: AlertSettings = AlertSettings()
    policy: Policy = Policy()
    universe: Universe = Universe()
    config_folder: Path | None = None
    """Where the files were read; None: built-in defaults."""
    sources: Mapping[str, str] = Field(default_factory=dict, repr=False)
    """Dotted field name to where its value comes from. Fields that are not in it have their default."""

    @model_validator(mode="after")
    def _fits_its_mode(self) -> Self:
        if self.mode is TradingMode.LIVE:
            raise ValueError(LIVE_REFUSED)
        if self.permits_bypassed and self.mode is not TradingMode.TESTNET:
            raise ValueError("permits are bypassed in mode testnet only")
        for name, url, suffix in (
            ("futures_url", self.exchange.futures_url, "/fapi"),
            ("spot_url", self.exchange.spot_url, "/api"),
        ):
            if url is not None and (error := exchange_url_error(url, suffix=suffix, mode=self.mode)):
                raise ValueError(f"exchange.{name} {error}")
        return self

    def with_exchange(
        self, *, futures_url: str, spot_url: str, api_key: str | None = None, api_secret: str | None = None
    ) -> "Settings":
        """Return these settings with the exchange at these base URLs, and with these credentials if given."""
        urls: dict[str, Any] = {"futures_url": futures_url, "spot_url": spot_url}
        if api_key is not None and api_secret is not None:
            urls |= {"api_key": Secret(api_key), "api_secret": Secret(api_secret)}
        return self._with("exchange", self.exchange.model_copy(update=urls), urls)

    def with_stores(self, *, redis_url: str, database_url: str) -> "Settings":
        """Return these settings with these stores, checked again."""
        urls = {"redis_url": redis_url, "database_url": database_url}
        fields = {"home": self.stores.home, "appendfsync": self.stores.appendfsync}
        return self._with("stores", Stores.model_validate({**fields, **urls}), urls)

    def _with(self, name: str, group: Group, changed: Mapping[str, Any]) -> "Settings":
        sources = {**self.sources, **{f"{name}.{field}": "started here" for field in changed}}
        values = {field: getattr(self, field) for field in Settings.model_fields}
        return Settings.model_validate({**values, name: group, "sources": sources})
