"""Reads one HTTP/1.x answer off a connection: strictly, bounded, and to the very byte at which it ends.

It takes less than a browser would. Whatever is not plainly one whole answer is an error, which leaves an order in
doubt; guessing where an answer ends could hand a piece of it to the next request. docs/adr/0018 says why it is ours.
"""

import re
from collections.abc import Callable
from typing import Final, NamedTuple

MAX_BODY_BYTES: Final = 64 * 1024 * 1024
"""Largest body that is read, packed or unpacked: several times the full exchangeInfo of either venue."""
MAX_HEAD_BYTES: Final = 64 * 1024
"""Most bytes of a status line with its headers, of a chunk's line, and of what follows the last chunk."""
_MOST_INTERIM_ANSWERS: Final = 8

_STATUS: Final = re.compile(r"HTTP/1\.([01]) ([1-9][0-9]{2})(?: [^\x00-\x08\x0a-\x1f\x7f]*)?\r\n")
# A name follows a line break at once and is followed by a colon at once: no folded lines, no spaces to disagree about.
_FIELD: Final = re.compile(r"^([!#$%&'*+.^_`|~0-9A-Za-z-]+):([^\x00-\x08\x0a-\x1f\x7f]*)\r\n", re.MULTILINE)
_LENGTH: Final = re.compile(r"[0-9]{1,15}")
_CHUNK: Final = re.compile(rb"([0-9A-Fa-f]{1,8})(?:;[^\x00-\x08\x0a-\x1f\x7f]*|[ \t]*)\r\n")
_WITHOUT_BODY: Final = frozenset({204, 304})


class AnswerError(Exception):
    """What came is not one whole HTTP answer."""


class Answer(NamedTuple):
    """An answer that came whole. Header names are lower case; `body` is as it came, still packed."""

    status: int
    headers: dict[str, str]
    body: bytes
    may_another_follow: bool
    """Whether its end is known, nothing came behind it, and the server keeps the connection."""


def read_answer(receive: Callable[[], bytes], *, method: str) -> Answer:
    """Return the final answer to a request of `method`; interim ones (1xx) are passed over.

    Args:
        receive: Returns the next bytes, none at the end of the connection.
        method: That of the request: an answer to HEAD has no body, whatever its headers say.

    Raises:
        AnswerError: it is truncated, malformed or too large.
    """
    stream = _Stream(receive)
    for _ in range(_MOST_INTERIM_ANSWERS + 1):
        minor, status, headers = _head(stream)
        if status >= 200:
            break
        if status == 101:
            raise AnswerError("the server changes to a protocol that nobody asked for")
    else:
        raise AnswerError("interim answers without end")
    is_kept = minor == "1" and "close" not in headers.get("connection", "").lower()
    coding = headers.get("transfer-encoding")
    if coding is not None and (coding.lower() != "chunked" or "content-length" in headers or minor == "0"):
        raise AnswerError("the length of the body is told in two ways, or in one that is not known")
    if method == "HEAD" or status in _WITHOUT_BODY:
        body = b""
    elif coding is not None:
        body = _chunks(stream)
    elif "content-length" in headers:
        body = stream.exactly(_length(headers["content-length"]))
    else:
        body, is_kept = stream.rest(), False
    return Answer(status=status, headers=headers, body=body, may_another_follow=is_kept and stream.is_used_up)


class _Stream:
    """The bytes of one connection, from the first that follows a request."""

    def __init__(self, receive: Callable[[], bytes]) -> None:
        self._receive = receive
        self._data = b""
        self._at = 0

    @property
    def is_used_up(self) -> bool:
        """Whether everything that was received has been taken."""
        return self._at == len(self._data)

    def through(self, end: bytes) -> bytes:
        """Take everything up to and including `end`, at most `MAX_HEAD_BYTES`."""
        while (found := self._data.find(end, self._at)) < 0 and len(self._data) - self._at <= MAX_HEAD_BYTES:
            self._more()
        stop = found + len(end)
        if found < 0 or stop - self._at > MAX_HEAD_BYTES:
            raise AnswerError(f"more than {MAX_HEAD_BYTES} bytes of headers")
        taken, self._at = self._data[self._at : stop], stop
        return taken

    def exactly(self, size: int) -> bytes:
        """Take `size` bytes."""
        parts = []
        while True:
            part = self._data[self._at : self._at + size]
            self._at += len(part)
            size -= len(part)
            parts.append(part)
            if not size:
                return b"".join(parts)
            self._more()

    def rest(self) -> bytes:
        """Take everything until the connection ends."""
        parts, size = [self._data[self._at :]], len(self._data) - self._at
        self._at = len(self._data)
        while chunk := self._receive():
            size += len(chunk)
            if size > MAX_BODY_BYTES:
                raise AnswerError(f"the body is larger than {MAX_BODY_BYTES} bytes")
            parts.append(chunk)
        return b"".join(parts)

    def _more(self) -> None:
        chunk = self._receive()
        if not chunk:
            raise AnswerError("the connection ended before the answer did")
        self._data, self._at = self._data[self._at :] + chunk, 0


def _head(stream: _Stream) -> tuple[str, int, dict[str, str]]:
    text = stream.through(b"\r\n\r\n").decode("latin-1")
    told = _STATUS.match(text)
    if told is None:
        raise AnswerError(f"not an HTTP answer: {text[:50]!r}")
    return told[1], int(told[2]), _fields(text[told.end() : -2])


def _fields(text: str) -> dict[str, str]:
    """Return the headers of `text`, whole lines; those that come again are joined."""
    found = _FIELD.findall(text)
    if len(found) != text.count("\n"):  # a match is one line from its beginning to its end: so each line is one
        raise AnswerError("malformed headers")
    headers: dict[str, str] = {}
    for name, value in found:
        lower, bare = name.lower(), value.strip(" \t")
        headers[lower] = f"{headers[lower]}, {bare}" if lower in headers else bare
    return headers


def _length(told: str) -> int:
    one = told
    if "," in told:  # told twice alike it is told (RFC 9110, 8.6)
        one, *others = {each.strip(" \t") for each in told.split(",")}
        if others:
            one = ""
    if not _LENGTH.fullmatch(one):
        raise AnswerError(f"content-length: {told[:50]!r} is not one number")
    length = int(one)
    if length > MAX_BODY_BYTES:
        raise AnswerError(f"the body is larger than {MAX_BODY_BYTES} bytes")
    return length


def _chunks(stream: _Stream) -> bytes:
    parts, left = [], MAX_BODY_BYTES
    while True:
        told = _CHUNK.fullmatch(stream.through(b"\r\n"))
        if told is None:
            raise AnswerError("malformed chunk")
        size = int(told[1], 16)
        if not size:
            break
        left -= size
        if left < 0:
            raise AnswerError(f"the body is larger than {MAX_BODY_BYTES} bytes")
        parts.append(stream.exactly(size))
        if stream.exactly(2) != b"\r\n":
            raise AnswerError("malformed chunk")
    trailers = b""
    while (line := stream.through(b"\r\n")) != b"\r\n":
        trailers += line
        if len(trailers) > MAX_HEAD_BYTES:
            raise AnswerError(f"more than {MAX_HEAD_BYTES} bytes of headers")
    _fields(trailers.decode("latin-1"))
    return b"".join(parts)
