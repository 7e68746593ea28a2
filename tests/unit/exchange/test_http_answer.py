"""Where an answer ends, and that nothing but one whole answer is taken for one. h11 is the second opinion."""

from collections.abc import Iterator

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.exchange import http_answer
from app.exchange.http_answer import MAX_BODY_BYTES, MAX_HEAD_BYTES, Answer, AnswerError, read_answer

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


def read(data: bytes, *, method: str = "POST", size: int = 1 << 20) -> Answer:
    """Read `data` in pieces of `size` from a connection that then ends."""
    pieces = iter([*(data[at : at + size] for at in range(0, len(data), size)), b""])
    return read_answer(lambda: next(pieces), method=method)


GOOD = {
    "content_length": (OK + b"Content-Length: 2\r\n\r\n{}", 200, b"{}", True),
    "no_reason": (b"HTTP/1.1 418\r\nContent-Length: 2\r\n\r\n{}", 418, b"{}", True),
    "length_told_twice_alike": (OK + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}", 200, b"{}", True),
    "empty": (OK + b"Content-Length: 0\r\n\r\n", 200, b"", True),
    "chunks": (CHUNKED + b"1\r\n{\r\n1;name=value\r\n}\r\n0\r\n\r\n", 200, b"{}", True),
    "large_hexadecimal_chunk": (CHUNKED + b"00aB\r\n" + b"x" * 171 + b"\r\n0\r\n\r\n", 200, b"x" * 171, True),
    "trailers": (CHUNKED + b"2\r\n{}\r\n0\r\nContent-Length: 9\r\nX-T: 1\r\n\r\n", 200, b"{}", True),
    "until_the_end": (OK + b"\r\n{}", 200, b"{}", False),
    "close": (OK + b"Connection: close\r\nContent-Length: 2\r\n\r\n{}", 200, b"{}", False),
    "close_among_others": (OK + b"Connection: x, Close\r\nContent-Length: 2\r\n\r\n{}", 200, b"{}", False),
    "http_1_0": (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}", 200, b"{}", False),
    "http_1_0_until_the_end": (b"HTTP/1.0 200 OK\r\n\r\n{}", 200, b"{}", False),
    "no_content": (b"HTTP/1.1 204 None\r\n\r\n", 204, b"", True),
    "not_modified": (b"HTTP/1.1 304 Same\r\nContent-Length: 100\r\n\r\n", 304, b"", True),
    "interim": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\n" + OK + b"Content-Length: 2\r\n\r\n{}",
        200,
        b"{}",
        True,
    ),
}


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1 << 20])
@pytest.mark.parametrize("case", GOOD)
def test_whole_answer_is_read_however_it_is_cut(case: str, size: int) -> None:
    data, status, body, may_another_follow = GOOD[case]
    found = read(data, size=size)
    assert (found.status, found.body, found.may_another_follow) == (status, body, may_another_follow)


@pytest.mark.parametrize("case", [name for name, good in GOOD.items() if "until_the_end" not in name])
def test_answer_cut_short_anywhere_is_an_error_and_never_a_shorter_answer(case: str) -> None:
    data = GOOD[case][0]
    for end in range(len(data)):
        with pytest.raises(AnswerError):
            read(data[:end])


@pytest.mark.parametrize("case", [name for name, good in GOOD.items() if good[3]])
@pytest.mark.parametrize("extra", [b"\n", b"\r\n", b"x", OK + b"Content-Length: 2\r\n\r\n{}"])
def test_bytes_behind_an_answer_forbid_another_one_on_the_connection(case: str, extra: bytes) -> None:
    data, _, body, _ = GOOD[case]
    found = read(data + extra)
    assert found.body == body
    assert not found.may_another_follow


def test_answer_to_head_has_no_body_whatever_its_length_says() -> None:
    found = read(OK + b"Content-Length: 5\r\n\r\n", method="HEAD")
    assert (found.body, found.may_another_follow) == (b"", True)


def test_header_names_are_lower_case_and_repeated_ones_are_joined() -> None:
    found = read(OK + b"X-A:1\r\nx-a: \t2 \r\nSet-Cookie: a\r\nX-L: \xe9\r\nContent-Length: 0\r\nX-Empty:\r\n\r\n")
    assert found.headers == {"x-a": "1, 2", "set-cookie": "a", "x-l": "é", "content-length": "0", "x-empty": ""}


def test_trailers_are_no_headers() -> None:
    assert read(GOOD["trailers"][0]).headers == {"transfer-encoding": "chunked"}


BAD = {
    "nothing": b"",
    "another_protocol": b"SMTP ready\r\n\r\n",
    "http_2": b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "http_0_9": b"{}",
    "no_status": b"HTTP/1.1 OK\r\nContent-Length: 0\r\n\r\n",
    "status_of_four_digits": b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
    "status_in_other_digits": "HTTP/1.1 ²00 OK\r\nContent-Length: 0\r\n\r\n".encode("latin-1"),
    "bare_line_feeds": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "line_feed_in_a_header": OK + b"X: a\nContent-Length: 0\r\n\r\n",
    "carriage_return_in_a_header": OK + b"X: a\rb\r\nContent-Length: 0\r\n\r\n",
    "zero_in_a_header": OK + b"X: a\x00\r\nContent-Length: 0\r\n\r\n",
    "header_without_colon": OK + b"garbage\r\nContent-Length: 0\r\n\r\n",
    "header_without_name": OK + b": x\r\nContent-Length: 0\r\n\r\n",
    "space_before_the_colon": OK + b"Content-Length : 0\r\n\r\n",
    "folded_header": OK + b"X: a\r\n b\r\nContent-Length: 0\r\n\r\n",
    "first_header_is_folded": OK + b" X: a\r\nContent-Length: 0\r\n\r\n",
    "length_told_twice": OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "negative_length": OK + b"Content-Length: -1\r\n\r\n",
    "length_with_a_sign": OK + b"Content-Length: +2\r\n\r\n{}",
    "length_with_an_underscore": OK + b"Content-Length: 0_2\r\n\r\n{}",
    "empty_length": OK + b"Content-Length:\r\n\r\n",
    "length_in_other_digits": OK + b"Content-Length: \xb2\r\n\r\n{}",
    "endless_length": OK + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n",
    "length_and_chunks": OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "packed_chunks": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked_twice": OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks_in_http_1_0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "unknown_coding_where_no_body_is": b"HTTP/1.1 204 Told\r\nTransfer-Encoding: hunked\r\n\r\n",
    "chunk_size_with_a_sign": CHUNKED + b"+2\r\n{}\r\n0\r\n\r\n",
    "chunk_size_with_a_prefix": CHUNKED + b"0x2\r\n{}\r\n0\r\n\r\n",
    "chunk_without_size": CHUNKED + b"\r\n{}\r\n0\r\n\r\n",
    "chunk_longer_than_said": CHUNKED + b"1\r\n{}\r\n0\r\n\r\n",
    "chunk_without_its_line_break": CHUNKED + b"2\r\n{}xx0\r\n\r\n",
    "chunk_line_with_a_line_feed": CHUNKED + b"2;a\nb\r\n{}\r\n0\r\n\r\n",
    "malformed_trailers": CHUNKED + b"0\r\nnot a header\r\n\r\n",
    "change_of_protocol": b"HTTP/1.1 101 Switching\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
    "interim_answers_without_end": b"HTTP/1.1 100 Continue\r\n\r\n" * 50 + OK + b"Content-Length: 0\r\n\r\n",
    "interim_answer_only": b"HTTP/1.1 100 Continue\r\n\r\n",
}


@pytest.mark.parametrize("size", [1, 1 << 20])
@pytest.mark.parametrize("data", BAD.values(), ids=BAD.keys())
def test_what_is_not_plainly_one_answer_is_an_error(data: bytes, size: int) -> None:
    with pytest.raises(AnswerError):
        read(data, size=size)


def endless(start: bytes, repeated: bytes, most: int) -> Iterator[bytes]:
    """Yield `start`, then `repeated` without end; fail the test if more than `most` bytes are taken."""
    yield start
    taken = 0
    while taken <= most:
        taken += len(repeated)
        yield repeated
    pytest.fail(f"more than {most} bytes were read")


FLOODS = {
    "status_line": (b"HTTP/1.1 200 ", b"x" * 4096, 2 * MAX_HEAD_BYTES),
    "one_header": (OK + b"X: ", b"x" * 4096, 2 * MAX_HEAD_BYTES),
    "many_headers": (OK, b"X: y\r\n" * 1000, 2 * MAX_HEAD_BYTES),
    "interim_answers": (b"HTTP/1.1 103 Hints\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", 10 * MAX_HEAD_BYTES),
    "chunk_line": (CHUNKED + b"2;", b"x" * 4096, 2 * MAX_HEAD_BYTES),
    "trailers": (CHUNKED + b"0\r\n", b"X: y\r\n" * 1000, 2 * MAX_HEAD_BYTES),
    "body": (OK + b"\r\n", b"x" * 65536, 2**20 + 2 * 65536),
    "chunks": (CHUNKED, b"10000\r\n" + b"x" * 65536 + b"\r\n", 2**20 + 3 * 65536),
}


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS.keys())
def test_flood_ends_at_a_limit(flood: tuple[bytes, bytes, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_answer, "MAX_BODY_BYTES", 2**20)
    pieces = endless(*flood)
    with pytest.raises(AnswerError, match=r"bytes|without end"):
        read_answer(lambda: next(pieces), method="GET")


def test_head_over_the_limit_is_refused_also_if_it_comes_at_once() -> None:
    read(OK + b"X: " + b"x" * (MAX_HEAD_BYTES - 100) + b"\r\nContent-Length: 0\r\n\r\n")
    with pytest.raises(AnswerError, match="headers"):
        read(OK + b"X: " + b"x" * MAX_HEAD_BYTES + b"\r\nContent-Length: 0\r\n\r\n")


@pytest.mark.parametrize("head", [b"Content-Length: %d\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n%x\r\n"])
def test_body_over_the_limit_is_refused_before_it_is_read(head: bytes) -> None:
    pieces = iter([OK + head % (MAX_BODY_BYTES + 1)])
    with pytest.raises(AnswerError, match="larger"):
        read_answer(lambda: next(pieces), method="GET")


def second_opinion(data: bytes, method: str) -> tuple[int, dict[str, str], bytes, bool]:
    """Return what h11 makes of `data`: status, headers, body, and whether another answer may follow."""
    client = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    client.send(h11.Request(method=method, target="/", headers=[("Host", "x")]))
    client.send(h11.EndOfMessage())
    client.receive_data(data)
    status, headers, body, has_ended = 0, {}, b"", False
    while not isinstance(event := client.next_event(), h11.EndOfMessage):
        if event is h11.NEED_DATA:
            client.receive_data(b"")
            has_ended = True
        elif isinstance(event, h11.Response):
            status = event.status_code
            for name, value in event.headers:
                key, text = name.decode(), value.decode("latin-1")
                headers[key] = f"{headers[key]}, {text}" if key in headers else text
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif not isinstance(event, h11.InformationalResponse):
            raise h11.RemoteProtocolError(f"{event}")
    may_another_follow = client.their_state is h11.DONE and client.trailing_data[0] == b"" and not has_ended
    return status, headers, body, may_another_follow


names = st.sampled_from(["X-A", "x-b", "X-MBX-USED-WEIGHT-1M", "Server", "Retry-After"])
values = st.text(st.characters(min_codepoint=0x21, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=8).filter(
    lambda value: not any(0x7F <= ord(letter) <= 0xA0 for letter in value)
)


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """One well-formed answer, framed in each of the ways there are."""
    status = draw(st.sampled_from([200, 204, 304, 307, 400, 418, 429, 503]))
    spaces = st.sampled_from(["", " ", " \t"])
    lines = [
        f"{name}:{space}{value}" for name, space, value in draw(st.lists(st.tuples(names, spaces, values), max_size=4))
    ]
    if draw(st.booleans()):
        lines.append("Connection: " + draw(st.sampled_from(["close", "keep-alive"])))
    body = draw(st.binary(max_size=40))
    framing = draw(st.sampled_from(["length", "chunks", "end"]))
    sent = b""
    if framing == "length":
        lines.append(f"Content-Length: {len(body)}")
        sent = body
    elif framing == "chunks":
        lines.append("Transfer-Encoding: chunked")
        cut = draw(st.integers(0, len(body)))
        for part in filter(None, (body[:cut], body[cut:])):
            sent += b"%x\r\n%b\r\n" % (len(part), part)
        sent += b"0\r\n\r\n"
    else:
        sent = body
    head = "\r\n".join([f"HTTP/1.1 {status} Told", *draw(st.permutations(lines)), "", ""])
    interim = b"HTTP/1.1 103 Hints\r\nLink: x\r\n\r\n" if draw(st.integers(0, 5)) == 0 else b""
    return interim + head.encode("latin-1") + (b"" if status in {204, 304} else sent)


@given(data=answers(), size=st.integers(1, 50), extra=st.sampled_from([b"", b"", b"HTTP/1.1 200 OK\r\n\r\n"]))
def test_well_formed_answer_is_read_as_h11_reads_it(data: bytes, size: int, extra: bytes) -> None:
    found = read(data + extra, size=1 << 20 if extra else size)
    assert (found.status, found.headers, found.body, found.may_another_follow) == second_opinion(data + extra, "POST")


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """An answer with a few bytes replaced, left out or put in, and perhaps cut short."""
    data = bytearray(draw(answers()))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        new = draw(st.sampled_from([b"", b"\r", b"\n", b"\r\n", b" ", b":", b"0", b"9", b",", b"\x00", b"\xff", b"-"]))
        data[at : at + draw(st.integers(0, 2))] = new
    return bytes(data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data)


@given(data=damaged(), size=st.integers(1, 50))
def test_damaged_answer_is_an_error_unless_h11_reads_the_same(data: bytes, size: int) -> None:
    try:
        found = read(data, size=size)
    except AnswerError:
        return
    status, headers, body, may_another_follow = second_opinion(data, "POST")
    assert (found.status, found.headers, found.body) == (status, headers, body)
    # Cut into pieces, what comes behind the end need not have been seen.
    assert may_another_follow or size < len(data) or not found.may_another_follow
