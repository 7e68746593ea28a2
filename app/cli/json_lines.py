"""Reads JSON lines that may hold anything, in bounded memory: a wrong line is told of and passed over."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from app.intents import Intent, IntentError, parse_intent
from app.job_safety.keys import is_key

MAX_LINE_BYTES: Final = 64 * 1024
"""An intent has some hundred bytes. A longer line is read past, never kept."""

MAX_NUMBER_CHARS: Final = 40
CHUNK_BYTES: Final = 256 * 1024
EXAMPLE: Final = '{"type": "order", "key": "a-1", "symbol": "BTCUSDT", "side": "BUY", "quantity": "0.010"}'

_BOM: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line that is not empty. `raw` is None for a line that was too long."""

    number: int
    raw: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    """What stands on a line: an intent, or what is wrong; `key` where one can be read."""

    number: int
    key: str | None
    intent: Intent | None
    error: str | None


def batches(read: Callable[[int], bytes], *, max_lines: int) -> Iterator[list[Line]]:
    """Yield the lines of a stream in batches of at most `max_lines`; empty lines are passed over.

    What one `read` has brought is yielded before the next one, so that a line that comes through a pipe does not wait
    for its successors.

    Args:
        read: Returns at most so many bytes, and none at the end.
        max_lines: Bounds a batch.
    """
    rest, number, is_overlong = b"", 0, False
    while chunk := read(CHUNK_BYTES):
        *pieces, rest = (rest + chunk).split(b"\n")
        lines = []
        for piece in pieces:
            number += 1
            if (line := _line(number, piece, is_overlong=is_overlong)) is not None:
                lines.append(line)
            is_overlong = False
        if is_overlong or len(rest) > MAX_LINE_BYTES:
            rest, is_overlong = b"", True
        for start in range(0, len(lines), max_lines):
            yield lines[start : start + max_lines]
    if (line := _line(number + 1, rest, is_overlong=is_overlong)) is not None:
        yield [line]


def parse(line: Line) -> Parsed:
    """Return the intent of a line, or what is wrong with it."""
    key = None
    try:
        data = _decode(line)
        found = data.get("key") if isinstance(data, dict) else None
        key = found if isinstance(found, str) and is_key(found) else None
        intent = parse_intent(data)
    except IntentError as error:
        return Parsed(number=line.number, key=key, intent=None, error=str(error))
    return Parsed(number=line.number, key=key, intent=intent, error=None)


def _line(number: int, piece: bytes, *, is_overlong: bool) -> Line | None:
    if is_overlong or len(piece) > MAX_LINE_BYTES:
        return Line(number=number, raw=None)
    if number == 1:
        piece = piece.removeprefix(_BOM)
    return Line(number=number, raw=piece) if piece.strip() else None


def _decode(line: Line) -> object:
    if line.raw is None:
        raise IntentError("line", f"is longer than {MAX_LINE_BYTES // 1024} KiB", "write one intent per line")
    try:
        text = line.raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise IntentError("line", f"is not UTF-8 at byte {error.start + 1}", "save the file as UTF-8") from error
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_int=_whole_number)
    except json.JSONDecodeError as error:
        problem = f"is not JSON at column {error.colno} ({error.msg[:1].lower()}{error.msg[1:]})"
        raise IntentError("line", problem, f"write one object per line: {EXAMPLE}") from error
    except RecursionError as error:
        raise IntentError("line", "is nested too deeply", f"write one object per line: {EXAMPLE}") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise IntentError(name[:MAX_NUMBER_CHARS], "is given twice", "leave one of them out")
        found[name] = value
    return found


def _no_constant(name: str) -> object:
    raise IntentError("line", f"holds {name}, which is not JSON", 'write a plain decimal in a string, such as "0.010"')


def _whole_number(text: str) -> int:
    if len(text) > MAX_NUMBER_CHARS:
        raise IntentError("line", f"holds a number of more than {MAX_NUMBER_CHARS} digits", "correct it")
    return int(text)
