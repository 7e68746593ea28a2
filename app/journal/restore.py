"""A journal that was lost or rolled back starts a new epoch: every fence written before is below every new one."""

from sqlalchemy import Connection, select, update

from app.journal import schema


def has_no_history(connection: Connection) -> bool:
    """Return whether this journal has never dispatched anything."""
    return connection.execute(select(schema.attempts.c.key).limit(1)).first() is None


def new_epoch(connection: Connection, *, now_ms: int) -> None:
    """Begin a new epoch, as of now. Running processes of the old one send nothing more (`same_epoch`)."""
    table = schema.journal_meta
    connection.execute(update(table).values(epoch=table.c.epoch + 1, restored_at_ms=now_ms))
