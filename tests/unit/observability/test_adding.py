"""What an effect of an event adds: the same however often it is asked, and within the bounds of the labels."""

from collections.abc import Sequence

import pytest

from app.observability.adding import REMEMBERED, SUM_SCALE, adding
from app.observability.buffer import MINUTE, SERIES, TIMES, Amount, series
from app.observability.labels import MAX_VALUES, OTHER, LabelValues
from app.observability.metric import Count, Effect, Fields, Kind, Mark, Metric, Observe, Origin

NOW_MS = 1_700_000_000_000
ORDERS = Metric(name="orders_total", kind=Kind.COUNTER, help="x", origin=Origin.REDIS, labels=("venue", "outcome"))
RECENT = Metric(name="tries_total", kind=Kind.COUNTER, help="x", origin=Origin.REDIS, is_windowed=True)
SECONDS = Metric(
    name="seconds", kind=Kind.HISTOGRAM, help="x", origin=Origin.REDIS, labels=("venue",), buckets=(0.5, 1.0)
)
DONE = Metric(name="done", kind=Kind.GAUGE, help="x", origin=Origin.REDIS, labels=("duty",), is_time=True)
COUNT = Count(metric=ORDERS, labels={"outcome": lambda fields: fields["became"], "venue": "venue"})
OBSERVE = Observe(metric=SECONDS, value="took_ms", labels={"venue": "venue"})


def added(effect: Effect, *events: Fields, values: LabelValues | None = None) -> list[Sequence[Amount]]:
    asked = adding(effect, values or LabelValues(), now_ms=lambda: NOW_MS)
    return [list(asked(fields)) for fields in events]


def test_series_has_the_labels_in_the_order_of_the_metric_and_is_the_same_each_time() -> None:
    event = {"venue": "usdm", "became": "Accepted"}
    amount = (SERIES, series("orders_total", "usdm", "Accepted"), 1)
    assert added(COUNT, event, event, {**event, "key": "another"}) == [[amount]] * 3


def test_label_without_a_value_is_none_and_any_value_counts_as_its_text() -> None:
    (nothing,), (word,), (number,) = added(COUNT, {"became": None}, {"became": "None"}, {"became": 429})
    assert [one[1] for one in (nothing, word, number)] == [
        series("orders_total", "none", told) for told in ("none", "None", "429")
    ]


def test_windowed_counter_is_also_counted_by_the_minute() -> None:
    assert added(Count(metric=RECENT), {}) == [[(SERIES, series("tries_total"), 1), (MINUTE, series("tries_total"), 1)]]


def test_mark_is_set_to_the_present() -> None:
    mark = Mark(metric=DONE, labels={"duty": "duty"})
    assert added(mark, {"duty": "sweep"}) == [[(TIMES, series("done", "sweep"), NOW_MS)]]


@pytest.mark.parametrize(
    ("took_ms", "bound", "total"),
    [
        (500, "0.5", 500_000),
        (500.001, "1.0", 500_001),
        (1000, "1.0", SUM_SCALE),
        (1001, "+Inf", 1_001_000),
        (-1, "0.5", 0),
    ],
)
def test_value_falls_into_the_bucket_whose_upper_bound_it_does_not_pass(took_ms: float, bound: str, total: int) -> None:
    assert added(OBSERVE, {"venue": "spot", "took_ms": took_ms}) == [
        [(SERIES, series("seconds_bucket", "spot", bound), 1), (SERIES, series("seconds_sum", "spot"), total)]
    ]


@pytest.mark.parametrize("took_ms", [None, "12"])
def test_event_without_a_number_adds_nothing_to_a_histogram(took_ms: object) -> None:
    assert added(OBSERVE, {"venue": "spot", "took_ms": took_ms}) == [[]]


def test_value_beyond_the_hundredth_stays_other_and_the_known_ones_stay_themselves() -> None:
    """More are asked for than are remembered, so that what is asked again is named again."""
    values = LabelValues()
    events = [{"venue": f"S{number}", "became": "Accepted"} for number in range(REMEMBERED + MAX_VALUES)]
    for _ in range(2):
        names = [amount[1] for (amount,) in added(COUNT, *events, *events, values=values)]
        known = [series("orders_total", f"S{number}", "Accepted") for number in range(MAX_VALUES)]
        others = [series("orders_total", OTHER, "Accepted")] * REMEMBERED
        assert names == [*known, *others] * 2
