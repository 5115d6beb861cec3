"""open indexes: what an operator has to look at is found without a look at all that is settled

Revision: 0008
Follows: 0007
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # The outbox is written with every commit: it must not be locked for the time of a scan.
    with op.get_context().autocommit_block():
        # What an interrupted attempt has left is there, but not valid.
        _drop()
        op.create_index(
            "outbox_parked_idx",
            "outbox",
            ["recorded_at", "charger_id", "seq"],
            postgresql_where=sa.text("dead"),
            postgresql_concurrently=True,
        )
        op.create_index(
            "quarantine_open_idx",
            "quarantine",
            ["id"],
            postgresql_where=sa.text("resolved_at IS NULL"),
            postgresql_concurrently=True,
        )


def downgrade() -> None:
    with op.get_context().autocommit_block():
        _drop()


def _drop() -> None:
    op.drop_index("quarantine_open_idx", "quarantine", postgresql_concurrently=True, if_exists=True)
    op.drop_index("outbox_parked_idx", "outbox", postgresql_concurrently=True, if_exists=True)
