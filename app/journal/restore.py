"""A journal that was lost or rolled back starts a new epoch: every fence written before is below every new one."""

from typing import Final

from sqlalchemy import Connection, select, update

from app.journal import schema

_EPOCHS_COUNT_FROM_MS: Final = 1_767_225_600_000
"""2026-01-01: the epoch is half of a fence, and its seconds fit into 31 bits for 68 years."""


def has_no_history(connection: Connection, *, venue: str) -> bool:
    """Return whether this journal has never dispatched anything to `venue`."""
    table = schema.intents
    # The row says how often it was dispatched, also when its attempts are archived.
    dispatched = select(table.c.key).where(table.c.venue == venue, table.c.attempt > 0)
    # The order is that of an index: without it SQLite reads all of a table that holds but one venue.
    return connection.execute(dispatched.order_by(table.c.symbol).limit(1)).first() is None


def new_epoch(connection: Connection, *, now_ms: int) -> None:
    """Begin a new epoch, as of now. Running processes of the old one send nothing more (`same_epoch`)."""
    table = schema.journal_meta
    connection.execute(update(table).values(epoch=table.c.epoch + 1, restored_at_ms=now_ms))


def new_epoch_of_backup(connection: Connection, *, now_ms: int) -> None:
    """As `new_epoch`, for a journal that has forgotten epochs: one backup may be restored twice.

    So the number is taken from the time, in seconds: what began in the meantime, and is not remembered, is below it.
    """
    table = schema.journal_meta
    epoch, restored_at_ms = connection.execute(select(table.c.epoch, table.c.restored_at_ms)).one()
    new_epoch(connection, now_ms=max(now_ms, restored_at_ms or 0))
    connection.execute(update(table).values(epoch=max(epoch + 1, (now_ms - _EPOCHS_COUNT_FROM_MS) // 1000)))
