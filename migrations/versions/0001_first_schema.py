"""first schema

Revision: 0001
Follows:
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    # OCPP 1.6 wants an integer id; real charge points refuse 0 and anything over 31 bits.
    op.execute("CREATE SEQUENCE transaction_ids AS integer MINVALUE 1 NO CYCLE")
    # Handed out in blocks of a thousand (csms/db/event_tables.py, NUMBER_BLOCK).
    op.execute("CREATE SEQUENCE event_numbers AS bigint INCREMENT BY 1000")
    op.create_table(
        "answers",
        sa.Column("charger_id", sa.String(collation="C"), nullable=False),
        sa.Column("message_id", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("answer", sa.LargeBinary(), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("charger_id", "message_id", "digest", name=op.f("answers_pkey")),
    )
    op.create_index("answers_recorded_at_idx", "answers", ["recorded_at"], unique=False)
    op.create_table(
        "connectors",
        sa.Column("charger_id", sa.String(collation="C"), nullable=False),
        sa.Column("connector_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("status", sa.Text(), nullable=True),
        sa.Column("error_code", sa.Text(), server_default="NoError", nullable=False),
        sa.Column("info", sa.Text(), nullable=True),
        sa.Column("vendor_id", sa.Text(), nullable=True),
        sa.Column("vendor_error_code", sa.Text(), nullable=True),
        sa.Column("status_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("status_recorded_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("free_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reading_transaction_id", sa.Integer(), nullable=True),
        sa.Column("reading_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("energy_wh", sa.BigInteger(), nullable=True),
        sa.Column("power_w", sa.BigInteger(), nullable=True),
        sa.Column("soc_percent", sa.Double(), nullable=True),
        sa.Column("newest_reading_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("charger_id", "connector_id", name=op.f("connectors_pkey")),
        postgresql_with={"fillfactor": 60},
    )
    op.create_table(
        "deviations",
        sa.Column("charger_id", sa.String(collation="C"), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("field", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("first_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("charger_id", "action", "field", "kind", name=op.f("deviations_pkey")),
    )
    op.create_table(
        "events",
        sa.Column("charger_id", sa.String(collation="C"), nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("event_type", sa.Text(), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("transaction_id", sa.Integer(), nullable=True),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("charger_id", "seq", "recorded_at", name=op.f("events_pkey")),
        postgresql_partition_by="RANGE (recorded_at)",
    )
    op.create_table(
        "messages",
        sa.Column("charger_id", sa.String(collation="C"), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("outgoing", sa.Boolean(), nullable=False),
        sa.Column("action", sa.Text(), nullable=True),
        sa.Column("message_id", sa.Text(), nullable=True),
        sa.Column("frame", sa.LargeBinary(), nullable=False),
        postgresql_partition_by="RANGE (at)",
    )
    op.create_index("messages_charger_id_at_idx", "messages", ["charger_id", "at"], unique=False)
    op.create_table(
        "outbox",
        sa.Column("lane", sa.SmallInteger(), nullable=False),
        sa.Column("charger_id", sa.String(collation="C"), nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("attempts", sa.SmallInteger(), server_default="0", nullable=False),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("dead", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.PrimaryKeyConstraint("charger_id", "seq", name=op.f("outbox_pkey")),
        postgresql_with={"autovacuum_vacuum_scale_factor": 0.01, "autovacuum_vacuum_threshold": 1000},
    )
    op.create_index(
        "outbox_lane_recorded_at_idx", "outbox", ["lane", "recorded_at", "charger_id", "seq"], unique=False
    )
    op.create_table(
        "quarantine",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("charger_id", sa.String(collation="C"), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("message_id", sa.Text(), nullable=True),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("transaction_id", sa.Integer(), nullable=True),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("resolved_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("resolution", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("quarantine_pkey")),
    )
    op.create_index(
        "quarantine_charger_id_digest_key", "quarantine", ["charger_id", "action", "digest"], unique=True
    )
    op.create_table(
        "readings",
        sa.Column("charger_id", sa.String(collation="C"), nullable=False),
        sa.Column("connector_id", sa.Integer(), nullable=False),
        sa.Column("transaction_id", sa.Integer(), nullable=True),
        sa.Column("sampled_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("energy_wh", sa.BigInteger(), nullable=True),
        sa.Column("power_w", sa.BigInteger(), nullable=True),
        sa.Column("soc_percent", sa.Double(), nullable=True),
        sa.Column("samples", postgresql.JSON(astext_type=sa.Text()), nullable=False),
        postgresql_partition_by="RANGE (received_at)",
    )
    op.create_index(
        "readings_charger_id_sampled_at_idx", "readings", ["charger_id", "sampled_at"], unique=False
    )
    op.create_table(
        "status_history",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("charger_id", sa.String(collation="C"), nullable=False),
        sa.Column("connector_id", sa.Integer(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("error_code", sa.Text(), nullable=False),
        sa.Column("info", sa.Text(), nullable=True),
        sa.Column("vendor_id", sa.Text(), nullable=True),
        sa.Column("vendor_error_code", sa.Text(), nullable=True),
        sa.Column("reported_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("status_history_pkey")),
    )
    op.create_index(
        "status_history_charger_id_recorded_at_idx",
        "status_history",
        ["charger_id", "recorded_at"],
        unique=False,
    )
    op.create_table(
        "tags",
        sa.Column("id_tag", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), server_default="Accepted", nullable=False),
        sa.Column("expiry_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("parent_id_tag", sa.Text(), nullable=True),
        sa.Column("max_active_transactions", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "status IN ('Accepted', 'Blocked', 'Expired', 'Invalid')", name=op.f("tags_status_check")
        ),
        sa.PrimaryKeyConstraint("id_tag", name=op.f("tags_pkey")),
    )
    op.create_index(
        "tags_lower_id_tag_key", "tags", [sa.literal_column('lower(id_tag COLLATE "C")')], unique=True
    )
    op.create_table(
        "tariffs",
        sa.Column("id", sa.String(collation="C"), nullable=False),
        sa.Column("version", sa.Integer(), server_default="1", nullable=False),
        sa.Column("terms", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("tariffs_pkey")),
    )
    op.create_table(
        "tokens",
        sa.Column("id", sa.Integer(), sa.Identity(always=True), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("role IN ('admin', 'operator', 'viewer')", name=op.f("tokens_role_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("tokens_pkey")),
        sa.UniqueConstraint("digest", name=op.f("tokens_digest_key")),
        sa.UniqueConstraint("name", name=op.f("tokens_name_key")),
    )
    op.create_table(
        "transactions",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("charger_id", sa.String(collation="C"), nullable=False),
        sa.Column("connector_id", sa.Integer(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("id_tag", sa.Text(), nullable=False),
        sa.Column("parent_id_tag", sa.Text(), nullable=True),
        sa.Column("reservation_id", sa.BigInteger(), nullable=True),
        sa.Column("authorization_status", sa.Text(), nullable=False),
        sa.Column("authorization_expiry_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("meter_start_wh", sa.BigInteger(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("start_received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("clock_suspect", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("tariff", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("meter_stop_wh", sa.BigInteger(), nullable=True),
        sa.Column("stopped_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("stop_received_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("stop_reason", sa.Text(), nullable=True),
        sa.Column("stop_id_tag", sa.Text(), nullable=True),
        sa.Column("energy_wh", sa.BigInteger(), nullable=True),
        sa.Column("energy_source", sa.Text(), nullable=True),
        sa.Column("duration_s", sa.Numeric(), nullable=True),
        sa.Column("inferred", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("revision", sa.Integer(), server_default="0", nullable=False),
        sa.Column("cost_minor", sa.BigInteger(), nullable=True),
        sa.Column("cost", sa.Numeric(), nullable=True),
        sa.Column("anomalies", postgresql.ARRAY(sa.Text()), server_default="{}", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("transactions_pkey")),
    )
    op.create_index("transactions_charger_id_key_key", "transactions", ["charger_id", "key"], unique=True)
    op.create_index(
        "transactions_charger_id_started_at_idx",
        "transactions",
        ["charger_id", "started_at", "id"],
        unique=False,
    )
    op.create_index(
        "transactions_open_id_tag_idx",
        "transactions",
        [sa.literal_column('lower(id_tag COLLATE "C")')],
        unique=False,
        postgresql_where=sa.text("stopped_at IS NULL"),
    )
    op.create_index(
        "transactions_open_key",
        "transactions",
        ["charger_id", "connector_id"],
        unique=True,
        postgresql_where=sa.text("stopped_at IS NULL"),
    )
    op.create_index("transactions_started_at_idx", "transactions", ["started_at", "id"], unique=False)
    op.create_table(
        "chargers",
        sa.Column("id", sa.String(collation="C"), nullable=False),
        sa.Column("protocol", sa.Text(), server_default="ocpp1.6", nullable=False),
        sa.Column("enrollment", sa.Text(), server_default="Accepted", nullable=False),
        sa.Column("vendor", sa.Text(), nullable=True),
        sa.Column("model", sa.Text(), nullable=True),
        sa.Column("serial_number", sa.Text(), nullable=True),
        sa.Column("firmware_version", sa.Text(), nullable=True),
        sa.Column("iccid", sa.Text(), nullable=True),
        sa.Column("imsi", sa.Text(), nullable=True),
        sa.Column("meter_type", sa.Text(), nullable=True),
        sa.Column("meter_serial_number", sa.Text(), nullable=True),
        sa.Column("heartbeat_interval_s", sa.Integer(), nullable=True),
        sa.Column("time_zone", sa.Text(), nullable=True),
        sa.Column("tariff_id", sa.String(collation="C"), nullable=True),
        sa.Column("booted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("display_name", sa.Text(), nullable=True),
        sa.Column("password_hash", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "enrollment IN ('Accepted', 'Pending', 'Rejected')", name=op.f("chargers_enrollment_check")
        ),
        sa.ForeignKeyConstraint(["tariff_id"], ["tariffs.id"], name=op.f("chargers_tariff_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("chargers_pkey")),
    )
    op.create_table(
        "charger_states",
        sa.Column("charger_id", sa.String(collation="C"), nullable=False),
        sa.Column("event_seq", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("generation", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("online", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("node", sa.Text(), nullable=True),
        sa.Column("remote_address", sa.Text(), nullable=True),
        sa.Column("connected_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_seen_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["charger_id"], ["chargers.id"], name=op.f("charger_states_charger_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("charger_id", name=op.f("charger_states_pkey")),
        postgresql_with={"fillfactor": 60},
    )
    # Days are made at run time (csms/db/partitions.py); a row outside all of them is still kept.
    for table in ("readings", "messages", "events"):
        op.execute(f"CREATE TABLE {table}_default PARTITION OF {table} DEFAULT")


def downgrade() -> None:
    for table in (
        "transactions",
        "tokens",
        "tags",
        "status_history",
        "readings",
        "quarantine",
        "outbox",
        "messages",
        "events",
        "deviations",
        "connectors",
        "answers",
        "charger_states",
        "chargers",
        "tariffs",
    ):
        op.drop_table(table)
    op.execute("DROP SEQUENCE transaction_ids, event_numbers")
