"""One latch of the kill switch per source, and where the audit trail ends."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0001"


def upgrade() -> None:
    """Create both tables; what the journal holds by now goes on to hold."""
    op.create_table(
        "kill_latches",
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("since_ms", sa.BigInteger(), nullable=False),
        sa.Column("until_ms", sa.BigInteger(), nullable=True),
        sa.Column("note", sa.Text(), server_default="{}", nullable=False),
        sa.PrimaryKeyConstraint("source"),
    )
    op.create_table(
        "audit_anchor",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.CheckConstraint("id = 1"),
        sa.PrimaryKeyConstraint("id"),
    )
    # Before this revision the reason was all that told the sources apart.
    op.execute(
        "INSERT INTO kill_latches (source, state, actor, reason, since_ms) "
        "SELECT CASE WHEN kill_reason = 'by Redis key' THEN 'redis_key' "
        "WHEN kill_reason LIKE 'this journal is new%' THEN 'system' ELSE 'operator' END, "
        "kill_state, 'unknown', kill_reason, created_at_ms FROM journal_meta WHERE kill_state <> 'RUN'"
    )
    op.execute("INSERT INTO audit_anchor (id, seq, hash) SELECT 1, seq, hash FROM audit ORDER BY seq DESC LIMIT 1")
