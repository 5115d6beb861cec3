"""security: profiles, pending keys, station certificates, security events

Revision: 0003
Follows: 0002
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "chargers",
        sa.Column(
            "pending_password_hashes", postgresql.ARRAY(sa.Text()), server_default="{}", nullable=False
        ),
    )
    op.add_column("chargers", sa.Column("security_profile", sa.SmallInteger(), nullable=True))
    op.add_column("chargers", sa.Column("pending_security_profile", sa.SmallInteger(), nullable=True))
    op.add_column("chargers", sa.Column("certificate_name", sa.Text(), nullable=True))
    op.create_check_constraint(
        op.f("chargers_security_profile_check"), "chargers", "security_profile BETWEEN 0 AND 3"
    )
    op.create_table(
        "station_certificates",
        sa.Column("serial", sa.String(collation="C"), nullable=False),
        sa.Column("charger_id", sa.String(collation="C"), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=True),
        sa.Column("pem", sa.Text(), nullable=True),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=True),
        sa.Column("not_after", sa.DateTime(timezone=True), nullable=True),
        sa.Column("issued_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("answered_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reminded_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "status IN ('issued', 'accepted', 'rejected', 'revoked')",
            name=op.f("station_certificates_status_check"),
        ),
        sa.PrimaryKeyConstraint("serial", name=op.f("station_certificates_pkey")),
    )
    op.create_index(
        "station_certificates_charger_id_idx", "station_certificates", ["charger_id"], unique=False
    )
    op.create_table(
        "security_events",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("charger_id", sa.String(collation="C"), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("tech_info", sa.Text(), nullable=True),
        sa.Column("reported_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("security_events_pkey")),
    )
    op.create_index(
        "security_events_charger_id_id_idx", "security_events", ["charger_id", "id"], unique=False
    )


def downgrade() -> None:
    op.drop_table("security_events")
    op.drop_table("station_certificates")
    for column in (
        "certificate_name",
        "pending_security_profile",
        "security_profile",
        "pending_password_hashes",
    ):
        op.drop_column("chargers", column)
