"""The tables of accounts: balances, their entries, rentals, and how people sign in.

An account's row is locked after the rows of chargers and tags; whoever changes a balance holds it. `account_entries`
is only added to.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    text,
)

from csms.db.tables import _at, _now, metadata


def _account(name: str = "account_id") -> Column[str]:
    return Column(name, String(collation="C"), ForeignKey("accounts.id"), nullable=False)


accounts = Table(
    "accounts",
    metadata,
    Column("id", String(collation="C"), primary_key=True),
    Column("currency", Text, nullable=False),
    Column("balance_minor", BigInteger, nullable=False, server_default="0"),
    Column("blocked", Boolean, nullable=False, server_default=text("false")),
    _now("created_at"),
)

account_entries = Table(
    "account_entries",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    _account(),
    Column("key", Text, nullable=False, unique=True),
    Column(
        "kind",
        Text,
        CheckConstraint("kind IN ('top_up', 'debit', 'refund', 'correction')", name="kind"),
        nullable=False,
    ),
    Column("amount_minor", BigInteger, nullable=False),
    Column("balance_minor", BigInteger, nullable=False),
    Column("transaction_id", Integer),
    Column("note", Text),
    _at("recorded_at", nullable=False),
    Index("account_entries_account_id_id_idx", "account_id", "id"),
)

rentals = Table(
    "rentals",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    _account(),
    Column("charger_id", String(collation="C"), nullable=False),
    Column("connector_id", Integer, nullable=False),
    Column("origin", Text, nullable=False),
    Column(
        "state",
        Text,
        CheckConstraint("state IN ('held', 'running', 'ended', 'released')", name="state"),
        nullable=False,
    ),
    Column("hold_minor", BigInteger, nullable=False),
    Column("dynamic", Boolean, nullable=False),
    Column("free_s", Integer, nullable=False),
    _at("held_at", nullable=False),
    _at("expires_at"),
    Column("transaction_id", Integer, unique=True),
    Column("debited_minor", BigInteger, nullable=False),
    Column("debits", Integer, nullable=False),
    _at("ended_at"),
    # One rental a user that we have let begin; what others have begun is paid all the same.
    Index(
        "rentals_open_account_key",
        "account_id",
        unique=True,
        postgresql_where=text("ended_at IS NULL AND origin = 'csms'"),
    ),
    Index("rentals_open_charger_idx", "charger_id", postgresql_where=text("ended_at IS NULL")),
    Index("rentals_account_id_id_idx", "account_id", "id"),
)

# `kind`: link (used once) or session. Only a digest of the secret is kept.
account_tokens = Table(
    "account_tokens",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    _account(),
    Column("kind", Text, CheckConstraint("kind IN ('link', 'session')", name="kind"), nullable=False),
    _at("expires_at", nullable=False),
    _at("used_at"),
    _now("created_at"),
    Index("account_tokens_expires_at_idx", "expires_at"),
)

payments = Table(
    "payments",
    metadata,
    Column("id", Text, primary_key=True),
    _account(),
    Column("provider", Text, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    Column(
        "state", Text, CheckConstraint("state IN ('pending', 'paid', 'failed')", name="state"), nullable=False
    ),
    _now("created_at"),
    _at("settled_at"),
    Index("payments_account_id_idx", "account_id"),
)
