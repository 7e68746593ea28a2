"""The label guard: no label may hold an id, and none may take on values without end.

An id as a label makes one time series per order: the monitoring dies of it on the day it is needed. The names are
checked when a metric is declared, the values when one is recorded; a value that is refused is counted as `other`.
"""

import re
from collections import defaultdict
from typing import Final

MAX_VALUES: Final = 100
"""Different values of one label of one metric; what comes later is `other`."""

OTHER: Final = "other"
MAX_LENGTH: Final = 60

_FORBIDDEN: Final = frozenset(
    {
        "job_id", "order_id", "trade_id", "user_id", "transaction_id", "request_id", "task_id", "execution_id",
        "session_id", "client_order_id", "key", "intent", "owner", "pid", "token",
    }
)  # fmt: skip
_FORBIDDEN_ENDS: Final = ("_id", "_uuid", "_guid", "_key", "_token", "_hash")
_FORBIDDEN_PARTS: Final = ("timestamp",)
_NAME: Final = re.compile(r"[a-z][a-z0-9_]*\Z")
_METRIC: Final = re.compile(r"[a-z][a-z0-9_]*\Z")
_VALUE: Final = re.compile(r"[A-Za-z0-9_.:/+-]+\Z")
_LOOKS_LIKE_AN_ID: Final = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-|\d{7,}|(?=[0-9a-fA-F]*\d)[0-9a-fA-F]{12,}")
"""A UUID, a long number (an order id, a time in milliseconds) or a run of hexadecimal digits (a hash)."""


class LabelError(ValueError):
    """A metric is declared with a label that may hold an id."""


def check_declared(metric: str, labels: tuple[str, ...]) -> None:
    """Refuse a metric whose name or labels are not to be had.

    Raises:
        LabelError: names the label and the reason.
    """
    if not _METRIC.match(metric):
        raise LabelError(f"{metric!r}: a metric's name is of a-z, 0-9 and _")
    if len(set(labels)) != len(labels):
        raise LabelError(f"{metric}: a label stands twice")
    for label in labels:
        if not _NAME.match(label) or label in {"le", "quantile"}:
            raise LabelError(f"{metric}: {label!r} cannot be a label's name")
        if label in _FORBIDDEN or label.endswith(_FORBIDDEN_ENDS) or any(part in label for part in _FORBIDDEN_PARTS):
            raise LabelError(f"{metric}: the label {label!r} would hold an id or a time: one series for each")


def text_of(value: object) -> str:
    """Return a label's value as text; nothing is `none`."""
    return "none" if value is None else str(value)


class LabelValues:
    """Remembers which values each label of each metric has taken on, and lets no more than `MAX_VALUES` through."""

    def __init__(self) -> None:
        self._seen: defaultdict[tuple[str, str], set[str]] = defaultdict(set)

    def admit(self, metric: str, label: str, value: object) -> str:
        """Return `value` as it may stand in a series: itself, or `other`; the same whenever asked."""
        text = text_of(value)
        seen = self._seen[metric, label]
        if text in seen:
            return text
        if not _VALUE.match(text) or len(text) > MAX_LENGTH or _LOOKS_LIKE_AN_ID.search(text):
            return OTHER
        if len(seen) >= MAX_VALUES:
            return OTHER
        seen.add(text)
        return text
