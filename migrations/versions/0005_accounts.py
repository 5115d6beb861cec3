"""accounts: balances, entries, rentals, sign-in, payments; who pays for a transaction

Revision: 0005
Follows: 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_C = sa.String(collation="C")
_AT = sa.DateTime(timezone=True)


def _account() -> sa.Column[str]:
    return sa.Column("account_id", _C, nullable=False)


def _to_account(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f(f"{table}_account_id_fkey"))


def upgrade() -> None:
    op.add_column("transactions", sa.Column("account_id", _C, nullable=True))
    op.create_table(
        "accounts",
        sa.Column("id", _C, nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("balance_minor", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("blocked", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("created_at", _AT, server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("accounts_pkey")),
    )
    op.create_table(
        "account_entries",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        _account(),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("balance_minor", sa.BigInteger(), nullable=False),
        sa.Column("transaction_id", sa.Integer(), nullable=True),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("recorded_at", _AT, nullable=False),
        sa.CheckConstraint(
            "kind IN ('top_up', 'debit', 'refund', 'correction')", name=op.f("account_entries_kind_check")
        ),
        _to_account("account_entries"),
        sa.PrimaryKeyConstraint("id", name=op.f("account_entries_pkey")),
        sa.UniqueConstraint("key", name=op.f("account_entries_key_key")),
    )
    op.create_index("account_entries_account_id_id_idx", "account_entries", ["account_id", "id"])
    op.create_table(
        "rentals",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        _account(),
        sa.Column("charger_id", _C, nullable=False),
        sa.Column("connector_id", sa.Integer(), nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("hold_minor", sa.BigInteger(), nullable=False),
        sa.Column("dynamic", sa.Boolean(), nullable=False),
        sa.Column("free_s", sa.Integer(), nullable=False),
        sa.Column("held_at", _AT, nullable=False),
        sa.Column("expires_at", _AT, nullable=True),
        sa.Column("transaction_id", sa.Integer(), nullable=True),
        sa.Column("debited_minor", sa.BigInteger(), nullable=False),
        sa.Column("debits", sa.Integer(), nullable=False),
        sa.Column("ended_at", _AT, nullable=True),
        sa.CheckConstraint(
            "state IN ('held', 'running', 'ended', 'released')", name=op.f("rentals_state_check")
        ),
        _to_account("rentals"),
        sa.PrimaryKeyConstraint("id", name=op.f("rentals_pkey")),
        sa.UniqueConstraint("transaction_id", name=op.f("rentals_transaction_id_key")),
    )
    op.create_index(
        "rentals_open_account_key",
        "rentals",
        ["account_id"],
        unique=True,
        postgresql_where=sa.text("ended_at IS NULL AND origin = 'csms'"),
    )
    op.create_index(
        "rentals_open_charger_idx",
        "rentals",
        ["charger_id"],
        postgresql_where=sa.text("ended_at IS NULL"),
    )
    op.create_index("rentals_account_id_id_idx", "rentals", ["account_id", "id"])
    op.create_table(
        "account_tokens",
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        _account(),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("expires_at", _AT, nullable=False),
        sa.Column("used_at", _AT, nullable=True),
        sa.Column("created_at", _AT, server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("kind IN ('link', 'session')", name=op.f("account_tokens_kind_check")),
        _to_account("account_tokens"),
        sa.PrimaryKeyConstraint("digest", name=op.f("account_tokens_pkey")),
    )
    op.create_index("account_tokens_expires_at_idx", "account_tokens", ["expires_at"])
    op.create_table(
        "payments",
        sa.Column("id", sa.Text(), nullable=False),
        _account(),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("created_at", _AT, server_default=sa.text("now()"), nullable=False),
        sa.Column("settled_at", _AT, nullable=True),
        sa.CheckConstraint("state IN ('pending', 'paid', 'failed')", name=op.f("payments_state_check")),
        _to_account("payments"),
        sa.PrimaryKeyConstraint("id", name=op.f("payments_pkey")),
    )
    op.create_index("payments_account_id_idx", "payments", ["account_id"])


def downgrade() -> None:
    for table in ("payments", "account_tokens", "rentals", "account_entries", "accounts"):
        op.drop_table(table)
    op.drop_column("transactions", "account_id")
