"""Where the bulk of intents goes that are long over; their rows stay, so that their keys are refused for ever."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Create it."""
    op.create_table(
        "archive",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("archived_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("file", sa.Text(), nullable=True),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["key"], ["intents.key"]),
        sa.PrimaryKeyConstraint("key"),
    )
