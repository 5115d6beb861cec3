"""deferred messages: transaction messages of a charger wait in quarantine until an operator accepts it

Revision: 0010
Follows: 0009
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "charger_states", sa.Column("deferred", sa.Boolean(), server_default=sa.text("false"), nullable=False)
    )
    op.add_column("quarantine", sa.Column("enrollment", sa.Text(), nullable=True))
    op.add_column("quarantine", sa.Column("start_key", sa.Text(), nullable=True))
    # Quarantine is small and rarely written: these need no time.
    op.create_index(
        "quarantine_deferred_idx",
        "quarantine",
        ["charger_id"],
        postgresql_where=sa.text("enrollment IS NOT NULL AND resolved_at IS NULL"),
    )
    op.create_index(
        "quarantine_start_key_idx",
        "quarantine",
        ["charger_id", "start_key"],
        postgresql_where=sa.text("start_key IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index("quarantine_start_key_idx", table_name="quarantine")
    op.drop_index("quarantine_deferred_idx", table_name="quarantine")
    op.drop_column("quarantine", "start_key")
    op.drop_column("quarantine", "enrollment")
    op.drop_column("charger_states", "deferred")
