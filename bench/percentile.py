"""Percentiles by nearest rank: a value that was measured, never one between two."""

import math
from collections.abc import Sequence


def percentile(values: Sequence[float], percent: int) -> float:
    """Return the smallest value that at least `percent` of `values` do not exceed; NaN of nothing."""
    if not values:
        return math.nan
    return sorted(values)[max(math.ceil(len(values) * percent / 100), 1) - 1]
