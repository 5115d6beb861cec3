"""Tables of the nightly audit: its runs, and the transactions that the last one has found to differ."""

from sqlalchemy import BigInteger, Column, Identity, Integer, Table, Text
from sqlalchemy.dialects.postgresql import ARRAY

from csms.db.schema import metadata, time_column

# A run that has not ended was interrupted, if none holds the lock.
audit_runs = Table(
    "audit_runs",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("node", Text, nullable=False),
    time_column("started_at", nullable=False),
    time_column("ended_at"),
    Column("audited", Integer),
    Column("differing", Integer),
)

# A finding is open while its transaction is at that revision.
audit_findings = Table(
    "audit_findings",
    metadata,
    Column("transaction_id", Integer, primary_key=True, autoincrement=False),
    Column("revision", Integer, nullable=False),
    Column("fields", ARRAY(Text), nullable=False),
)
