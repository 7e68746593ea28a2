"""What holds the kill switch in the journal: one latch per source. The strictest of them is `journal_meta.kill_state`.

A source that falls silent (a flushed key, a removed file) releases nothing: a latch goes only when somebody says so.
Every change is one transaction with its audit row and its alert, and begins a new kill epoch.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Connection, delete, select, update

from app.job_safety.kill_switch import KillSource, KillState
from app.journal import alerts, audit, meta, schema
from app.journal.alerts import Alert, Severity
from app.journal.prepared import Prepared
from app.journal.sql import upsert

SUBJECT: Final = "kill_switch"
_L = schema.kill_latches
_NAMES = tuple(column.name for column in _L.c)
_HELD = Prepared(select(_L))


@dataclass(frozen=True, slots=True, kw_only=True)
class Latch:
    """What one source holds, since when, by whom and why."""

    source: KillSource
    state: KillState
    actor: str
    reason: str
    since_ms: int
    until_ms: int | None = None
    note: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A wish to change one source's latch. `state` RUN releases it."""

    source: KillSource
    state: KillState
    actor: str
    reason: str
    config_hash: str = ""
    until_ms: int | None = None
    note: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """What a change did to the switch as a whole. `epoch` is the one that began with it."""

    before: KillState
    after: KillState
    epoch: int
    audit_head: str


def held(connection: Connection) -> list[Latch]:
    """Return every latch, the strictest first."""
    found = [_latch(dict(zip(_NAMES, values, strict=True))) for values in _HELD.rows(connection)]
    return sorted(found, key=lambda latch: (-latch.state.rank, latch.source))


def of(connection: Connection, source: KillSource) -> Latch | None:
    """Return the latch of one source, or None."""
    return next((latch for latch in held(connection) if latch.source is source), None)


def change(connection: Connection, wanted: Change, *, now_ms: int) -> Changed | None:
    """Set or release the latch of one source; return what that did, or None if it stands so already.

    When this has returned, no transaction that read the switch before is still open, and every later one reads this.
    """
    lock(connection)
    latches = {latch.source: latch for latch in held(connection)}
    present = latches.get(wanted.source)
    present_state = present.state if present else KillState.RUN
    if present_state is wanted.state:
        return None
    before = KillState(meta.load(connection).kill_state)
    if wanted.state is KillState.RUN:
        connection.execute(delete(_L).where(_L.c.source == wanted.source.value))
        latches.pop(wanted.source)
    else:
        latches[wanted.source] = _put(connection, wanted, now_ms)
    ruling = max(latches.values(), key=lambda latch: latch.state.rank, default=None)
    after = ruling.state if ruling else KillState.RUN
    table = schema.journal_meta
    connection.execute(
        update(table).values(
            kill_state=after.value, kill_reason=ruling.reason if ruling else "", kill_epoch=table.c.kill_epoch + 1
        )
    )
    epoch = meta.load(connection).kill_epoch
    detail = {
        "source": wanted.source.value,
        "from": present_state.value,
        "to": wanted.state.value,
        "switch_from": before.value,
        "switch_to": after.value,
        "why": wanted.reason,
        "epoch": epoch,
        "config_hash": wanted.config_hash,
    }
    row = audit.append(
        connection, now_ms=now_ms, actor=wanted.actor, action="kill_switch", subject=SUBJECT, detail=detail
    )
    if wanted.source is not KillSource.DRILL:
        alerts.raise_alert(connection, _alert(wanted, detail, row, epoch), now_ms=now_ms)
    return Changed(before=before, after=after, epoch=epoch, audit_head=row.head)


def lock(connection: Connection) -> None:
    """Wait for every dispatch that has read the switch, and keep the next ones waiting until the transaction ends."""
    connection.execute(update(schema.journal_meta).values(kill_epoch=schema.journal_meta.c.kill_epoch))


def note(connection: Connection, latch: Latch) -> None:
    """Write down a latch that restricts nothing (any more): a drill notes what it will have to restore."""
    _write(connection, latch)


def forget(connection: Connection, source: KillSource) -> None:
    """Take away a note that restricts nothing (any more)."""
    connection.execute(delete(_L).where(_L.c.source == source.value, _L.c.state == KillState.RUN.value))


def _put(connection: Connection, wanted: Change, now_ms: int) -> Latch:
    latch = Latch(
        source=wanted.source, state=wanted.state, actor=wanted.actor, reason=wanted.reason, since_ms=now_ms,
        until_ms=wanted.until_ms, note=wanted.note,
    )  # fmt: skip
    _write(connection, latch)
    return latch


def _write(connection: Connection, latch: Latch) -> None:
    row = {
        "source": latch.source.value,
        "state": latch.state.value,
        "actor": latch.actor,
        "reason": latch.reason,
        "since_ms": latch.since_ms,
        "until_ms": latch.until_ms,
        "note": json.dumps(dict(latch.note), sort_keys=True),
    }
    upsert(connection, _L, row)


def _alert(wanted: Change, detail: Mapping[str, object], row: audit.AuditRow, epoch: int) -> Alert:
    stops = wanted.state is not KillState.RUN
    words = f"held at {wanted.state.value}" if stops else "released"
    return Alert(
        name="kill_switch_changed",
        severity=Severity.CRITICAL if stops else Severity.WARNING,
        summary=f"kill switch {words} by {wanted.actor}: {wanted.reason}; it is {detail['switch_to']} now",
        labels={"source": wanted.source.value, "to": wanted.state.value},
        values={**detail, "by": wanted.actor, "audit": row.head},
        occurrence=f"epoch-{epoch}",
    )


def _latch(row: Mapping[str, Any]) -> Latch:
    return Latch(
        source=KillSource(row["source"]), state=KillState(row["state"]), actor=row["actor"], reason=row["reason"],
        since_ms=row["since_ms"], until_ms=row["until_ms"], note=json.loads(row["note"]),
    )  # fmt: skip
