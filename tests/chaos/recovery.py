"""How long it takes until an intent goes on whose process was killed: from death until a reconcile or dispatch begins.

Death is when the signal was sent, or when the fault point's marker was made. What goes on is read from the journal's
attempts and from the log lines of the processes; nothing is measured inside the product.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from app.journal.rows import AttemptRow

OWNER = re.compile(r"-([a-z]+-\d+)-[0-9a-f]{12}(-\w+)?$")
"""The role in the name of a process start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One log line. Milliseconds since the epoch."""

    at_ms: float
    name: str
    fields: Mapping[str, Any]


@dataclass(slots=True)
class Deaths:
    """When which process died, as far as we did it."""

    by_pid: dict[int, float] = field(default_factory=dict)
    markers: list[float] = field(default_factory=list)

    def of(self, pid: int, noticed_ms: float) -> float | None:
        """Return when `pid` died, given when its supervisor noticed."""
        if pid in self.by_pid:
            return self.by_pid[pid]
        before = [at_ms for at_ms in self.markers if noticed_ms - 1_000 <= at_ms <= noticed_ms]
        return max(before, default=None)


def events(logs: Iterable[Path]) -> list[Event]:
    """Return all log lines, oldest first."""
    return sorted((event for log in logs for event in _events(log)), key=lambda event: event.at_ms)


def _events(log: Path) -> Iterator[Event]:
    if not log.exists():
        return  # its process is only just starting
    for line in log.read_text(errors="replace").splitlines():
        try:
            told = json.loads(line)
            at_ms = datetime.fromisoformat(told["timestamp"]).timestamp() * 1000
        except (ValueError, KeyError, TypeError):
            continue
        yield Event(at_ms=at_ms, name=told.get("event", ""), fields=told)


def recovery_ms(told: Sequence[Event], deaths: Deaths, attempts: Mapping[str, Sequence[AttemptRow]]) -> list[float]:
    """Return for every intent that a killed worker was dispatching how long it took until it went on."""
    found: list[float] = []
    ended: dict[str, Event] = {}
    for one in told:
        if one.name == "child_ended" and one.fields.get("code") == -9:
            ended[one.fields["role"]] = one
        dead = str(one.fields.get("dead", ""))
        match = OWNER.search(dead)
        if one.name != "rescued" or match is None or match[1] not in ended:
            continue
        end = ended[match[1]]
        died_ms = deaths.of(end.fields["pid"], end.at_ms)
        tries = attempts.get(str(one.fields["key"]))
        if died_ms is None or tries is None:
            continue
        went_on_ms = _went_on_ms(str(one.fields["key"]), dead, died_ms, tries, told)
        if went_on_ms is not None:
            found.append(went_on_ms - died_ms)
    return found


def _went_on_ms(
    key: str, dead: str, died_ms: float, tries: Sequence[AttemptRow], told: Sequence[Event]
) -> float | None:
    its = [one for one in tries if one.owner == dead and one.dispatched_at_ms <= died_ms + 50]
    if its and its[-1].settled_at_ms is not None and its[-1].settled_at_ms <= died_ms:
        return None  # its attempt was settled before: nothing was left to go on with
    begun = [one.dispatched_at_ms for one in tries if one.dispatched_at_ms >= died_ms and one.owner != dead]
    asked = [
        one.at_ms
        for one in told
        if one.name == "in_doubt" and one.fields.get("key") == key and one.at_ms >= died_ms
        and one.fields.get("rule") == "owner_died"
    ]  # fmt: skip
    return min([*begun, *asked], default=None)


def percentile(values: Sequence[float], percent: int) -> float | None:
    """Return the value below which `percent` of all lie (nearest rank); None without values."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)] if ordered else None
