"""The schema, as SQLAlchemy Core tables. Columns are named as the fields of the records.

Identities sort and compare by byte (`COLLATE "C"`): the same everywhere, whatever the server's locale.
`readings`, `messages` and `events` are partitioned by our clock, a day each (csms/db/partitions.py).
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    Sequence,
    SmallInteger,
    String,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSON, JSONB

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "fk": "%(table_name)s_%(column_0_name)s_fkey",
        "ck": "%(table_name)s_%(constraint_name)s_check",
    }
)

# OCPP 1.6 wants an integer id; real charge points refuse 0 and anything over 31 bits.
transaction_ids = Sequence(
    "transaction_ids",
    data_type=Integer,
    minvalue=1,
    maxvalue=2**31 - 1,
    cycle=False,
    metadata=metadata,
)
# Handed out in blocks: a node takes the next thousand numbers with one nextval.
NUMBER_BLOCK = 1000
event_numbers = Sequence("event_numbers", data_type=BigInteger, increment=NUMBER_BLOCK, metadata=metadata)

_HOT = {"fillfactor": 60}  # room for heap-only updates
PARTITIONED = ("messages", "readings", "events")  # in the order in which the ledger writes them


def _id(name: str, *, primary_key: bool = False, nullable: bool = False) -> Column[str]:
    return Column(name, String(collation="C"), primary_key=primary_key, nullable=nullable)


def _at(name: str, *, nullable: bool = True) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=nullable)


def _now(name: str) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=False, server_default=text("now()"))


tariffs = Table(
    "tariffs",
    metadata,
    _id("id", primary_key=True),
    Column("version", Integer, nullable=False, server_default="1"),
    Column("terms", JSONB, nullable=False),
    _now("created_at"),
)

# Every version there ever was; those of a deleted tariff stay, and its numbers go on should it come back.
tariff_versions = Table(
    "tariff_versions",
    metadata,
    _id("tariff_id", primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("terms", JSONB, nullable=False),
    _now("created_at"),
)

charger_groups = Table(
    "charger_groups",
    metadata,
    _id("id", primary_key=True),
    Column("tariff_id", String(collation="C"), ForeignKey("tariffs.id")),
    _now("created_at"),
)

chargers = Table(
    "chargers",
    metadata,
    _id("id", primary_key=True),
    Column("protocol", Text, nullable=False, server_default="ocpp1.6"),
    Column(
        "enrollment",
        Text,
        CheckConstraint("enrollment IN ('Accepted', 'Pending', 'Rejected')", name="enrollment"),
        nullable=False,
        server_default="Accepted",
    ),
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
    Column("tariff_id", String(collation="C"), ForeignKey("tariffs.id")),
    _at("booted_at"),
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
    Column("group_id", String(collation="C"), ForeignKey("charger_groups.id")),
    _now("created_at"),
)

charger_states = Table(
    "charger_states",
    metadata,
    Column(
        "charger_id", String(collation="C"), ForeignKey("chargers.id", ondelete="CASCADE"), primary_key=True
    ),
    Column("event_seq", BigInteger, nullable=False, server_default="0"),
    Column("generation", BigInteger, nullable=False, server_default="0"),
    Column("online", Boolean, nullable=False, server_default=text("false")),
    Column("node", Text),
    Column("remote_address", Text),
    _at("connected_at"),
    _at("last_seen_at"),
    postgresql_with=_HOT,
)

connectors = Table(
    "connectors",
    metadata,
    _id("charger_id", primary_key=True),
    Column("connector_id", Integer, primary_key=True, autoincrement=False),
    Column("status", Text),
    Column("error_code", Text, nullable=False, server_default="NoError"),
    Column("info", Text),
    Column("vendor_id", Text),
    Column("vendor_error_code", Text),
    _at("status_at"),
    _at("status_recorded_at"),
    _at("free_since"),
    Column("reading_transaction_id", Integer),
    _at("reading_at"),
    Column("energy_wh", BigInteger),
    Column("power_w", BigInteger),
    Column("soc_percent", Double),
    _at("newest_reading_at"),
    postgresql_with=_HOT,
)

transactions = Table(
    "transactions",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    _id("charger_id"),
    Column("connector_id", Integer, nullable=False),
    Column("key", Text, nullable=False),
    Column("id_tag", Text, nullable=False),
    Column("parent_id_tag", Text),
    Column("reservation_id", BigInteger),
    Column("authorization_status", Text, nullable=False),
    _at("authorization_expiry_at"),
    Column("meter_start_wh", BigInteger, nullable=False),
    _at("started_at", nullable=False),
    _at("start_received_at", nullable=False),
    Column("clock_suspect", Boolean, nullable=False, server_default=text("false")),
    Column("tariff", JSONB, nullable=False),
    Column("meter_stop_wh", BigInteger),
    _at("stopped_at"),
    _at("stop_received_at"),
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
    _id("account_id", nullable=True),
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
    Index(
        "transactions_open_id_tag_idx",
        text('lower(id_tag COLLATE "C")'),
        postgresql_where=text("stopped_at IS NULL"),
    ),
)

tags = Table(
    "tags",
    metadata,
    Column("id_tag", Text, primary_key=True),
    Column(
        "status",
        Text,
        CheckConstraint("status IN ('Accepted', 'Blocked', 'Expired', 'Invalid')", name="status"),
        nullable=False,
        server_default="Accepted",
    ),
    _at("expiry_at"),
    Column("parent_id_tag", Text),
    Column("max_active_transactions", Integer),
    Column("tariff_id", String(collation="C"), ForeignKey("tariffs.id")),
    _now("created_at"),
    Index("tags_lower_id_tag_key", text('lower(id_tag COLLATE "C")'), unique=True),
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", Integer, Identity(always=True), primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("digest", LargeBinary, nullable=False, unique=True),
    Column(
        "role", Text, CheckConstraint("role IN ('admin', 'operator', 'viewer')", name="role"), nullable=False
    ),
    _now("created_at"),
    _at("revoked_at"),
)

readings = Table(
    "readings",
    metadata,
    _id("charger_id"),
    Column("connector_id", Integer, nullable=False),
    Column("transaction_id", Integer),
    _at("sampled_at", nullable=False),
    _at("received_at", nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("energy_wh", BigInteger),
    Column("power_w", BigInteger),
    Column("soc_percent", Double),
    Column("samples", JSON, nullable=False),
    Index("readings_charger_id_sampled_at_idx", "charger_id", "sampled_at"),
    postgresql_partition_by="RANGE (received_at)",
)

status_history = Table(
    "status_history",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    _id("charger_id"),
    Column("connector_id", Integer, nullable=False),
    Column("status", Text, nullable=False),
    Column("error_code", Text, nullable=False),
    Column("info", Text),
    Column("vendor_id", Text),
    Column("vendor_error_code", Text),
    _at("reported_at"),
    _at("recorded_at", nullable=False),
    Index("status_history_charger_id_recorded_at_idx", "charger_id", "recorded_at"),
)

answers = Table(
    "answers",
    metadata,
    _id("charger_id", primary_key=True),
    Column("message_id", Text, primary_key=True),
    Column("digest", LargeBinary, primary_key=True),
    Column("answer", LargeBinary, nullable=False),
    _at("recorded_at", nullable=False),
    Index("answers_recorded_at_idx", "recorded_at"),
)

quarantine = Table(
    "quarantine",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    _id("charger_id"),
    Column("action", Text, nullable=False),
    Column("message_id", Text),
    Column("digest", LargeBinary, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("error", Text, nullable=False),
    Column("transaction_id", Integer),
    _at("received_at", nullable=False),
    _at("resolved_at"),
    Column("resolution", Text),
    Index("quarantine_charger_id_digest_key", "charger_id", "action", "digest", unique=True),
    Index("quarantine_open_idx", "id", postgresql_where=text("resolved_at IS NULL")),
)

deviations = Table(
    "deviations",
    metadata,
    _id("charger_id", primary_key=True),
    Column("action", Text, primary_key=True),
    Column("field", Text, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("detail", Text, nullable=False),
    Column("count", BigInteger, nullable=False),
    _now("first_at"),
    _at("last_at", nullable=False),
)

events = Table(
    "events",
    metadata,
    _id("charger_id", primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("event_id", Text, nullable=False),
    Column("event_type", Text, nullable=False),
    Column("topic", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("transaction_id", Integer),
    Column("recorded_at", DateTime(timezone=True), primary_key=True),
    postgresql_partition_by="RANGE (recorded_at)",
)

# What the broker has not acknowledged yet: a slim row per event, deleted after its PUBACK.
outbox = Table(
    "outbox",
    metadata,
    Column("lane", SmallInteger, nullable=False),
    _id("charger_id", primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    _at("recorded_at", nullable=False),
    Column("attempts", SmallInteger, nullable=False, server_default="0"),
    Column("last_error", Text),
    Column("dead", Boolean, nullable=False, server_default=text("false")),
    Index("outbox_lane_recorded_at_idx", "lane", "recorded_at", "charger_id", "seq"),
    Index("outbox_parked_idx", "recorded_at", "charger_id", "seq", postgresql_where=text("dead")),
    postgresql_with={"autovacuum_vacuum_scale_factor": 0.01, "autovacuum_vacuum_threshold": 1000},
)

messages = Table(
    "messages",
    metadata,
    _id("charger_id"),
    _at("at", nullable=False),
    Column("outgoing", Boolean, nullable=False),
    Column("action", Text),
    Column("message_id", Text),
    Column("frame", LargeBinary, nullable=False),
    Index("messages_charger_id_at_idx", "charger_id", "at"),
    postgresql_partition_by="RANGE (at)",
)

# Client certificates of charge points: what our CA has issued, and any that was revoked, by serial number in hex.
station_certificates = Table(
    "station_certificates",
    metadata,
    _id("serial", primary_key=True),
    _id("charger_id", nullable=True),
    Column(
        "status",
        Text,
        CheckConstraint("status IN ('issued', 'accepted', 'rejected', 'revoked')", name="status"),
        nullable=False,
    ),
    Column("subject", Text),
    Column("pem", Text),
    _at("not_before"),
    _at("not_after"),
    _now("issued_at"),
    _at("answered_at"),
    _at("reminded_at"),
    _at("revoked_at"),
    Column("reason", Text),
    Index("station_certificates_charger_id_idx", "charger_id"),
)

security_events = Table(
    "security_events",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    _id("charger_id"),
    Column("type", Text, nullable=False),
    Column("tech_info", Text),
    _at("reported_at"),
    _at("recorded_at", nullable=False),
    Index("security_events_charger_id_id_idx", "charger_id", "id"),
)
