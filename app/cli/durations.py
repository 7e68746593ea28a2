"""Durations as people write them: 30s, 5m, 2h, 1d, or bare seconds."""

from typing import Final

import typer

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_MAX_DIGITS: Final = 9


def seconds(text: str) -> int:
    """Return whole seconds.

    Raises:
        typer.BadParameter: not a duration.
    """
    unit = _UNITS.get(text[-1:])
    digits = text if unit is None else text[:-1]
    if not (digits.isascii() and digits.isdigit() and len(digits) <= _MAX_DIGITS):
        raise typer.BadParameter(f"{text[:40]!r} is not a duration: write 30s, 5m, 2h, 1d or whole seconds")
    return int(digits) * (unit or 1)
