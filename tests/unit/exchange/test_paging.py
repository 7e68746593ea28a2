"""Histories are complete whichever end of a full page the exchange keeps, and newest is asked for first."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.exchange.errors import AnswerShapeError
from app.exchange.paging import forward_pages, whole_span

Item = tuple[int, int]


class History:
    def __init__(self, times: list[int], limit: int, *, keeps_newest: bool, is_end_inclusive: bool) -> None:
        self.items: list[Item] = list(enumerate(sorted(times)))
        self.limit = limit
        self.keeps_newest = keeps_newest
        self.is_end_inclusive = is_end_inclusive
        self.asked: list[tuple[int, int | None]] = []

    def __call__(self, start: int, end: int | None) -> list[Item]:
        self.asked.append((start, end))
        last = 10**9 if end is None else end if self.is_end_inclusive else end - 1
        found = [item for item in self.items if start <= item[1] <= last]
        return found[-self.limit :] if self.keeps_newest else found[: self.limit]


@given(
    times=st.lists(st.integers(0, 5000), max_size=60, unique=True),
    limit=st.integers(4, 9),
    window=st.integers(200, 6000),
    start=st.integers(0, 2000),
    habits=st.tuples(st.booleans(), st.booleans()),
)
def test_every_item_is_found_once(
    times: list[int], limit: int, window: int, start: int, habits: tuple[bool, bool]
) -> None:
    history = History(times, limit, keeps_newest=habits[0], is_end_inclusive=habits[1])
    found = whole_span(history, lambda item: item[0], start_ms=start, now_ms=5001, window_ms=window, page_limit=limit)
    assert sorted(found) == [item for item in history.items if item[1] >= start]


def test_newest_span_is_asked_for_first() -> None:
    history = History([1, 50, 99], 10, keeps_newest=True, is_end_inclusive=True)
    whole_span(history, lambda item: item[0], start_ms=0, now_ms=100, window_ms=40, page_limit=10)
    assert history.asked == [(80, None), (40, 80), (0, 40)]


def test_span_longer_than_a_window_is_never_asked_for() -> None:
    history = History(list(range(0, 1000, 7)), 5, keeps_newest=True, is_end_inclusive=True)
    whole_span(history, lambda item: item[0], start_ms=0, now_ms=1000, window_ms=100, page_limit=5)
    assert all((1000 if end is None else end) - start <= 100 for start, end in history.asked)


def test_more_than_a_page_in_one_millisecond_is_an_error_not_a_gap() -> None:
    crowded = [(number, 500) for number in range(9)]
    with pytest.raises(AnswerShapeError, match="more than"):
        whole_span(
            lambda start, end: [one for one in crowded if start <= 500 and (end is None or end >= 500)][:3],
            lambda item: item[0],
            start_ms=0,
            now_ms=1000,
            window_ms=5000,
            page_limit=3,
        )


@given(st.sets(st.integers(0, 300), max_size=80), st.integers(0, 300), st.integers(1, 7))
def test_pages_by_id_lead_to_the_end(numbers: set[int], first: int, limit: int) -> None:
    def fetch(from_id: int) -> list[int]:
        return sorted(number for number in numbers if number >= from_id)[:limit]

    found = forward_pages(fetch, lambda item: item, from_id=first, page_limit=limit)
    assert found == sorted(number for number in numbers if number >= first)


def test_page_that_does_not_lead_on_is_an_error() -> None:
    with pytest.raises(AnswerShapeError):
        forward_pages(lambda _: [1, 2], lambda item: item, from_id=5, page_limit=2)
