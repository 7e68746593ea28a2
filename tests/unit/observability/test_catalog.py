"""The catalog, the events that count, and the page about them belong together."""

import re
from pathlib import Path
from typing import Any

import pytest

from app.cli.metrics_page import page
from app.observability import catalog
from app.observability.catalog import CATALOG, NOT_EXPORTED
from app.observability.events import EFFECTS, gate_of, reason_of
from app.observability.metric import Count, Kind, Metric, Observe, Origin

ROOT = Path(__file__).parents[3]
PLANNED = (
    *("retry_rate_per_minute", "retry_success_rate", "retry_failure_rate", "retry_avg_attempts", "retry_block_rate"),
    *("retry_total_count", "retry_total_successes", "retry_total_failures", "retry_total_blocks"),
    *("circuit_breaker_state", "side_effect_duplicates", "duplicate_blocked_total", "duplicate_executed_total"),
    *("p33_permit_deny_total", "p33_permit_allow_total", "governor_block_total", "apply_executed_total"),
    *("permit_wait_ms", "position_mismatch_seconds", "apply_plan_processed_total"),
    *("kill_switch_active", "kill_switch_epoch"),
    *("trader_exposure_pct", "trader_open_positions", "trader_pending_orders", "trader_fill_ratio"),
    *("trader_fills_total", "trader_order_rejections_total", "trader_circuit_breaker_state"),
    *("trader_circuit_breaker_trips_total", "exchange_api_errors_total", "exchange_api_consecutive_errors"),
    *("trader_pnl_daily_usd", "trader_pnl_daily_pct", "trader_pnl_weekly_usd", "trader_pnl_weekly_pct"),
    *("trader_total_pnl_usd", "trader_total_pnl_pct"),
    *("signals_generated_total", "model_inference_seconds", "model_accuracy", "orders_placed_total"),
    "order_execution_seconds",
)  # fmt: skip


@pytest.mark.parametrize("name", PLANNED)
def test_every_planned_name_is_exported_or_said_to_be_missing(name: str) -> None:
    assert (name in CATALOG) != (name in NOT_EXPORTED)


def test_the_page_is_made_of_the_catalog() -> None:
    """If this fails: python -m app.cli.metrics_page > docs/reference/metrics.md."""
    assert (ROOT / "docs/reference/metrics.md").read_text() == page()


def test_every_event_that_counts_is_recorded_somewhere() -> None:
    sources = [*ROOT.glob("app/**/*.py"), *ROOT.glob("workers/*.py")]
    text = "\n".join(path.read_text() for path in sources if path.name != "events.py")
    recorded = set(re.findall(r"\.event\(\s*\"(\w+)\"", text))
    assert set(EFFECTS) - recorded == set()


def test_counters_and_only_they_end_in_total() -> None:
    def declare(name: str, kind: Kind) -> Metric:
        return Metric(name=name, kind=kind, help="x", origin=Origin.LIVE)

    for name, kind in (("orders", Kind.COUNTER), ("orders_total", Kind.GAUGE)):
        with pytest.raises(ValueError, match="_total"):
            declare(name, kind)


def test_effect_must_give_every_label_of_its_metric() -> None:
    with pytest.raises(ValueError, match="has the labels"):
        Count(metric=catalog.ORDERS_PLACED, labels={"symbol": "symbol"})
    with pytest.raises(ValueError, match="is a counter"):
        Observe(metric=catalog.ORDERS_PLACED, value="x")


@pytest.mark.parametrize(
    ("why", "gate", "reason"),
    [
        ("kill_switch:halt", "kill_switch", "kill_switch"),
        ("pause:429:too_many_requests", "pause", "cooldown"),
        ("breaker:order_usdm", "breaker", "circuit_open"),
        ("rate:weight", "rate", "cooldown"),
        ("exchange not readable: timed out", "exchange", "other"),
        ("BTCUSDT is closed until some-key-17 is settled", "other", "other"),
        ("", "other", "other"),
    ],
)
def test_gate_is_what_stands_before_the_first_colon(why: str, gate: str, reason: str) -> None:
    fields: dict[str, Any] = {"why": why}
    assert (gate_of(fields), reason_of(fields)) == (gate, reason)
