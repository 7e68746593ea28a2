"""No label may hold an id, and none may take on values without end (S2.29)."""

import pytest

from app.observability.labels import MAX_VALUES, OTHER, LabelError, LabelValues, check_declared
from app.observability.metric import Kind, Metric, Origin

FORBIDDEN = (
    "job_id", "order_id", "trade_id", "user_id", "transaction_id", "request_id", "task_id", "execution_id",
    "session_id", "some_id", "order_uuid", "row_guid", "timestamp", "timestamp_ms",
    "last_timestamp", "key", "intent_key", "token",
    "config_hash", "client_order_id",
)  # fmt: skip
IDS = (
    "8389765506591", "1795725870641", "0f6f9f0e-6a0e-4b7e-9c1e-2f1d7a3b5c6d", "9f86d081884c7d659a2feaa0c55ad015",
    "host-orders-1-4fe2a9c01b77", "a key with spaces", "x" * 61, "", 'quote"', "line\nbreak", "é",
)  # fmt: skip


@pytest.mark.parametrize("label", FORBIDDEN)
def test_metric_with_a_label_that_would_hold_an_id_cannot_be_declared(label: str) -> None:
    with pytest.raises(LabelError, match=label):
        Metric(name="orders", kind=Kind.GAUGE, help="x", origin=Origin.LIVE, labels=("venue", label))


@pytest.mark.parametrize("label", ["job_type", "gate", "by", "venue", "symbol", "side", "failure_class", "source"])
def test_label_with_few_values_can_be_declared(label: str) -> None:
    check_declared("orders", (label,))


@pytest.mark.parametrize("labels", [("venue", "venue"), ("Venue",), ("le",), ("9x",), ("",)])
def test_label_that_prometheus_would_not_take_cannot_be_declared(labels: tuple[str, ...]) -> None:
    with pytest.raises(LabelError):
        check_declared("orders", labels)


@pytest.mark.parametrize("value", IDS)
def test_value_that_looks_like_an_id_is_counted_as_other(value: str) -> None:
    assert LabelValues().admit("orders", "reason", value) == OTHER


@pytest.mark.parametrize(
    "value", ["usdm", "BTCUSDT", "order_usdm", "429", "1000SHIBUSDT", "OUTCOME_UNKNOWN", "kill_switch"]
)
def test_value_that_is_a_word_is_kept(value: str) -> None:
    assert LabelValues().admit("orders", "reason", value) == value


def test_the_hundred_and_first_value_of_a_label_is_other_and_the_known_ones_stay() -> None:
    values = LabelValues()
    kept = [values.admit("orders", "symbol", f"S{number}") for number in range(MAX_VALUES)]
    assert kept == [f"S{number}" for number in range(MAX_VALUES)]
    assert values.admit("orders", "symbol", "S100") == OTHER
    assert values.admit("orders", "symbol", "S99") == "S99"
    assert values.admit("orders", "side", "BUY") == "BUY"  # another label has its own hundred
