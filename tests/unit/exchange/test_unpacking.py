"""A packed body is unpacked whole or not at all, and never beyond the limit."""

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.exchange.unpacking import UnpackingError, unpacked

BODY = b'{"symbols": [' + b'"BTCUSDT", ' * 500 + b"0]}"


def raw_deflate(body: bytes) -> bytes:
    packing = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packing.compress(body) + packing.flush()


PACKINGS = {
    "gzip": gzip.compress(BODY),
    "x-gzip": gzip.compress(BODY),
    " GZip ": gzip.compress(BODY),
    "deflate": zlib.compress(BODY),
    "Deflate": raw_deflate(BODY),
}


@pytest.mark.parametrize("encoding", PACKINGS)
def test_body_is_unpacked(encoding: str) -> None:
    assert unpacked(PACKINGS[encoding], encoding=encoding, limit=len(BODY)) == BODY


@pytest.mark.parametrize("encoding", PACKINGS)
def test_truncated_body_is_an_error_and_never_a_shorter_body(encoding: str) -> None:
    packed = PACKINGS[encoding]
    for end in range(1, len(packed)):
        with pytest.raises(UnpackingError):
            unpacked(packed[:end], encoding=encoding, limit=1 << 20)


@pytest.mark.parametrize("encoding", PACKINGS)
def test_body_that_unpacks_beyond_the_limit_is_an_error(encoding: str) -> None:
    with pytest.raises(UnpackingError, match="too large"):
        unpacked(PACKINGS[encoding], encoding=encoding, limit=len(BODY) - 1)


def test_small_body_that_unpacks_to_a_huge_one_is_given_up_early() -> None:
    bomb = gzip.compress(bytes(200 * 1024 * 1024), compresslevel=1)
    with pytest.raises(UnpackingError, match="too large"):
        unpacked(bomb, encoding="gzip", limit=1 << 20)


def test_gzip_in_several_members_is_one_body() -> None:
    packed = gzip.compress(b'{"a":') + gzip.compress(b"1}")
    assert unpacked(packed, encoding="gzip", limit=100) == b'{"a":1}'
    with pytest.raises(UnpackingError, match="too large"):
        unpacked(packed, encoding="gzip", limit=6)


@pytest.mark.parametrize(
    "body",
    [b"not packed", gzip.compress(BODY) + b"rest", zlib.compress(BODY)],
    ids=["not packed", "a rest behind it", "another packing"],
)
def test_body_that_is_not_what_it_says_is_an_error(body: bytes) -> None:
    with pytest.raises(UnpackingError):
        unpacked(body, encoding="gzip", limit=1 << 20)


@pytest.mark.parametrize("encoding", ["identity", "br", "gzip, gzip"])
def test_body_in_an_encoding_that_is_not_asked_for_is_left_as_it_came(encoding: str) -> None:
    """Its status still tells something: a firewall's 403 in an odd encoding is a ban all the same."""
    assert unpacked(b"body", encoding=encoding, limit=1) == b"body"


def test_empty_body_needs_no_unpacking() -> None:
    assert unpacked(b"", encoding="gzip", limit=0) == b""


@given(body=st.binary(max_size=200), limit=st.integers(0, 250))
def test_what_is_unpacked_is_what_was_packed_or_nothing(body: bytes, limit: int) -> None:
    for encoding, packed in (("gzip", gzip.compress(body)), ("deflate", zlib.compress(body))):
        if len(body) <= limit:
            assert unpacked(packed, encoding=encoding, limit=limit) == body
        else:
            with pytest.raises(UnpackingError):
                unpacked(packed, encoding=encoding, limit=limit)
