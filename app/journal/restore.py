"""A journal that was lost or rolled back starts a new epoch: every fence written before is below every new one."""

from sqlalchemy import Connection, select, update

from app.journal import schema


def has_no_history(connection: Connection, *, venue: str) -> bool:
    """Return whether this journal has never dispatched anything to `venue`."""
    attempts, intents = schema.attempts, schema.intents
    query = select(attempts.c.key).join(intents, intents.c.key == attempts.c.key).where(intents.c.venue == venue)
    return connection.execute(query.limit(1)).first() is None


def new_epoch(connection: Connection, *, now_ms: int) -> None:
    """Begin a new epoch, as of now. Running processes of the old one send nothing more (`same_epoch`)."""
    table = schema.journal_meta
    connection.execute(update(table).values(epoch=table.c.epoch + 1, restored_at_ms=now_ms))
