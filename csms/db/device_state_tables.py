"""The tables of what we remember of chargers: commands, configuration, local lists, reservations, profiles, jobs.

All of a charger's rows go with it. Only the ledger writes them, under the charger's row lock; `commands` also
the API (new rows) and the delivery (its claims).
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    Sequence,
    String,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSON, JSONB

from csms.db.tables import _at, _now, metadata

reservation_ids = Sequence(
    "reservation_ids", data_type=Integer, minvalue=1, maxvalue=2**31 - 1, cycle=True, metadata=metadata
)


def _charger(*, primary_key: bool = True) -> Column[str]:
    return Column(
        "charger_id",
        String(collation="C"),
        ForeignKey("chargers.id", ondelete="CASCADE"),
        primary_key=primary_key,
        nullable=False,
    )


# `payload` has its secrets masked as soon as it need not be sent any more.
commands = Table(
    "commands",
    metadata,
    Column("id", Text, primary_key=True),
    Column("number", BigInteger, Identity(always=True), nullable=False, unique=True),
    _charger(primary_key=False),
    Column("action", Text, nullable=False),
    Column("payload", JSON, nullable=False),  # as given, the order of its fields too
    Column("requested_by", Text, nullable=False),
    _now("requested_at"),
    Column("timeout_s", Double, nullable=False, server_default="30"),
    Column("queued", Boolean, nullable=False, server_default=text("false")),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    _at("due_at"),
    _at("expires_at"),
    Column("node", Text),
    _at("sent_at"),
    _at("ended_at"),
    Column("answer", JSONB(none_as_null=True)),
    Column("error", Text),
    Column("late_answer", JSONB(none_as_null=True)),
    _at("late_at"),
    Index("commands_charger_id_number_idx", "charger_id", "number"),
    Index(
        "commands_open_idx",
        "charger_id",
        "number",
        postgresql_where=text("state IN ('waiting', 'sending')"),
    ),
    Index("commands_requested_at_idx", "requested_at"),
)

configuration_keys = Table(
    "configuration_keys",
    metadata,
    _charger(),
    Column("key_id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("supported", Boolean, nullable=False),
    Column("value", Text),
    Column("readonly", Boolean),
    _at("seen_at"),
    Column("desired", Text),
    _at("desired_at"),
    Column("reboot_required", Boolean, nullable=False),
)

local_lists = Table(
    "local_lists",
    metadata,
    _charger(),
    Column("wanted", JSONB(none_as_null=True)),
    _at("wanted_at"),
    Column("sent", JSONB(none_as_null=True)),
    Column("sent_version", Integer),
    _at("sent_at"),
    Column("reported_version", Integer),
    _at("reported_at"),
    Column("last_status", Text),
    _at("last_status_at"),
)

reservations = Table(
    "reservations",
    metadata,
    _charger(),
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("connector_id", Integer, nullable=False),
    Column("id_tag", Text, nullable=False),
    Column("parent_id_tag", Text),
    _at("expires_at", nullable=False),
    _at("reserved_at", nullable=False),
    _at("ended_at"),
    Column("ended_as", Text),
    Column("transaction_id", Integer),
    Column("broken_by", Integer),
)

charging_profiles = Table(
    "charging_profiles",
    metadata,
    _charger(),
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("connector_id", Integer, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("stack_level", Integer, nullable=False),
    Column("transaction_id", Integer),
    Column("id_tag", Text),
    Column("profile", JSONB, nullable=False),
    _at("installed_at", nullable=False),
    _at("cleared_at"),
)

jobs = Table(
    "jobs",
    metadata,
    _charger(),
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("request_id", Integer),
    Column("location", Text),
    Column("file_name", Text),
    Column("status", Text, nullable=False),
    Column("progress", JSONB, nullable=False),
    _at("requested_at", nullable=False),
    _at("updated_at", nullable=False),
    _at("ended_at"),
)

availabilities = Table(
    "availabilities",
    metadata,
    _charger(),
    Column("connector_id", Integer, primary_key=True, autoincrement=False),
    Column("desired", Text, nullable=False),
    _at("desired_at", nullable=False),
    Column("scheduled", Boolean, nullable=False),
)

capabilities = Table(
    "capabilities",
    metadata,
    _charger(),
    Column("feature", Text, primary_key=True),
    Column("supported", Boolean, nullable=False),
    _at("seen_at", nullable=False),
)

bridge_notes = Table(
    "bridge_notes",
    metadata,
    _charger(),
    Column("notes", JSONB, nullable=False),
    _at("noted_at", nullable=False),
)

data_transfers = Table(
    "data_transfers",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    _charger(primary_key=False),
    Column("vendor_id", Text, nullable=False),
    Column("message_id", Text),
    Column("data", Text),
    Column("status", Text, nullable=False),
    Column("answer", Text),
    _at("received_at", nullable=False),
    Index("data_transfers_charger_id_idx", "charger_id", "id"),
)
