"""Counts that must be right, and indexes by which retries are found without reading what is finished."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_RETRIED = sa.text("attempt > 1")
_RETRIED_AND_FINISHED = sa.text("attempt > 1 AND finished_at_ms IS NOT NULL")


def upgrade() -> None:
    """Create them."""
    op.create_table(
        "tallies",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("shard", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", "label", "shard"),
    )
    op.create_index("attempts_by_time", "attempts", ["dispatched_at_ms", "key", "attempt"], unique=False)
    op.create_index(
        "attempts_retried", "attempts", ["dispatched_at_ms"], unique=False, sqlite_where=_RETRIED,
        postgresql_where=_RETRIED,
    )  # fmt: skip
    op.create_index(
        "intents_retried", "intents", ["finished_at_ms"], unique=False, sqlite_where=_RETRIED_AND_FINISHED,
        postgresql_where=_RETRIED_AND_FINISHED,
    )  # fmt: skip
