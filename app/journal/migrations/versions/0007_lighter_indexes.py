"""Two indexes that every order wrote, and that serve what is rare: one holds no more than that, one is gone."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

_UNKNOWN = sa.text("unknown_at_ms IS NOT NULL")


def upgrade() -> None:
    """Make the one anew. Open attempts are found by the states of their intents."""
    op.drop_index("attempts_open", "attempts")
    op.drop_index("attempts_unknown", "attempts")
    op.create_index(
        "attempts_unknown",
        "attempts",
        ["unknown_at_ms"],
        unique=False,
        sqlite_where=_UNKNOWN,
        postgresql_where=_UNKNOWN,
    )
