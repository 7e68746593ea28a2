"""Every metric that is exported, each declared once. docs/reference/metrics.md is made of this.

To add one: declare it here, say in `events` which event counts it, or in `app.monitor` where it is read.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from app.observability.metric import Kind, Metric, Origin

SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0)
LONG_SECONDS: Final = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0)
ATTEMPTS: Final = (1.0, 2.0, 3.0, 5.0, 10.0, 20.0)
"""S2.28: 1, 2, 3, 4-5, 6-10, 11-20, 21 and more."""

_ALL: dict[str, Metric] = {}


def _declare(metric: Metric) -> Metric:
    if metric.name in _ALL:
        raise ValueError(f"{metric.name} is declared twice")
    _ALL[metric.name] = metric
    return metric


def _counter(
    name: str, text: str, *labels: str, feature: str, origin: Origin = Origin.REDIS, by_minute: bool = False
) -> Metric:
    return _declare(
        Metric(
            name=name, kind=Kind.COUNTER, help=text, labels=labels, feature=feature, origin=origin,
            is_windowed=by_minute,
        )
    )  # fmt: skip


def _gauge(name: str, text: str, *labels: str, feature: str, origin: Origin = Origin.LIVE) -> Metric:
    is_time = name.endswith("_timestamp_seconds")
    return _declare(
        Metric(name=name, kind=Kind.GAUGE, help=text, labels=labels, feature=feature, origin=origin, is_time=is_time)
    )


def _histogram(name: str, text: str, *labels: str, feature: str, buckets: tuple[float, ...]) -> Metric:
    return _declare(
        Metric(
            name=name, kind=Kind.HISTOGRAM, help=text, labels=labels, feature=feature, origin=Origin.REDIS,
            buckets=buckets,
        )
    )  # fmt: skip


def _old_name(name: str, of: Metric, *labels: str, feature: str) -> Metric:
    text = f"Old name of {of.name}, without its suffix"
    return _declare(Metric(name=name, kind=Kind.UNTYPED, help=text, labels=labels, feature=feature, origin=of.origin))


# What retries add up to

RETRIES = _counter(
    "retries_total", "Attempts after the first of their intent", "job_type", feature="S2.23", origin=Origin.JOURNAL
)
RETRY_SUCCESSES = _counter(
    "retry_successes_total", "Retried intents that had their effect", "job_type", feature="S2.23",
    origin=Origin.JOURNAL,
)  # fmt: skip
RETRY_FAILURES = _counter(
    "retry_failures_total", "Retried intents that ended without their effect", "job_type", feature="S2.23",
    origin=Origin.JOURNAL,
)  # fmt: skip
RETRY_BLOCKS = _counter(
    "retry_blocks_total",
    "Times an attempt was not made: circuit_open, cooldown, kill_switch, non_retryable, max_attempts, validity, other",
    "job_type", "reason", feature="S2.23", by_minute=True,
)  # fmt: skip
OLD_RETRIES = _old_name("retry_total_count", RETRIES, "job_type", feature="S2.23")
OLD_RETRY_SUCCESSES = _old_name("retry_total_successes", RETRY_SUCCESSES, "job_type", feature="S2.23")
OLD_RETRY_FAILURES = _old_name("retry_total_failures", RETRY_FAILURES, "job_type", feature="S2.23")
OLD_RETRY_BLOCKS = _old_name("retry_total_blocks", RETRY_BLOCKS, "job_type", feature="S2.23")
RETRY_ATTEMPTS = _histogram(
    "retry_attempts", "Attempts that an intent needed until the exchange took or refused it", "job_type",
    feature="S2.28", buckets=ATTEMPTS,
)  # fmt: skip

# What they are within the window (metrics.window_minutes)

RETRY_RATE = _gauge(
    "retry_rate_per_minute", "Retries per minute, over the window", "job_type", feature="S2.18", origin=Origin.JOURNAL
)
RETRY_SUCCESS_RATE = _gauge(
    "retry_success_rate",
    "Of the retried intents that ended within the window, the share (0 to 1) that had their effect; absent if none",
    "job_type", feature="S2.19", origin=Origin.JOURNAL,
)  # fmt: skip
RETRY_FAILURE_RATE = _gauge(
    "retry_failure_rate",
    "Of the retried intents that ended within the window, the share (0 to 1) that ended without it; absent if none",
    "job_type", feature="S2.20", origin=Origin.JOURNAL,
)  # fmt: skip
RETRY_AVG_ATTEMPTS = _gauge(
    "retry_avg_attempts", "Mean attempts of the retried intents that ended within the window; absent if none",
    "job_type", feature="S2.21", origin=Origin.JOURNAL,
)  # fmt: skip
RETRY_BLOCK_RATE = _gauge(
    "retry_block_rate", "Blocks per (blocks + attempts) within the window, 0 to 1; absent if neither", "job_type",
    feature="S2.22", origin=Origin.REDIS,
)  # fmt: skip
RETRY_WINDOW = _gauge("retry_window_seconds", "Length of the window of the rates", feature="S2.17")
RETRY_SPIKE = _gauge(
    "retry_spike", "1 if the retries of the running spike window are above the threshold", "job_type",
    feature="S2.28", origin=Origin.JOURNAL,
)  # fmt: skip
RETRY_SPIKE_COUNT = _gauge(
    "retry_spike_count", "Retries in the running spike window", "job_type", feature="S2.28", origin=Origin.JOURNAL
)
RETRY_SPIKE_BASELINE = _gauge(
    "retry_spike_baseline", "Median retries of the completed spike windows that were none", "job_type",
    feature="S2.28", origin=Origin.JOURNAL,
)  # fmt: skip
RETRY_SPIKE_THRESHOLD = _gauge(
    "retry_spike_threshold", "Retries in one window from which on it is a spike", "job_type", feature="S2.28",
    origin=Origin.JOURNAL,
)  # fmt: skip
RETRY_ANOMALY = _gauge(
    "retry_anomaly",
    "How many: share (1 if too many intents need retries), attempts (open intents tried too often), age (for too long)",
    "kind", feature="S2.28", origin=Origin.JOURNAL,
)  # fmt: skip

# Duplicates, doubt, rescue

DUPLICATE_BLOCKED = _counter(
    "duplicate_blocked_total",
    "Second tries that did no harm, by what stopped them: enqueue (the same intent again), guard, journal",
    "job_type", "by", feature="S2.26",
)  # fmt: skip
DUPLICATE_EXECUTED = _counter(
    "duplicate_executed_total", "Second orders found at the exchange under one client order id: must stay 0",
    "job_type", feature="S2.26", origin=Origin.JOURNAL,
)  # fmt: skip
OLD_DUPLICATES = _old_name("side_effect_duplicates", DUPLICATE_EXECUTED, "type", feature="S2.25")
IN_DOUBT = _gauge("intents_in_doubt", "Intents dispatched without an answer that settles them", feature="S2.17")
IN_DOUBT_AGE = _gauge("in_doubt_oldest_seconds", "Since when the oldest of them is in doubt", feature="S2.17")
QUARANTINED = _gauge("intents_quarantined", "Intents that wait for a person", feature="S2.17")
QUARANTINED_AGE = _gauge("quarantined_oldest_seconds", "Since when the oldest of them is in doubt", feature="S2.17")
IN_DOUBT_TOTAL = _counter("in_doubt_total", "Attempts whose outcome was not known", "job_type", "rule", feature="S2.17")
QUARANTINED_TOTAL = _counter(
    "quarantined_total", "Intents that were handed to a person", "job_type", feature="S2.17", origin=Origin.JOURNAL
)
RESCUES = _counter(
    "rescues_total", "Intents taken from dead workers, by who noticed: supervisor, sweeper", "by", feature="S2.17"
)
RECOVERY_SECONDS = _histogram(
    "recovery_seconds", "From the dispatch of an attempt whose owner died until its reconcile began", "job_type",
    feature="S2.17", buckets=LONG_SECONDS,
)  # fmt: skip
RECONCILE_SECONDS = _histogram(
    "reconcile_seconds", "From the beginning of doubt to its end: found, absent, close", "result", feature="S2.17",
    buckets=LONG_SECONDS,
)  # fmt: skip
ALARMS = _counter("alarms_total", "What a person must see", "alarm", feature="S2.17")
EVENTS_TOTAL = _counter("fillonce_events_total", "Events by name, as in the log", "event", feature="S2.17")

# Attempts and orders

ATTEMPTS_TOTAL = _counter(
    "attempts_total", "Requests sent, by what was answered", "job_type", "outcome", feature="S2.17", by_minute=True
)
DISPATCH_SECONDS = _histogram(
    "dispatch_seconds", "From sending a request to its answer, or to giving it up", "job_type", "outcome",
    feature="S2.17", buckets=SECONDS,
)  # fmt: skip
ORDER_EXECUTION_SECONDS = _histogram(
    "order_execution_seconds", "From enqueue to the exchange's yes", "venue", feature="S4.36",
    buckets=(*SECONDS, 30.0, 60.0),
)  # fmt: skip
APPLY_EXECUTED = _counter(
    "apply_executed_total", "What became of tries: success, rejected, unknown, error, kill_switch, blocked", "status",
    feature="S0.18",
)  # fmt: skip
ORDERS_PLACED = _counter("orders_placed_total", "Orders that the exchange took", "symbol", "side", feature="S4.36")
ORDERS_FINISHED = _counter(
    "orders_finished_total", "Orders that reached a final state", "state", feature="S3.46", by_minute=True
)
FILL_RATIO = _gauge(
    "trader_fill_ratio", "Of the orders that ended within the window, the share that was filled; absent if none",
    feature="S3.46", origin=Origin.REDIS,
)  # fmt: skip
REJECTIONS = _counter(
    "trader_order_rejections_total", "Orders that ended rejected", "venue", feature="S3.48", origin=Origin.JOURNAL
)
FILLS = _counter("trader_fills_total", "Trades booked", "venue", feature="S3.47", origin=Origin.JOURNAL)
OPEN_POSITIONS = _gauge("trader_open_positions", "Positions that are not flat", "venue", feature="S3.44")
PENDING_ORDERS = _gauge("trader_pending_orders", "Orders that rest at the exchange", feature="S3.45")
PNL_DAILY = _gauge(
    "trader_pnl_daily_usd", "Realized + funding - commission of this UTC day, in USD stablecoins", feature="S3.53"
)
PNL_WEEKLY = _gauge("trader_pnl_weekly_usd", "The same since Monday, 00:00 UTC", feature="S3.55")
PNL_TOTAL = _gauge("trader_total_pnl_usd", "The same since the books were opened", feature="S3.57")
SIGNALS = _counter("signals_generated_total", "Signals that became an order", "symbol", "direction", feature="S4.36")

# Gates

GATE_BLOCKS = _counter("gate_blocks_total", "Times a gate was closed to an intent", "job_type", "gate", feature="S2.22")
WOULD_BLOCK = _counter(
    "gate_would_block_total", "Times a gate in mode observe would have been closed", "job_type", "gate",
    feature="S2.33",
)  # fmt: skip
KILL_ACTIVE = _gauge("kill_switch_active", "1 if this source stops anything", "source", feature="S0.21")
KILL_STATE = _gauge(
    "kill_switch_state", "0 RUN, 1 REDUCE_ONLY, 2 CANCEL_ONLY, 3 HALT; `all` is the one that holds", "source",
    feature="S0.21",
)  # fmt: skip
KILL_EPOCH = _gauge("kill_switch_epoch", "Rises with every change of the journal's latch", feature="S0.21")
GATE_PROOF = _gauge(
    "safety_gate_last_proof_timestamp_seconds", "When `fillonce selftest` last saw this gate stop an order", "gate",
    feature="S2.70", origin=Origin.REDIS,
)  # fmt: skip
KILL_CHANGES = _counter("kill_switch_changes_total", "Changes of the kill switch", "to_state", feature="S0.21")
PAUSE = _gauge("gate_pause_seconds", "For how long the exchange's limits keep a venue closed", "venue", feature="S2.17")
LIMITS_HIT = _counter("exchange_limits_hit_total", "Answers 429, 418 and the like", "venue", "status", feature="S3.51")
API_ERRORS = _counter(
    "exchange_api_errors_total", "Failed requests and questions", "venue", "failure_class", feature="S3.51"
)
API_CONSECUTIVE = _gauge(
    "exchange_api_consecutive_errors", "Failures in a row, as the breaker counts them", "job_type", feature="S3.52"
)
BREAKER_STATE = _gauge("circuit_breaker_state", "0 closed, 1 half open, 2 open", "job_type", feature="S2.24")
BREAKER_OVERRIDE = _gauge("circuit_breaker_override", "1 while a person's override holds", "job_type", feature="S2.24")
TRADER_BREAKER = _gauge(
    "trader_circuit_breaker_state", "1 if the circuit lets nothing pass (open), else 0", "job_type", feature="S3.49"
)
TRIPS = _counter("trader_circuit_breaker_trips_total", "Times a circuit opened", "job_type", feature="S3.50")

# Stores, queues, processes

STORE_UP = _gauge("store_up", "1 if it answered: journal, redis", "store", feature="S2.17")
REDIS_SAFETY = _gauge(
    "redis_safety_findings", "1 for each thing that is not well with Redis, by level: warn, fail", "check", "level",
    feature="S2.32", origin=Origin.REDIS,
)  # fmt: skip
REDIS_CHECKED = _gauge(
    "redis_safety_checked_timestamp_seconds", "When the keeper last asked Redis whether it is safe", feature="S2.32",
    origin=Origin.REDIS,
)  # fmt: skip
LEDGER_DIFFERENCE = _gauge(
    "ledger_recon_difference", "Wallets of the books less those of the exchange: must be 0", "asset", feature="S2.26",
    origin=Origin.REDIS,
)  # fmt: skip
CLOCK_KNOWN = _gauge(
    "exchange_clock_known", "1 if the exchange's time is known well enough to pin a timestamp", "venue",
    feature="S2.17",
)  # fmt: skip
QUEUE_DEPTH = _gauge("queue_depth", "Jobs that wait", "queue", feature="S2.17")
QUEUE_AGE = _gauge("queue_oldest_seconds", "For how long the next job has waited", "queue", feature="S2.17")
WORKERS = _gauge("queue_workers", "Workers that are registered on a queue", "queue", feature="S2.17")
INTENTS_OPEN = _gauge("intents_open", "Intents that are not finished", "state", feature="S2.17")
JOURNAL_LAG = _gauge(
    "journal_lag_seconds", "By how much the most overdue piece of work is late: intents, followups", "what",
    feature="S2.17",
)  # fmt: skip
DUTY_RUN = _gauge(
    "duty_last_run_timestamp_seconds", "When a duty was last done: sweep, reconcile, kill_mirror, ledger, seal", "duty",
    feature="S2.27", origin=Origin.REDIS,
)  # fmt: skip
INFO = _gauge("fillonce_info", "1; its labels say what runs here", "version", "mode", "account", feature="S2.17")
SCRAPE_SECONDS = _gauge("exporter_scrape_seconds", "How long the numbers of this answer took to read", feature="S2.17")
STARTED = _gauge("exporter_start_timestamp_seconds", "When the exporter started", feature="S2.17")

CATALOG: Final[Mapping[str, Metric]] = MappingProxyType(_ALL)

NOT_EXPORTED: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "p33_permit_deny_total": ("S0.15", "permits do not exist yet"),
        "p33_permit_allow_total": ("S0.16", "permits do not exist yet"),
        "governor_block_total": ("S0.17", "the governor does not exist yet; `gate_blocks_total` counts the gates"),
        "permit_wait_ms": ("S0.19", "permits do not exist yet"),
        "position_mismatch_seconds": ("S0.20", "positions are compared by `fillonce ledger check`, not all the time"),
        "apply_plan_processed_total": ("S0.21", "plans do not exist yet"),
        "trader_exposure_pct": ("S3.43", "the equity it is a share of is not read yet"),
        "trader_pnl_daily_pct": ("S3.54", "the equity it is a share of is not read yet"),
        "trader_pnl_weekly_pct": ("S3.56", "the equity it is a share of is not read yet"),
        "trader_total_pnl_pct": ("S3.58", "the equity it is a share of is not read yet"),
        "model_inference_seconds": ("S4.36", "models do not exist yet"),
        "model_accuracy": ("S4.36", "models do not exist yet"),
    }
)
"""Names that stand in the plan and have nothing to measure yet. No value is better than an invented one."""
