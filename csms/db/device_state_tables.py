"""Tables of the device state: commands, configuration, local lists, reservations, profiles, jobs, notes of bridges.

Rows are deleted with their charger. The ledger alone writes them, under the charger's row lock, with two
exceptions: `commands` is also written by the REST interface (new rows) and by the dispatcher (claims), and the
desired local list by the REST interface.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    Identity,
    Index,
    Integer,
    Sequence,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSON, JSONB

from csms.db.schema import charger_column, metadata, now_column, time_column

reservation_ids = Sequence(
    "reservation_ids", data_type=Integer, minvalue=1, maxvalue=2**31 - 1, cycle=True, metadata=metadata
)


# The secrets in `payload` are masked once it need not be sent any more.
commands = Table(
    "commands",
    metadata,
    Column("id", Text, primary_key=True),
    Column("number", BigInteger, Identity(always=True), nullable=False, unique=True),
    charger_column(primary_key=False),
    Column("action", Text, nullable=False),
    Column("payload", JSON, nullable=False),  # not JSONB: the order of the fields is kept
    Column("requested_by", Text, nullable=False),
    now_column("requested_at"),
    Column("timeout_s", Double, nullable=False, server_default="30"),
    Column("queued", Boolean, nullable=False, server_default=text("false")),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    time_column("due_at"),
    time_column("expires_at"),
    Column("node", Text),
    time_column("sent_at"),
    time_column("ended_at"),
    Column("answer", JSONB(none_as_null=True)),
    Column("error", Text),
    Column("late_answer", JSONB(none_as_null=True)),
    time_column("late_at"),
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
    charger_column(),
    Column("key_id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("supported", Boolean, nullable=False),
    Column("value", Text),
    Column("readonly", Boolean),
    time_column("seen_at"),
    Column("desired", Text),
    time_column("desired_at"),
    Column("reboot_required", Boolean, nullable=False),
)

local_lists = Table(
    "local_lists",
    metadata,
    charger_column(),
    Column("wanted", JSONB(none_as_null=True)),
    time_column("wanted_at"),
    Column("sent", JSONB(none_as_null=True)),
    Column("sent_version", Integer),
    time_column("sent_at"),
    Column("reported_version", Integer),
    time_column("reported_at"),
    Column("last_status", Text),
    time_column("last_status_at"),
)

reservations = Table(
    "reservations",
    metadata,
    charger_column(),
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("connector_id", Integer, nullable=False),
    Column("id_tag", Text, nullable=False),
    Column("parent_id_tag", Text),
    time_column("expires_at", nullable=False),
    time_column("reserved_at", nullable=False),
    time_column("ended_at"),
    Column("ended_as", Text),
    Column("transaction_id", Integer),
    Column("broken_by", Integer),
)

charging_profiles = Table(
    "charging_profiles",
    metadata,
    charger_column(),
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("connector_id", Integer, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("stack_level", Integer, nullable=False),
    Column("transaction_id", Integer),
    Column("id_tag", Text),
    Column("profile", JSONB, nullable=False),
    time_column("installed_at", nullable=False),
    time_column("cleared_at"),
)

jobs = Table(
    "jobs",
    metadata,
    charger_column(),
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("request_id", Integer),
    Column("location", Text),
    Column("file_name", Text),
    Column("status", Text, nullable=False),
    Column("progress", JSONB, nullable=False),
    time_column("requested_at", nullable=False),
    time_column("updated_at", nullable=False),
    time_column("ended_at"),
)

availabilities = Table(
    "availabilities",
    metadata,
    charger_column(),
    Column("connector_id", Integer, primary_key=True, autoincrement=False),
    Column("desired", Text, nullable=False),
    time_column("desired_at", nullable=False),
    Column("scheduled", Boolean, nullable=False),
)

capabilities = Table(
    "capabilities",
    metadata,
    charger_column(),
    Column("feature", Text, primary_key=True),
    Column("supported", Boolean, nullable=False),
    time_column("seen_at", nullable=False),
)

bridge_notes = Table(
    "bridge_notes",
    metadata,
    charger_column(),
    Column("notes", JSONB, nullable=False),
    time_column("noted_at", nullable=False),
)

data_transfers = Table(
    "data_transfers",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    charger_column(primary_key=False),
    Column("vendor_id", Text, nullable=False),
    Column("message_id", Text),
    Column("data", Text),
    Column("status", Text, nullable=False),
    Column("answer", Text),
    time_column("received_at", nullable=False),
    Index("data_transfers_charger_id_idx", "charger_id", "id"),
)
