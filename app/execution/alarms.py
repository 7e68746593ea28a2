"""What a person must see: told in the log at once, and by an alert in the transaction that is at hand."""

from sqlalchemy import Connection

from app.execution.context import ExecutionContext
from app.journal import alerts
from app.journal.alerts import Alert, Severity
from app.journal.rows import IntentRow


def alarm(context: ExecutionContext, connection: Connection, name: str, row: IntentRow, **fields: object) -> None:
    """Log and count the alarm `name` about an intent, and write its alert.

    Alarms of one name and symbol within a minute are one alert; each of them is in the log.
    """
    context.record.alarm(name, key=row.key, **fields)
    labels = {"venue": row.venue.value if row.venue else "", "symbol": row.symbol or ""}
    alert = Alert(
        name=name,
        severity=Severity.CRITICAL,
        summary=f"{name.replace('_', ' ')}: {row.key}",
        labels=labels,
        values={"key": row.key, **fields},
        intent_key=row.key,
    )
    alerts.raise_alert(connection, alert, now_ms=context.clock.now_ms())
