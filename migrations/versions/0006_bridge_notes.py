"""bridge_notes: what a bridge has learned of a charger, over its own restart

Revision: 0006
Follows: 0005
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "bridge_notes",
        sa.Column("charger_id", sa.String(collation="C"), nullable=False),
        sa.Column("notes", postgresql.JSONB(), nullable=False),
        sa.Column("noted_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["charger_id"], ["chargers.id"], name=op.f("bridge_notes_charger_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("charger_id", name=op.f("bridge_notes_pkey")),
    )


def downgrade() -> None:
    op.drop_table("bridge_notes")
