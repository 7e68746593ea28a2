"""A file may hold anything: every line is answered, and memory stays bounded."""

import tracemalloc
from collections.abc import Callable

import pytest

from app.cli.json_lines import CHUNK_BYTES, MAX_LINE_BYTES, Line, batches, parse

GOOD = b'{"type": "order", "key": "a", "symbol": "BTCUSDT", "side": "BUY", "quantity": "1"}'


def reader(*chunks: bytes) -> Callable[[int], bytes]:
    left = list(chunks)
    return lambda _limit: left.pop(0) if left else b""


def numbers(*chunks: bytes, max_lines: int = 500) -> list[tuple[int, bytes | None]]:
    return [(line.number, line.raw) for batch in batches(reader(*chunks), max_lines=max_lines) for line in batch]


@pytest.mark.parametrize("cut", range(1, 9))
def test_lines_are_the_same_wherever_the_stream_is_cut(cut: int) -> None:
    data = b"ab\n\ncd\nef"
    assert numbers(data[:cut], data[cut:]) == [(1, b"ab"), (3, b"cd"), (4, b"ef")]


def test_the_last_line_needs_no_newline_and_blank_lines_count_but_say_nothing() -> None:
    assert numbers(b"\r\n  \na\r\n\n") == [(3, b"a\r")]
    assert numbers(b"") == []
    assert numbers(b"\n\n\n") == []


def test_a_byte_order_mark_is_passed_over_at_the_beginning_only() -> None:
    mark = b"\xef\xbb\xbf"
    assert numbers(mark + GOOD + b"\n" + mark + GOOD) == [(1, GOOD), (2, mark + GOOD)]


def test_a_line_of_just_the_limit_is_read_and_one_byte_more_is_not() -> None:
    assert numbers(b"x" * MAX_LINE_BYTES + b"\ny") == [(1, b"x" * MAX_LINE_BYTES), (2, b"y")]
    assert numbers(b"x" * (MAX_LINE_BYTES + 1) + b"\ny") == [(1, None), (2, b"y")]
    assert numbers(b"x" * MAX_LINE_BYTES) == [(1, b"x" * MAX_LINE_BYTES)]
    assert numbers(b"x" * (MAX_LINE_BYTES + 1)) == [(1, None)]


@pytest.mark.parametrize("ending", [b"", b"\n", b"\n" + GOOD])
def test_fifty_megabytes_on_one_line_cost_no_memory(ending: bytes) -> None:
    left = 50 * 1024 * 1024

    def read(limit: int) -> bytes:
        nonlocal left, ending
        if left:
            size = min(limit, left)
            left -= size
            return b"x" * size
        rest, ending = ending, b""
        return rest

    wanted = [Line(number=1, raw=None)] + ([Line(number=2, raw=GOOD)] if ending.endswith(GOOD) else [])
    tracemalloc.start()
    try:
        found = [line for batch in batches(read, max_lines=500) for line in batch]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found == wanted
    assert peak < 6 * CHUNK_BYTES


def test_lines_that_have_come_do_not_wait_for_the_next_ones() -> None:
    asked = []

    def read(_limit: int) -> bytes:
        asked.append(len(asked))
        return b"a\nb\nc" if len(asked) == 1 else b""

    stream = batches(read, max_lines=500)
    assert [line.raw for line in next(stream)] == [b"a", b"b"]
    assert asked == [0]
    assert [line.raw for line in next(stream)] == [b"c"]


def test_a_batch_is_bounded() -> None:
    sizes = [len(batch) for batch in batches(reader(b"a\n" * 1201), max_lines=500)]
    assert sizes == [500, 500, 201]


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b'{"\xff": 1}', "is not UTF-8 at byte 3"),
        (b"[" * 60_000, "is nested too deeply"),
        (b'{"a":' * 10_000, "is nested too deeply"),
        (b"\x00", "is not JSON"),
        (b"NaN", "holds NaN"),
        (b'{"type": "order", "key": "a", "key": "b"}', "key: is given twice"),
        (b'{"type": "order", "key": "a", "valid_for_s": ' + b"9" * 5000 + b"}", "more than 40 digits"),
        (b'{"type": "order", "key": "a", "valid_for_s": 1e999}', "is missing"),
    ],
)
def test_a_wrong_line_is_told_of_in_words(raw: bytes, words: str) -> None:
    parsed = parse(Line(number=3, raw=raw))
    assert parsed.intent is None
    assert parsed.number == 3
    assert words in (parsed.error or "")


def test_the_key_is_told_where_it_can_be_read() -> None:
    assert parse(Line(number=1, raw=b'{"type": "order", "key": "a"}')).key == "a"
    assert parse(Line(number=1, raw=b'{"type": "order", "key": "a b"}')).key is None
    assert parse(Line(number=1, raw=b'{"type": "order", "key": ["a"]}')).key is None
    assert parse(Line(number=1, raw=None)).key is None
