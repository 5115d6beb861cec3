"""tariffs: versions, groups of chargers, tags with a tariff, bills

Revision: 0004
Follows: 0003
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "tariff_versions",
        sa.Column("tariff_id", sa.String(collation="C"), nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("terms", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("tariff_id", "version", name=op.f("tariff_versions_pkey")),
    )
    # What the previous release changes after this is caught up on with the next change.
    op.execute(
        "INSERT INTO tariff_versions (tariff_id, version, terms, created_at)"
        " SELECT id, version, terms, created_at FROM tariffs"
    )
    op.create_table(
        "charger_groups",
        sa.Column("id", sa.String(collation="C"), nullable=False),
        sa.Column("tariff_id", sa.String(collation="C"), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["tariff_id"], ["tariffs.id"], name=op.f("charger_groups_tariff_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("charger_groups_pkey")),
    )
    op.add_column("chargers", sa.Column("group_id", sa.String(collation="C"), nullable=True))
    op.create_foreign_key(op.f("chargers_group_id_fkey"), "chargers", "charger_groups", ["group_id"], ["id"])
    op.add_column("tags", sa.Column("tariff_id", sa.String(collation="C"), nullable=True))
    op.create_foreign_key(op.f("tags_tariff_id_fkey"), "tags", "tariffs", ["tariff_id"], ["id"])
    op.add_column("transactions", sa.Column("bill", postgresql.JSONB(astext_type=sa.Text()), nullable=True))


def downgrade() -> None:
    op.drop_column("transactions", "bill")
    op.drop_column("tags", "tariff_id")
    op.drop_column("chargers", "group_id")
    op.drop_table("charger_groups")
    op.drop_table("tariff_versions")
