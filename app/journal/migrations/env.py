"""Runs migrations on the connection that `migrate.upgrade` holds, inside its transaction."""

from alembic import context

from app.journal.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
