"""what we remember of chargers: commands, configuration, lists, reservations, profiles, jobs

Revision: 0002
Follows: 0001
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Reservations of fifty years ago are over: it may begin again.
    op.execute("CREATE SEQUENCE reservation_ids AS integer MINVALUE 1 CYCLE")
    op.create_table(
        "availabilities",
        sa.Column("charger_id", sa.String(collation="C"), nullable=False),
        sa.Column("connector_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("desired", sa.Text(), nullable=False),
        sa.Column("desired_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("scheduled", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["charger_id"], ["chargers.id"], name=op.f("availabilities_charger_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("charger_id", "connector_id", name=op.f("availabilities_pkey")),
    )
    op.create_table(
        "capabilities",
        sa.Column("charger_id", sa.String(collation="C"), nullable=False),
        sa.Column("feature", sa.Text(), nullable=False),
        sa.Column("supported", sa.Boolean(), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["charger_id"], ["chargers.id"], name=op.f("capabilities_charger_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("charger_id", "feature", name=op.f("capabilities_pkey")),
    )
    op.create_table(
        "charging_profiles",
        sa.Column("charger_id", sa.String(collation="C"), nullable=False),
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("connector_id", sa.Integer(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("stack_level", sa.Integer(), nullable=False),
        sa.Column("transaction_id", sa.Integer(), nullable=True),
        sa.Column("id_tag", sa.Text(), nullable=True),
        sa.Column("profile", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("installed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("cleared_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["charger_id"],
            ["chargers.id"],
            name=op.f("charging_profiles_charger_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("charger_id", "id", name=op.f("charging_profiles_pkey")),
    )
    op.create_table(
        "commands",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("charger_id", sa.String(collation="C"), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("payload", postgresql.JSON(astext_type=sa.Text()), nullable=False),
        sa.Column("requested_by", sa.Text(), nullable=False),
        sa.Column(
            "requested_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("timeout_s", sa.Double(), server_default="30", nullable=False),
        sa.Column("queued", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("node", sa.Text(), nullable=True),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("answer", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("late_answer", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("late_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["charger_id"], ["chargers.id"], name=op.f("commands_charger_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("commands_pkey")),
        sa.UniqueConstraint("number", name=op.f("commands_number_key")),
    )
    op.create_index("commands_charger_id_number_idx", "commands", ["charger_id", "number"], unique=False)
    op.create_index(
        "commands_open_idx",
        "commands",
        ["charger_id", "number"],
        unique=False,
        postgresql_where=sa.text("state IN ('waiting', 'sending')"),
    )
    op.create_index("commands_requested_at_idx", "commands", ["requested_at"], unique=False)
    op.create_table(
        "configuration_keys",
        sa.Column("charger_id", sa.String(collation="C"), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("supported", sa.Boolean(), nullable=False),
        sa.Column("value", sa.Text(), nullable=True),
        sa.Column("readonly", sa.Boolean(), nullable=True),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("desired", sa.Text(), nullable=True),
        sa.Column("desired_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reboot_required", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["charger_id"],
            ["chargers.id"],
            name=op.f("configuration_keys_charger_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("charger_id", "key_id", name=op.f("configuration_keys_pkey")),
    )
    op.create_table(
        "data_transfers",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("charger_id", sa.String(collation="C"), nullable=False),
        sa.Column("vendor_id", sa.Text(), nullable=False),
        sa.Column("message_id", sa.Text(), nullable=True),
        sa.Column("data", sa.Text(), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("answer", sa.Text(), nullable=True),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["charger_id"], ["chargers.id"], name=op.f("data_transfers_charger_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("data_transfers_pkey")),
    )
    op.create_index("data_transfers_charger_id_idx", "data_transfers", ["charger_id", "id"], unique=False)
    op.create_table(
        "jobs",
        sa.Column("charger_id", sa.String(collation="C"), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("request_id", sa.Integer(), nullable=True),
        sa.Column("location", sa.Text(), nullable=True),
        sa.Column("file_name", sa.Text(), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("progress", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("requested_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["charger_id"], ["chargers.id"], name=op.f("jobs_charger_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("charger_id", "id", name=op.f("jobs_pkey")),
    )
    op.create_table(
        "local_lists",
        sa.Column("charger_id", sa.String(collation="C"), nullable=False),
        sa.Column("wanted", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("wanted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("sent", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("sent_version", sa.Integer(), nullable=True),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reported_version", sa.Integer(), nullable=True),
        sa.Column("reported_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_status", sa.Text(), nullable=True),
        sa.Column("last_status_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["charger_id"], ["chargers.id"], name=op.f("local_lists_charger_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("charger_id", name=op.f("local_lists_pkey")),
    )
    op.create_table(
        "reservations",
        sa.Column("charger_id", sa.String(collation="C"), nullable=False),
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("connector_id", sa.Integer(), nullable=False),
        sa.Column("id_tag", sa.Text(), nullable=False),
        sa.Column("parent_id_tag", sa.Text(), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("reserved_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_as", sa.Text(), nullable=True),
        sa.Column("transaction_id", sa.Integer(), nullable=True),
        sa.Column("broken_by", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(
            ["charger_id"], ["chargers.id"], name=op.f("reservations_charger_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("charger_id", "id", name=op.f("reservations_pkey")),
    )


def downgrade() -> None:
    op.drop_table("reservations")
    op.drop_table("local_lists")
    op.drop_table("jobs")
    op.drop_index("data_transfers_charger_id_idx", table_name="data_transfers")
    op.drop_table("data_transfers")
    op.drop_table("configuration_keys")
    op.drop_index("commands_requested_at_idx", table_name="commands")
    op.drop_index(
        "commands_open_idx",
        table_name="commands",
        postgresql_where=sa.text("state IN ('waiting', 'sending')"),
    )
    op.drop_index("commands_charger_id_number_idx", table_name="commands")
    op.drop_table("commands")
    op.drop_table("charging_profiles")
    op.drop_table("capabilities")
    op.drop_table("availabilities")
    op.execute("DROP SEQUENCE reservation_ids")
