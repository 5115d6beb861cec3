"""history epoch: how often the database was restored from a backup, in every event since

Revision: 0012
Follows: 0011
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "restores",
        sa.Column("epoch", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("restored_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("epoch", name="restores_pkey"),
    )
    # With a constant default no row is rewritten, and a node of the release before may go on writing.
    op.add_column("events", sa.Column("history_epoch", sa.Integer(), server_default="0", nullable=False))


def downgrade() -> None:
    op.drop_column("events", "history_epoch")
    op.drop_table("restores")
