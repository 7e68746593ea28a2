"""Settings that are well-formed and still do not fit together.

The floors come from PROTOCOL.md, Reconcile: without a witness, "absent" is safe only if margin plus spread outlast
the matching engine's clock skew, its delay and the lag of the read side: 7 s on futures, 12 s on Spot, 30 s for algo
orders. They may be undercut against the local exchange only, where nothing lags and nothing is at stake.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from app.settings.mode import TradingMode
from app.settings.model import Settings
from app.settings.urls import is_loopback

RECV_WINDOW_MAX_MS: Final = 5000
"""Every further millisecond of recvWindow is one in which a lost request may still become an order."""

_FLOORS: Final = {
    "fence_margin_ms": 2000,
    "absent_answers": 3,
    "absent_spread_usdm_ms": 5000,
    "absent_spread_spot_ms": 10_000,
    "absent_spread_algo_ms": 30_000,
    "all_orders_lookback_ms": 60_000,
    "max_read_lag_ms": 15_000,
    "opening_read_lag_ms": 15_000,
    "healthy_for_ms": 30_000,
}

LOCAL_OPENING_READ_LAG_MS: Final = 500

TOKEN_MIN_CHARACTERS: Final = 32
"""Of the kill switch over HTTP: 128 bits if they are hexadecimal digits, which nobody guesses at any rate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A setting that does not fit the others."""

    field: str
    text: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.field}: {self.text}: {self.remedy}"


def check(settings: Settings) -> list[Problem]:
    """Return what does not fit together; an empty list means that it is sane. Nothing should start otherwise."""
    return [
        *_exchange(settings),
        *_horizons(settings),
        *_redis(settings),
        *_gates(settings),
        *_intents(settings),
        *_kill_switch(settings),
    ]


def opening_read_lag_ms(settings: Settings) -> int:
    """Return how far behind an answer may be from which the books are opened.

    Unless it is set, as far as any other. The local exchange lags only when it is told to: there, half a second.
    """
    if settings.horizons.opening_read_lag_ms is not None:
        return settings.horizons.opening_read_lag_ms
    return LOCAL_OPENING_READ_LAG_MS if may_be_scaled_down(settings) else settings.horizons.max_read_lag_ms


def may_be_scaled_down(settings: Settings) -> bool:
    """Return whether horizons below the floors are harmless: mode paper, with the exchange on this machine."""
    urls = (settings.exchange.futures_url, settings.exchange.spot_url)
    return settings.mode is TradingMode.PAPER and all(url is None or is_loopback(url) for url in urls)


def _exchange(settings: Settings) -> Iterator[Problem]:
    exchange = settings.exchange
    if exchange.recv_window_ms > RECV_WINDOW_MAX_MS:
        yield Problem(
            field="exchange.recv_window_ms",
            text=f"{exchange.recv_window_ms} ms leaves a lost request alive for too long",
            remedy=f"at most {RECV_WINDOW_MAX_MS}",
        )
    if exchange.pin_to_send_limit_ms >= exchange.recv_window_ms:
        yield Problem(
            field="exchange.pin_to_send_limit_ms",
            text="a request could be sent after the exchange has stopped taking it",
            remedy=f"below exchange.recv_window_ms ({exchange.recv_window_ms})",
        )
    if exchange.outer_deadline_ms < exchange.connect_timeout_ms + exchange.read_timeout_ms:
        yield Problem(
            field="exchange.outer_deadline_ms",
            text="gives a request up before its own timeouts do, and turns answers into doubt",
            remedy=f"at least connect_timeout_ms + read_timeout_ms "
            f"({exchange.connect_timeout_ms + exchange.read_timeout_ms})",
        )
    if exchange.clock_refresh_s >= exchange.clock_max_age_s:
        yield Problem(
            field="exchange.clock_refresh_s",
            text="the exchange's clock would be too old before it is asked again",
            remedy=f"below exchange.clock_max_age_s ({exchange.clock_max_age_s})",
        )
    if (exchange.api_key is None) != (exchange.api_secret is None):
        yield Problem(
            field="exchange.api_secret" if exchange.api_secret is None else "exchange.api_key",
            text="only one half of the credentials is set",
            remedy="set BINANCE_API_KEY and BINANCE_API_SECRET (or their _FILE variants), or neither",
        )
    if settings.mode is TradingMode.TESTNET and exchange.api_key is None and exchange.api_secret is None:
        yield Problem(
            field="exchange.api_key",
            text="mode testnet sends signed requests",
            remedy="set BINANCE_API_KEY and BINANCE_API_SECRET (or their _FILE variants) to a testnet key",
        )


def _horizons(settings: Settings) -> Iterator[Problem]:
    horizons, exchange = settings.horizons, settings.exchange
    if not may_be_scaled_down(settings):
        for name, floor in _FLOORS.items():
            value = getattr(horizons, name)
            if value is not None and value < floor:
                yield Problem(
                    field=f"horizons.{name}",
                    text=f"{value} is too little to prove anything absent on a real exchange",
                    remedy=f"at least {floor} (less only in mode paper against the local exchange)",
                )
    spread_ms = max(horizons.absent_spread_usdm_ms, horizons.absent_spread_spot_ms)
    if horizons.max_read_lag_ms < spread_ms:
        yield Problem(
            field="horizons.max_read_lag_ms",
            text="an order would be closed as expired before absence could be shown",
            remedy=f"at least the larger of absent_spread_usdm_ms and absent_spread_spot_ms ({spread_ms})",
        )
    if horizons.healthy_for_ms < exchange.outer_deadline_ms:
        yield Problem(
            field="horizons.healthy_for_ms",
            text="a request still running could leave its outcome unknown just after the venue counted as healthy",
            remedy=f"at least exchange.outer_deadline_ms ({exchange.outer_deadline_ms})",
        )
    if horizons.all_orders_lookback_ms < exchange.recv_window_ms:
        yield Problem(
            field="horizons.all_orders_lookback_ms",
            text="the search would start after the order",
            remedy=f"at least exchange.recv_window_ms ({exchange.recv_window_ms})",
        )
    longest_ms = max(spread_ms, horizons.absent_spread_algo_ms, horizons.max_read_lag_ms)
    settled_ms = exchange.recv_window_ms + horizons.fence_margin_ms + longest_ms
    if horizons.quarantine_after_ms <= settled_ms:
        yield Problem(
            field="horizons.quarantine_after_ms",
            text="every lost order would be quarantined before it could be settled",
            remedy=f"above recv_window_ms + fence_margin_ms + the longest spread or read lag ({settled_ms})",
        )


def _redis(settings: Settings) -> Iterator[Problem]:
    guard, horizons = settings.guard, settings.horizons
    if guard.lease_renew_ms * 2 >= guard.lease_ttl_ms:
        yield Problem(
            field="guard.lease_renew_ms",
            text="one late renewal would lose the lease of a living owner",
            remedy=f"below half of guard.lease_ttl_ms ({guard.lease_ttl_ms})",
        )
    if guard.result_ttl_s * 1000 <= horizons.quarantine_after_ms:
        yield Problem(
            field="guard.result_ttl_s",
            text="results would be forgotten while their intent may still be in doubt",
            remedy=f"above horizons.quarantine_after_ms ({horizons.quarantine_after_ms})",
        )
    names = [guard.namespace, guard.breaker_namespace, guard.rate_namespace, guard.kill_switch_key]
    if len(set(names)) != len(names):
        yield Problem(
            field="guard.namespace",
            text="guards, breakers, limits and kill switch share a name in Redis",
            remedy="give each its own",
        )


def _gates(settings: Settings) -> Iterator[Problem]:
    breaker, limits = settings.breaker, settings.rate_limits
    if breaker.open_ms > breaker.open_max_ms:
        yield Problem(
            field="breaker.open_ms",
            text="the circuit would be open for longer the first time than it ever may be",
            remedy=f"at most breaker.open_max_ms ({breaker.open_max_ms})",
        )
    if breaker.min_calls > breaker.window_calls:
        yield Problem(
            field="breaker.min_calls",
            text="the window never holds so many calls, so the failure rate would never count",
            remedy=f"at most breaker.window_calls ({breaker.window_calls})",
        )
    renew_ms, ttl_ms = settings.guard.lease_renew_ms, settings.guard.lease_ttl_ms
    if renew_ms * 2 < ttl_ms and breaker.probe_lease_ms <= renew_ms:  # otherwise the renewal itself is to be mended
        yield Problem(
            field="breaker.probe_lease_ms",
            text="a living prober would lose its permit before it renews it",
            remedy=f"more than guard.lease_renew_ms ({renew_ms})",
        )
    if limits.reserve_percent >= limits.use_percent:
        yield Problem(
            field="rate_limits.reserve_percent",
            text="nothing would be left for orders that open risk",
            remedy=f"below rate_limits.use_percent ({limits.use_percent})",
        )


def _intents(settings: Settings) -> Iterator[Problem]:
    policy, retry = settings.policy, settings.retry
    needed_ms = settings.exchange.recv_window_ms + settings.exchange.pin_to_send_limit_ms + policy.permit_wait_ms
    if policy.valid_for_s * 1000 <= needed_ms:
        yield Problem(
            field="policy.valid_for_s",
            text="an intent would expire before it could be sent",
            remedy=f"more than recv_window_ms + pin_to_send_limit_ms + permit_wait_ms ({needed_ms} ms)",
        )
    if retry.backoff_base_ms > retry.backoff_max_ms:
        yield Problem(
            field="retry.backoff_base_ms",
            text="the first wait is longer than the longest",
            remedy=f"at most retry.backoff_max_ms ({retry.backoff_max_ms})",
        )
    if not settings.universe.usdm and not settings.universe.spot:
        yield Problem(field="universe.usdm", text="no symbol is watched", remedy="name at least one symbol")


def _kill_switch(settings: Settings) -> Iterator[Problem]:
    token = settings.kill_switch.http_token
    if token is None:
        return
    text = token.reveal()
    if len(text) < TOKEN_MIN_CHARACTERS or not all("!" <= one <= "~" for one in text):
        yield Problem(
            field="kill_switch.http_token",
            text="too short to be safe from guessing, or not fit for an HTTP header",
            remedy=f"at least {TOKEN_MIN_CHARACTERS} printable ASCII characters without blanks: `openssl rand -hex 32`",
        )
