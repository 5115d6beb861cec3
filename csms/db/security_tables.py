"""Tables of secrets and of the OCPP security white paper: certificates of charge points, their security events."""

from sqlalchemy import BigInteger, Column, Identity, Index, LargeBinary, Table, Text

from csms.db.schema import choice_column, id_column, metadata, now_column, time_column

# Client certificates of charge points: what our CA has issued, and any that was revoked, by serial number in hex.
station_certificates = Table(
    "station_certificates",
    metadata,
    id_column("serial", primary_key=True),
    id_column("charger_id", nullable=True),
    choice_column("status", "issued", "accepted", "rejected", "revoked"),
    Column("subject", Text),
    Column("pem", Text),
    time_column("not_before"),
    time_column("not_after"),
    now_column("issued_at"),
    time_column("answered_at"),
    time_column("reminded_at"),
    time_column("revoked_at"),
    Column("reason", Text),
    Index("station_certificates_charger_id_idx", "charger_id"),
)

security_events = Table(
    "security_events",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    id_column("charger_id"),
    Column("type", Text, nullable=False),
    Column("tech_info", Text),
    time_column("reported_at"),
    time_column("recorded_at", nullable=False),
    Index("security_events_charger_id_id_idx", "charger_id", "id"),
)

# What nodes sign their messages to each other with (csms/node/signed_messages.py).
node_keys = Table(
    "node_keys",
    metadata,
    Column("purpose", Text, primary_key=True),
    Column("key", LargeBinary, nullable=False),
    now_column("created_at"),
)
