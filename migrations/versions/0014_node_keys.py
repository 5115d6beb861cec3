"""node keys: the secret that nodes sign their messages to each other with

Revision: 0014
Follows: 0013
"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # The first node that starts makes the key: one in a script of `csms migrate --sql` would be known to its readers.
    op.create_table(
        "node_keys",
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("purpose", name="node_keys_pkey"),
    )


def downgrade() -> None:
    op.drop_table("node_keys")
