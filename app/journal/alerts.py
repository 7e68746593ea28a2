"""Alerts for people: an outbox row in the transaction of what they tell of, so that neither is without the other.

A fingerprint is the name and the labels of an alert, never its values: what is told over and over with other numbers is
told once per window. Delivery is at-least-once and nobody's business here: it must never be in the way of an order.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Connection, select, update

from app.journal import followups, schema
from app.journal.followups import ALERT, Followup

QUEUE: Final = "alerts"
"""No queue of RQ: the keeper delivers alerts from the journal."""

DEDUPE_MS: Final = 60_000
MAX_TEXT: Final = 500


class Severity(StrEnum):
    """How soon a person must know. The values are stored and sent: never rename."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """A number that grows with the severity."""
        return list(Severity).index(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """What a person should know.

    Attributes:
        name: A stable snake_case name, such as `kill_switch_changed`.
        severity: How soon.
        summary: One line for people.
        labels: What it is about, of few possible values (venue, job type, state): with the name, the fingerprint.
        values: Numbers, keys and reasons; never part of the fingerprint.
        occurrence: Tells apart what must never be merged, such as the epoch of a change; empty: merged for `dedupe_ms`.
        intent_key: The intent that it is about, in whose dossier it is shown.
        dedupe_ms: For how long the same fingerprint is not told again.
    """

    name: str
    severity: Severity
    summary: str
    labels: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, object] = field(default_factory=dict)
    occurrence: str = ""
    intent_key: str | None = None
    dedupe_ms: int = DEDUPE_MS

    @property
    def fingerprint(self) -> str:
        """Name and labels, hashed."""
        text = json.dumps([self.name, dict(self.labels)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]


def raise_alert(connection: Connection, alert: Alert, *, now_ms: int) -> bool:
    """Write `alert` to the outbox in the caller's transaction; return whether it will be told on its own.

    One that is merged into an earlier one of the same window adds to its `times`, if that was not delivered yet.
    """
    window = alert.occurrence or str(now_ms - now_ms % alert.dedupe_ms)
    key = f"{ALERT}:{alert.fingerprint}:{window}"
    payload: dict[str, object] = {
        "id": key,
        "name": alert.name,
        "severity": alert.severity.value,
        "summary": alert.summary[:MAX_TEXT],
        "labels": dict(alert.labels),
        "values": json.loads(json.dumps(dict(alert.values), default=str)),
        "fingerprint": alert.fingerprint,
        "at_ms": now_ms,
        "times": 1,
    }
    entry = Followup(key=key, kind=ALERT, queue=QUEUE, intent_key=alert.intent_key, payload=payload, run_at_ms=now_ms)
    if followups.add(connection, entry, now_ms=now_ms):
        return True
    _count(connection, key)
    return False


def _count(connection: Connection, key: str) -> None:
    table = schema.followups
    found = connection.execute(
        select(table.c.payload).where(table.c.key == key, table.c.done_at_ms.is_(None)).with_for_update()
    ).scalar()
    if found is not None:
        payload: dict[str, Any] = json.loads(found)
        payload["times"] = payload.get("times", 1) + 1
        text = json.dumps(payload, sort_keys=True)
        connection.execute(update(table).where(table.c.key == key).values(payload=text))
