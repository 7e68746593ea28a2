"""Data goes to stdout, words go to stderr. Never a color, never an escape sequence that came from outside."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Final

from app.clock import from_ms
from app.money import wire

_BLANKS: Final = str.maketrans("\t\r\n", "   ")


def say(words: str) -> None:
    """Print words for a person, to stderr."""
    print(words, file=sys.stderr, flush=True)  # noqa: T201 - the one place for words


def emit(lines: Iterable[str]) -> None:
    """Print lines of data to stdout, at once."""
    text = "".join(f"{line}\n" for line in lines)
    if text:
        sys.stdout.write(text)
        sys.stdout.flush()


def as_json(value: Mapping[str, object]) -> str:
    """Return one line of JSON; decimals as strings in plain notation."""
    return json.dumps(value, default=_plain)


def as_table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Return the lines of a table with aligned columns; a column of nothing but numbers stands to the right."""
    body = [[cell(value) for value in row] for row in rows]
    right = [_is_of_numbers(column) for column in zip(*rows, strict=True)]
    right += [False] * (len(headers) - len(right))
    widths = [max(len(row[at]) for row in [list(headers), *body]) for at in range(len(headers))]
    lines = []
    for row in [list(headers), *body]:
        cells = [
            text.rjust(width) if to_right else text.ljust(width)
            for text, width, to_right in zip(row, widths, right, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def cell(value: object) -> str:
    """Return a value as text on one line, without control characters."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Decimal):
        return wire(value)
    text = str(value).translate(_BLANKS)
    return "".join(char if char.isprintable() else "?" for char in text)


def iso(milliseconds: int | None) -> str | None:
    """Return an instant as ISO 8601 in UTC with milliseconds, or None."""
    if milliseconds is None:
        return None
    return from_ms(milliseconds).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _is_of_numbers(column: Iterable[object]) -> bool:
    kinds = {type(value) for value in column if value is not None}
    return bool(kinds) and kinds <= {int, Decimal}


def _plain(value: object) -> str:
    if isinstance(value, Decimal):
        return wire(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")
