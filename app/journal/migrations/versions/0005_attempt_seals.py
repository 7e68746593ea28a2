"""Which row of the audit trail seals which attempt. Attempts that had settled before are sealed like new ones."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_UNSEALED = sa.text("seal IS NULL AND outcome IS NOT NULL")


def upgrade() -> None:
    """Create the records, and the index by which the sealer finds what is not sealed yet."""
    op.create_table(
        "attempt_seals",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("seal", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key", "attempt", "seal"),
    )
    op.create_index("attempt_seals_in_order", "attempt_seals", ["seal", "position"], unique=True)
    op.add_column("attempts", sa.Column("seal", sa.BigInteger(), nullable=True))
    op.create_index(
        "attempts_unsealed", "attempts", ["settled_at_ms"], unique=False, sqlite_where=_UNSEALED,
        postgresql_where=_UNSEALED,
    )  # fmt: skip
