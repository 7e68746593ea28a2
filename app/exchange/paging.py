"""Histories read whole, whatever a page holds.

Binance's history endpoints answer at most one page, and do not document which end of a longer span a page keeps. So a
full page is never used: its span is halved and both halves are asked for again.
"""

from collections.abc import Callable, Hashable
from typing import TypeVar

from app.exchange.errors import AnswerShapeError

_Item = TypeVar("_Item")

FetchSpan = Callable[[int, int | None], list[_Item]]
"""Asks for the items of one span (first and last millisecond, None: until now)."""


def whole_span(
    fetch: FetchSpan[_Item],
    key: Callable[[_Item], Hashable],
    *,
    start_ms: int,
    now_ms: int,
    window_ms: int,
    page_limit: int,
) -> list[_Item]:
    """Return every item since `start_ms`, each once, oldest span first.

    The newest span is asked for first. An order that is missing from an older span was therefore missing *after* the
    read side had already shown the newer ones, which is what makes a newer order a witness of the older one's absence.
    Neighboring spans share a millisecond, so that it does not matter whether the exchange counts their ends in.

    Raises:
        AnswerShapeError: more than a page of items within two milliseconds.
    """
    starts = list(range(start_ms, max(now_ms, start_ms + 1), window_ms))
    ends: list[int | None] = [*starts[1:], None]
    found: list[_Item] = []
    for start, end in reversed(list(zip(starts, ends, strict=True))):
        found = _span(fetch, start, end, now_ms, page_limit) + found
    return list({key(item): item for item in found}.values())


def forward_pages(
    fetch: Callable[[int], list[_Item]], number: Callable[[_Item], int], *, from_id: int, page_limit: int
) -> list[_Item]:
    """Return every item whose id is at least `from_id`, by asking from after the last one until a page is not full.

    Raises:
        AnswerShapeError: a page does not lead on.
    """
    found: dict[int, _Item] = {}
    while True:
        page = fetch(from_id)
        found.update((number(item), item) for item in page)
        if len(page) < page_limit:
            return [found[one] for one in sorted(found)]
        last = max(number(item) for item in page)
        if last < from_id:
            raise AnswerShapeError(f"the page from id {from_id} ends at {last}")
        from_id = last + 1


def _span(fetch: FetchSpan[_Item], start: int, end: int | None, now_ms: int, page_limit: int) -> list[_Item]:
    page = fetch(start, end)
    if len(page) < page_limit:
        return page
    last = now_ms if end is None else end
    middle = start + (last - start) // 2
    if not start < middle < last:
        raise AnswerShapeError(f"more than {page_limit} items between {start} and {last}")
    newer = _span(fetch, middle, end, now_ms, page_limit)
    return _span(fetch, start, middle, now_ms, page_limit) + newer
