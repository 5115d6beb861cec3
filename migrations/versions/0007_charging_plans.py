"""charging plans: how OCPP chargers are planned, what is shown of every charger's plan

Revision: 0007
Follows: 0006
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_C = sa.String(collation="C")
_AT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "charging_plans",
        sa.Column("charger_id", _C, nullable=False),
        sa.Column("terms", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("removed", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("hems", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("delivery", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("changed_at", _AT, server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["charger_id"], ["chargers.id"], name=op.f("charging_plans_charger_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("charger_id", name=op.f("charging_plans_pkey")),
    )
    op.create_table(
        "plan_views",
        sa.Column("charger_id", _C, nullable=False),
        sa.Column("connector_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("shown", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("changed_at", _AT, server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["charger_id"], ["chargers.id"], name=op.f("plan_views_charger_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("charger_id", "connector_id", name=op.f("plan_views_pkey")),
    )


def downgrade() -> None:
    op.drop_table("plan_views")
    op.drop_table("charging_plans")
