"""Tables of chargers, transactions, and what they are authorized and priced by.

`readings` is partitioned by the time of receipt, one UTC day each (csms/db/partitions.py).
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    Numeric,
    Sequence,
    SmallInteger,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSON, JSONB

from csms.db.schema import charger_column, choice_column, id_column, metadata, now_column, time_column

_HOT = {"fillfactor": 60}  # room for heap-only updates
# Ended transactions whose readings show more energy than is billed.
LATE = "inferred AND (register #>> '{last,energy_wh}')::bigint > energy_wh"

# OCPP 1.6 requires an integer; charge points in the field refuse 0 and more than 31 bits.
transaction_ids = Sequence(
    "transaction_ids",
    data_type=Integer,
    minvalue=1,
    maxvalue=2**31 - 1,
    cycle=False,
    metadata=metadata,
)

tariffs = Table(
    "tariffs",
    metadata,
    id_column("id", primary_key=True),
    Column("version", Integer, nullable=False, server_default="1"),
    Column("terms", JSONB, nullable=False),
    now_column("created_at"),
)

# All versions, those of deleted tariffs included. A tariff that is made again continues the numbers.
tariff_versions = Table(
    "tariff_versions",
    metadata,
    id_column("tariff_id", primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("terms", JSONB, nullable=False),
    now_column("created_at"),
)

charger_groups = Table(
    "charger_groups",
    metadata,
    id_column("id", primary_key=True),
    id_column("tariff_id", "tariffs", nullable=True),
    now_column("created_at"),
)

chargers = Table(
    "chargers",
    metadata,
    id_column("id", primary_key=True),
    Column("protocol", Text, nullable=False, server_default="ocpp1.6"),
    choice_column("enrollment", "Accepted", "Pending", "Rejected", default="Accepted"),
    Column("vendor", Text),
    Column("model", Text),
    Column("serial_number", Text),
    Column("firmware_version", Text),
    Column("iccid", Text),
    Column("imsi", Text),
    Column("meter_type", Text),
    Column("meter_serial_number", Text),
    Column("heartbeat_interval_s", Integer),
    Column("time_zone", Text),
    id_column("tariff_id", "tariffs", nullable=True),
    time_column("booted_at"),
    Column("display_name", Text),
    Column("password_hash", Text),
    # Keys that were sent and not confirmed: the first one used becomes the password (OCPP white paper, A01).
    Column("pending_password_hashes", ARRAY(Text), nullable=False, server_default="{}"),
    # NULL: 1 with a password, 0 without.
    Column(
        "security_profile",
        SmallInteger,
        CheckConstraint("security_profile BETWEEN 0 AND 3", name="security_profile"),
    ),
    Column("pending_security_profile", SmallInteger),
    Column("certificate_name", Text),
    id_column("group_id", "charger_groups", nullable=True),
    Column("max_power_w", Integer, CheckConstraint("max_power_w > 0", name="max_power_w")),
    now_column("created_at"),
)

charger_states = Table(
    "charger_states",
    metadata,
    charger_column(),
    Column("event_seq", BigInteger, nullable=False, server_default="0"),
    Column("generation", BigInteger, nullable=False, server_default="0"),
    Column("online", Boolean, nullable=False, server_default=text("false")),
    Column("node", Text),
    Column("remote_address", Text),
    time_column("connected_at"),
    time_column("last_seen_at"),
    Column("deferred", Boolean, nullable=False, server_default=text("false")),
    postgresql_with=_HOT,
)

connectors = Table(
    "connectors",
    metadata,
    id_column("charger_id", primary_key=True),
    Column("connector_id", Integer, primary_key=True, autoincrement=False),
    Column("status", Text),
    Column("error_code", Text, nullable=False, server_default="NoError"),
    Column("info", Text),
    Column("vendor_id", Text),
    Column("vendor_error_code", Text),
    time_column("status_at"),
    time_column("status_recorded_at"),
    time_column("free_since"),
    Column("reading_transaction_id", Integer),
    time_column("reading_at"),
    Column("energy_wh", BigInteger),
    Column("power_w", BigInteger),
    Column("soc_percent", Double),
    time_column("newest_reading_at"),
    Column("register", JSONB(none_as_null=True)),
    postgresql_with=_HOT,
)

transactions = Table(
    "transactions",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    id_column("charger_id"),
    Column("connector_id", Integer, nullable=False),
    Column("key", Text, nullable=False),
    Column("id_tag", Text, nullable=False),
    Column("parent_id_tag", Text),
    Column("reservation_id", BigInteger),
    Column("authorization_status", Text, nullable=False),
    time_column("authorization_expiry_at"),
    Column("meter_start_wh", BigInteger, nullable=False),
    time_column("started_at", nullable=False),
    time_column("start_received_at", nullable=False),
    Column("clock_suspect", Boolean, nullable=False, server_default=text("false")),
    Column("tariff", JSONB, nullable=False),
    Column("meter_stop_wh", BigInteger),
    time_column("stopped_at"),
    time_column("stop_received_at"),
    Column("stop_reason", Text),
    Column("stop_id_tag", Text),
    Column("energy_wh", BigInteger),
    Column("energy_source", Text),
    Column("duration_s", Numeric),
    Column("inferred", Boolean, nullable=False, server_default=text("false")),
    Column("revision", Integer, nullable=False, server_default="0"),
    Column("cost_minor", BigInteger),
    Column("cost", Numeric),
    Column("bill", JSONB(none_as_null=True)),
    Column("anomalies", ARRAY(Text), nullable=False, server_default="{}"),
    id_column("account_id", nullable=True),
    now_column("accounting_at"),
    Column("billing", Text, CheckConstraint("billing IN ('billed', 'held', 'void')", name="billing")),
    Column("held_because", ARRAY(Text), nullable=False, server_default="{}"),
    Column("register", JSONB(none_as_null=True)),
    # The same start reported again, by any node, is the same transaction.
    Index("transactions_charger_id_key_key", "charger_id", "key", unique=True),
    # One open transaction a connector, always.
    Index(
        "transactions_open_key",
        "charger_id",
        "connector_id",
        unique=True,
        postgresql_where=text("stopped_at IS NULL"),
    ),
    Index("transactions_started_at_idx", "started_at", "id"),
    Index("transactions_charger_id_started_at_idx", "charger_id", "started_at", "id"),
    Index("transactions_accounting_at_idx", "accounting_at", "id"),
    Index("transactions_charger_id_accounting_at_idx", "charger_id", "accounting_at", "id"),
    Index("transactions_late_idx", "id", postgresql_where=text(LATE)),
    Index("transactions_held_idx", "id", postgresql_where=text("billing = 'held'")),
    Index(
        "transactions_open_id_tag_idx",
        text('lower(id_tag COLLATE "C")'),
        postgresql_where=text("stopped_at IS NULL"),
    ),
)

# The revisions of transactions that were revised, the first one included.
transaction_revisions = Table(
    "transaction_revisions",
    metadata,
    Column("transaction_id", Integer, primary_key=True, autoincrement=False),
    Column("revision", Integer, primary_key=True, autoincrement=False),
    time_column("recorded_at", nullable=False),
    Column("author", Text, nullable=False),
    Column("note", Text),
    Column("state", JSONB, nullable=False),
)

tags = Table(
    "tags",
    metadata,
    Column("id_tag", Text, primary_key=True),
    choice_column("status", "Accepted", "Blocked", "Expired", "Invalid", default="Accepted"),
    time_column("expiry_at"),
    Column("parent_id_tag", Text),
    Column("max_active_transactions", Integer),
    id_column("tariff_id", "tariffs", nullable=True),
    now_column("created_at"),
    Index("tags_lower_id_tag_key", text('lower(id_tag COLLATE "C")'), unique=True),
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", Integer, Identity(always=True), primary_key=True),
    Column("name", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False, unique=True),
    choice_column("role", "admin", "operator", "viewer"),
    now_column("created_at"),
    time_column("expires_at"),
    time_column("last_used_at"),
    time_column("revoked_at"),
    Index("tokens_name_idx", "name", unique=True, postgresql_where=text("revoked_at IS NULL")),
)

# `token_id` is NULL in a session that was begun with the token of the settings.
console_sessions = Table(
    "console_sessions",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("token_id", Integer, ForeignKey("tokens.id", ondelete="CASCADE")),
    choice_column("role", "admin", "operator", "viewer"),
    now_column("created_at"),
    time_column("expires_at", nullable=False),
    Index("console_sessions_expires_at_idx", "expires_at"),
    Index("console_sessions_token_id_idx", "token_id"),
)

readings = Table(
    "readings",
    metadata,
    id_column("charger_id"),
    Column("connector_id", Integer, nullable=False),
    Column("transaction_id", Integer),
    time_column("sampled_at", nullable=False),
    time_column("received_at", nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("energy_wh", BigInteger),
    Column("power_w", BigInteger),
    Column("soc_percent", Double),
    Column("samples", JSON, nullable=False),
    Column("weight", SmallInteger),
    Index("readings_charger_id_sampled_at_idx", "charger_id", "sampled_at"),
    postgresql_partition_by="RANGE (received_at)",
)

status_history = Table(
    "status_history",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    id_column("charger_id"),
    Column("connector_id", Integer, nullable=False),
    Column("status", Text, nullable=False),
    Column("error_code", Text, nullable=False),
    Column("info", Text),
    Column("vendor_id", Text),
    Column("vendor_error_code", Text),
    time_column("reported_at"),
    time_column("recorded_at", nullable=False),
    Index("status_history_charger_id_recorded_at_idx", "charger_id", "recorded_at"),
)

answers = Table(
    "answers",
    metadata,
    id_column("charger_id", primary_key=True),
    Column("message_id", Text, primary_key=True),
    Column("digest", LargeBinary, primary_key=True),
    Column("answer", LargeBinary, nullable=False),
    time_column("recorded_at", nullable=False),
    Index("answers_recorded_at_idx", "recorded_at"),
)

quarantine = Table(
    "quarantine",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    id_column("charger_id"),
    Column("action", Text, nullable=False),
    Column("message_id", Text),
    Column("digest", LargeBinary, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("error", Text, nullable=False),
    Column("transaction_id", Integer),
    time_column("received_at", nullable=False),
    time_column("resolved_at"),
    Column("resolution", Text),
    # Of deferred messages, which wait until an operator accepts their charger: its enrollment, and a start's key.
    Column("enrollment", Text),
    Column("start_key", Text),
    Index(
        "quarantine_deferred_idx",
        "charger_id",
        postgresql_where=text("enrollment IS NOT NULL AND resolved_at IS NULL"),
    ),
    Index(
        "quarantine_start_key_idx", "charger_id", "start_key", postgresql_where=text("start_key IS NOT NULL")
    ),
    Index("quarantine_charger_id_digest_key", "charger_id", "action", "digest", unique=True),
    Index("quarantine_open_idx", "id", postgresql_where=text("resolved_at IS NULL")),
)

deviations = Table(
    "deviations",
    metadata,
    id_column("charger_id", primary_key=True),
    Column("action", Text, primary_key=True),
    Column("field", Text, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("detail", Text, nullable=False),
    Column("count", BigInteger, nullable=False),
    now_column("first_at"),
    time_column("last_at", nullable=False),
)
