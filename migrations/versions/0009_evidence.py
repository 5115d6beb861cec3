"""evidence: the register of a session, held bills, revisions, the accounting time

Revision: 0009
Follows: 0008
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_INDEXES = {
    "transactions_accounting_at_idx": ["accounting_at", "id"],
    "transactions_charger_id_accounting_at_idx": ["charger_id", "accounting_at", "id"],
}


def upgrade() -> None:
    op.add_column("chargers", sa.Column("max_power_w", sa.Integer(), nullable=True))
    op.create_check_constraint(op.f("chargers_max_power_w_check"), "chargers", "max_power_w > 0")
    op.add_column("connectors", sa.Column("register", postgresql.JSONB(none_as_null=True), nullable=True))
    # A node of the release before writes none of these columns: the defaults hold for its rows.
    op.add_column(
        "transactions",
        sa.Column(
            "accounting_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
    )
    op.add_column("transactions", sa.Column("billing", sa.Text(), nullable=True))
    op.add_column(
        "transactions",
        sa.Column("held_because", postgresql.ARRAY(sa.Text()), server_default="{}", nullable=False),
    )
    op.add_column("transactions", sa.Column("register", postgresql.JSONB(none_as_null=True), nullable=True))
    op.create_check_constraint(
        op.f("transactions_billing_check"), "transactions", "billing IN ('billed', 'held', 'void')"
    )
    op.create_table(
        "transaction_revisions",
        sa.Column("transaction_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("revision", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("state", postgresql.JSONB(), nullable=False),
        sa.PrimaryKeyConstraint("transaction_id", "revision", name=op.f("transaction_revisions_pkey")),
    )
    # As csms/core/clocks.py: the charger's time, that of receipt where the charger's is suspect.
    op.execute(
        "UPDATE transactions SET billing = CASE WHEN stopped_at IS NOT NULL THEN 'billed' END,"
        " accounting_at = CASE WHEN started_at < '2015-01-01Z'"
        " OR started_at > start_received_at + interval '5 minutes' THEN start_received_at ELSE started_at END"
    )
    for name, columns in _INDEXES.items():
        op.create_index(name, "transactions", columns)
    op.create_index(
        "transactions_held_idx", "transactions", ["id"], postgresql_where=sa.text("billing = 'held'")
    )


def downgrade() -> None:
    op.drop_index("transactions_held_idx", "transactions")
    for name in _INDEXES:
        op.drop_index(name, "transactions")
    op.drop_table("transaction_revisions")
    for table, columns in (
        ("transactions", ("register", "held_because", "billing", "accounting_at")),
        ("connectors", ("register",)),
        ("chargers", ("max_power_w",)),
    ):
        for column in columns:
            op.drop_column(table, column)
