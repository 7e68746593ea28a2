"""What we write into the records of jobs is what RQ and zlib read."""

import zlib
from datetime import UTC, datetime

from hypothesis import example, given
from hypothesis import strategies as st
from rq.utils import utcformat, utcparse

from app.delivery.rq_format import now_text, packed


@given(st.binary(max_size=300))
@example(b"")
@example(b"x" * 0xFFFF)
@example(b"x" * 0x10000)
def test_what_is_packed_is_inflated_to_what_it_was(raw: bytes) -> None:
    assert zlib.decompress(packed(raw)) == raw


def test_present_is_written_as_rq_would() -> None:
    before = datetime.now(UTC)
    text = now_text()
    assert before <= utcparse(text) <= datetime.now(UTC)
    assert utcformat(utcparse(text)) == text
