"""Unpacks a body that came gzipped or deflated, within a limit and only if it is whole."""

import zlib
from typing import Final

_GZIP: Final = frozenset({"gzip", "x-gzip"})
_GZIP_BITS: Final = 16 + zlib.MAX_WBITS


class UnpackingError(Exception):
    """The body is not what its Content-Encoding says, is truncated, or is too large unpacked."""


def unpacked(body: bytes, *, encoding: str, limit: int) -> bytes:
    """Return `body` without its content encoding; one that we never ask for leaves it as it came.

    Args:
        body: As it came.
        encoding: The value of Content-Encoding.
        limit: Most bytes that it may have unpacked.

    Raises:
        UnpackingError: it cannot be unpacked whole.
    """
    name = encoding.strip().lower()
    if not body or (name not in _GZIP and name != "deflate"):
        return body
    try:
        if name in _GZIP:
            return _inflated(body, _GZIP_BITS, limit)
        # "deflate" means zlib's format; some servers send what it wraps, without the wrapping.
        is_wrapped = body[0] & 0x0F == zlib.DEFLATED and int.from_bytes(body[:2], "big") % 31 == 0
        return _inflated(body, zlib.MAX_WBITS if is_wrapped else -zlib.MAX_WBITS, limit)
    except zlib.error as error:
        raise UnpackingError(f"content-encoding {name}: {error}") from error


def _inflated(body: bytes, bits: int, limit: int) -> bytes:
    parts: list[bytes] = []
    while body:
        inflating = zlib.decompressobj(bits)
        part = inflating.decompress(body, limit + 1)
        limit -= len(part)
        if limit < 0:
            raise UnpackingError("the unpacked body is too large")
        if not inflating.eof:
            raise UnpackingError("the packed body is truncated")
        parts.append(part)
        body = inflating.unused_data
    return b"".join(parts)
