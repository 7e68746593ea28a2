"""The history of circuits: every change is a row of the audit trail and an alert, once. So is a gap between changes."""

import json
from collections.abc import Sequence

from sqlalchemy import Connection, select

from app.job_safety.circuit_breaker import BreakerState
from app.job_safety.circuit_changes import CircuitChange
from app.journal import alerts, audit, schema
from app.journal.alerts import Alert, Severity
from app.journal.audit import AuditRow
from app.journal.sql import insert_ignore

SUBJECT = "circuit:"
LOST = "circuit_changes_lost"


def append(connection: Connection, change: CircuitChange, *, now_ms: int) -> bool:
    """Write `change` into the audit trail and its alert into the outbox, once; return whether it is new.

    The mark that it was taken commits with the row: a drainer that is killed in between, or two at once, double none.
    If changes before it never came here, a row says how many.
    """
    if insert_ignore(connection, schema.inbox, [{"key": change.key, "received_at_ms": now_ms}]) == 0:
        return False
    _tell_of_gap(connection, change)
    audit.append(
        connection,
        now_ms=change.at_ms,
        actor=change.by,
        action=change.action,
        subject=f"{SUBJECT}{change.job_type}",
        detail={
            "from": change.from_state,
            "to": change.to_state,
            "why": change.why,
            "generation": change.generation,
            "until_ms": change.until_ms or None,
            "config_hash": change.config_hash,
            "number": change.number,
        },
    )
    alerts.raise_alert(connection, _alert(change), now_ms=now_ms)
    return True


def _tell_of_gap(connection: Connection, change: CircuitChange) -> None:
    before = [json.loads(row.detail) for row in history(connection, [change.job_type], limit=1)]
    number, state = (before[0].get("number", 0), before[0]["to"]) if before else (0, BreakerState.CLOSED.value)
    # Not above the last one: Redis has lost the circuit, or its last second, and numbers on from what it has.
    missing = change.number - 1 - number
    if missing > 0:
        audit.append(
            connection,
            now_ms=change.at_ms,
            actor="journal",
            action=LOST,
            subject=f"{SUBJECT}{change.job_type}",
            detail={
                "from": state,
                "to": change.from_state,
                "why": f"{missing} changes never came here: nobody took them in time, or Redis lost them",
                "missing": missing,
                "generation": change.generation,
                "until_ms": None,
                "config_hash": change.config_hash,
                "number": change.number - 1,
            },
        )


def _alert(change: CircuitChange) -> Alert:
    is_open = change.to_state == "open"
    return Alert(
        name="circuit_changed",
        severity=Severity.CRITICAL if is_open else Severity.WARNING,
        summary=f"circuit {change.job_type}: {change.from_state} to {change.to_state} by {change.by}: {change.why}",
        labels={"job_type": change.job_type, "to_state": change.to_state},
        values={"action": change.action, "from": change.from_state, "by": change.by, "why": change.why},
        occurrence=change.key,
    )


def history(connection: Connection, job_types: Sequence[str], *, limit: int) -> list[AuditRow]:
    """Return the newest changes of these circuits, oldest first."""
    table = schema.audit
    subjects = [f"{SUBJECT}{job_type}" for job_type in job_types]
    query = select(table).where(table.c.subject.in_(subjects)).order_by(table.c.seq.desc()).limit(limit)
    found = [AuditRow(**dict(row)) for row in connection.execute(query).mappings()]
    return found[::-1]
