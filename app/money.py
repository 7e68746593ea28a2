"""Exact decimals: from string to string, never through a float.

`str(Decimal)` may yield `1E-8` and `normalize()` may yield `1E+2`; the exchange accepts neither.
`wire` is the one way out.
"""

import re
from collections.abc import Iterable
from decimal import ROUND_DOWN, ROUND_HALF_EVEN, Context, Decimal, Inexact, InvalidOperation

MAX_DIGITS = 40
"""Significant digits of any number that we accept: more than any venue's price times any venue's quantity."""

EXACT = Context(prec=100, rounding=ROUND_HALF_EVEN, traps=[Inexact, InvalidOperation])
"""Arithmetic that raises instead of rounding: sums and products of amounts must be exact."""

ZERO = Decimal(0)

_PLAIN = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")


def parse(text: str) -> Decimal:
    """Return the exact value of a plain decimal such as `0.010`.

    Raises:
        ValueError: not a finite plain decimal, or more than `MAX_DIGITS` digits.
    """
    if not isinstance(text, str):
        raise ValueError(f"expected a decimal in a string, got {type(text).__name__}")  # noqa: TRY004 - one error kind
    if not _PLAIN.fullmatch(text):
        raise ValueError(f"{text[:50]!r} is not a plain decimal such as '0.010'")
    if len(text) > MAX_DIGITS and len(text) - text.count("-") - text.count(".") > MAX_DIGITS:
        raise ValueError(f"more than {MAX_DIGITS} digits")
    return Decimal(text)


def wire(value: Decimal) -> str:
    """Return `value` in plain notation, without an exponent, keeping its digits.

    Raises:
        ValueError: `value` is NaN or infinite.
    """
    if not value.is_finite():
        raise ValueError("NaN and infinity have no wire format")
    return format(value, "f")


def plain(value: Decimal) -> str:
    """Return `value` in plain notation without trailing zeros; zero is `0`."""
    text = wire(value)
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in {"-0", ""} else text


def round_down(value: Decimal, step: Decimal) -> Decimal:
    """Return the largest multiple of `step` that is not further from zero than `value`.

    Raises:
        ValueError: `step` is not positive.
    """
    if step <= 0:
        raise ValueError("step must be positive")
    count = (value / step).to_integral_value(rounding=ROUND_DOWN)
    if abs(EXACT.multiply(count, step)) > abs(value):
        count -= 1 if value > 0 else -1
    return EXACT.multiply(count, step)


def is_multiple(value: Decimal, step: Decimal) -> bool:
    """Return whether `value` is a whole number of `step`s."""
    return step > 0 and EXACT.remainder(value, step) == 0


def total(values: Iterable[Decimal]) -> Decimal:
    """Return the exact sum of `values`."""
    result = ZERO
    for value in values:
        result = EXACT.add(result, value)
    return result
