"""late readings: an index of the ended transactions whose readings show more energy than is billed

Revision: 0013
Follows: 0012
"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        "transactions_late_idx",
        "transactions",
        ["id"],
        postgresql_where=sa.text("inferred AND (register #>> '{last,energy_wh}')::bigint > energy_wh"),
    )


def downgrade() -> None:
    op.drop_index("transactions_late_idx", "transactions")
