"""The history of circuits: every change is a row of the audit trail, once."""

from collections.abc import Sequence

from sqlalchemy import Connection, select

from app.job_safety.circuit_changes import CircuitChange
from app.journal import audit, schema
from app.journal.audit import AuditRow
from app.journal.sql import insert_ignore

SUBJECT = "circuit:"


def append(connection: Connection, change: CircuitChange, *, now_ms: int) -> bool:
    """Write `change` into the audit trail unless it is there; return whether it is new.

    The mark that it was taken commits with the row: a drainer that is killed in between, or two at once, double none.
    """
    if insert_ignore(connection, schema.inbox, [{"key": change.key, "received_at_ms": now_ms}]) == 0:
        return False
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
        },
    )
    return True


def history(connection: Connection, job_types: Sequence[str], *, limit: int) -> list[AuditRow]:
    """Return the newest changes of these circuits, oldest first."""
    table = schema.audit
    subjects = [f"{SUBJECT}{job_type}" for job_type in job_types]
    query = select(table).where(table.c.subject.in_(subjects)).order_by(table.c.seq.desc()).limit(limit)
    found = [AuditRow(**dict(row)) for row in connection.execute(query).mappings()]
    return found[::-1]
