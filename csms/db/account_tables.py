"""Tables of accounts: balances, their entries, rentals, sign-in, payments.

A balance is changed under its account's row lock, which is taken after those of chargers and tags. Rows of
`account_entries` are only added.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Identity,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    text,
)

from csms.db.schema import choice_column, id_column, metadata, now_column, time_column

accounts = Table(
    "accounts",
    metadata,
    id_column("id", primary_key=True),
    Column("currency", Text, nullable=False),
    Column("balance_minor", BigInteger, nullable=False, server_default="0"),
    Column("blocked", Boolean, nullable=False, server_default=text("false")),
    now_column("created_at"),
)

account_entries = Table(
    "account_entries",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    id_column("account_id", "accounts"),
    Column("key", Text, nullable=False, unique=True),
    choice_column("kind", "top_up", "debit", "refund", "correction"),
    Column("amount_minor", BigInteger, nullable=False),
    Column("balance_minor", BigInteger, nullable=False),
    Column("transaction_id", Integer),
    Column("note", Text),
    time_column("recorded_at", nullable=False),
    Index("account_entries_account_id_id_idx", "account_id", "id"),
)

rentals = Table(
    "rentals",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    id_column("account_id", "accounts"),
    id_column("charger_id"),
    Column("connector_id", Integer, nullable=False),
    Column("origin", Text, nullable=False),
    choice_column("state", "held", "running", "ended", "released"),
    Column("hold_minor", BigInteger, nullable=False),
    Column("dynamic", Boolean, nullable=False),
    Column("free_s", Integer, nullable=False),
    time_column("held_at", nullable=False),
    time_column("expires_at"),
    Column("transaction_id", Integer, unique=True),
    Column("debited_minor", BigInteger, nullable=False),
    Column("debits", Integer, nullable=False),
    time_column("ended_at"),
    # One open rental per user among those that csms began. Those that began elsewhere are paid for as well.
    Index(
        "rentals_open_account_key",
        "account_id",
        unique=True,
        postgresql_where=text("ended_at IS NULL AND origin = 'csms'"),
    ),
    Index("rentals_open_charger_idx", "charger_id", postgresql_where=text("ended_at IS NULL")),
    Index("rentals_account_id_id_idx", "account_id", "id"),
)

# `kind`: link (used once) or session. Of the secret only a digest is stored.
account_tokens = Table(
    "account_tokens",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    id_column("account_id", "accounts"),
    choice_column("kind", "link", "session"),
    time_column("expires_at", nullable=False),
    time_column("used_at"),
    now_column("created_at"),
    Index("account_tokens_expires_at_idx", "expires_at"),
)

payments = Table(
    "payments",
    metadata,
    Column("id", Text, primary_key=True),
    id_column("account_id", "accounts"),
    Column("provider", Text, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    choice_column("state", "pending", "paid", "failed"),
    now_column("created_at"),
    time_column("settled_at"),
    Index("payments_account_id_idx", "account_id"),
)
