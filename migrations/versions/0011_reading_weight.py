"""reading weight: how a stored reading counted for the register of its session

Revision: 0011
Follows: 0010
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Nullable and without a default: no row is rewritten, and a node of the release before leaves it NULL.
    op.add_column("readings", sa.Column("weight", sa.SmallInteger(), nullable=True))


def downgrade() -> None:
    op.drop_column("readings", "weight")
