"""Tables of what leaves the system and of what crossed the wire: events, the outbox, raw frames.

`events` and `messages` are partitioned by the node's clock, one UTC day each (csms/db/partitions.py).
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    Sequence,
    SmallInteger,
    Table,
    Text,
    text,
)

from csms.db.schema import id_column, metadata, now_column, time_column

# Drawn in blocks: a node takes the next thousand numbers with one nextval.
NUMBER_BLOCK = 1000
event_numbers = Sequence("event_numbers", data_type=BigInteger, increment=NUMBER_BLOCK, metadata=metadata)

events = Table(
    "events",
    metadata,
    id_column("charger_id", primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("event_id", Text, nullable=False),
    Column("event_type", Text, nullable=False),
    Column("topic", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("transaction_id", Integer),
    time_column("recorded_at", primary_key=True, nullable=False),
    Column("history_epoch", Integer, nullable=False, server_default="0"),
    postgresql_partition_by="RANGE (recorded_at)",
)

# How often this database has been restored from a backup, with a row for each time: the newest one is the history epoch.
restores = Table(
    "restores",
    metadata,
    Column("epoch", Integer, primary_key=True, autoincrement=False),
    now_column("restored_at"),
    Column("note", Text, nullable=False),
)

# What the broker has not acknowledged yet: a slim row per event, deleted after its PUBACK.
outbox = Table(
    "outbox",
    metadata,
    Column("lane", SmallInteger, nullable=False),
    id_column("charger_id", primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    time_column("recorded_at", nullable=False),
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
    id_column("charger_id"),
    time_column("at", nullable=False),
    Column("outgoing", Boolean, nullable=False),
    Column("action", Text),
    Column("message_id", Text),
    Column("frame", LargeBinary, nullable=False),
    Index("messages_charger_id_at_idx", "charger_id", "at"),
    postgresql_partition_by="RANGE (at)",
)
