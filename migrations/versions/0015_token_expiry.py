"""token expiry: when tokens end and were last used, revoked ones of a name, sessions of the console

Revision: 0015
Follows: 0014
"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Nullable and without a default: no row is rewritten, and a node of the release before leaves them NULL.
    op.add_column("tokens", sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("tokens", sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True))
    op.drop_constraint("tokens_name_key", "tokens", type_="unique")
    op.create_index(
        "tokens_name_idx", "tokens", ["name"], unique=True, postgresql_where=sa.text("revoked_at IS NULL")
    )
    op.create_table(
        "console_sessions",
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("token_id", sa.Integer(), nullable=True),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "role IN ('admin', 'operator', 'viewer')", name=op.f("console_sessions_role_check")
        ),
        sa.ForeignKeyConstraint(
            ["token_id"], ["tokens.id"], name="console_sessions_token_id_fkey", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("digest", name="console_sessions_pkey"),
    )
    op.create_index("console_sessions_expires_at_idx", "console_sessions", ["expires_at"])
    op.create_index("console_sessions_token_id_idx", "console_sessions", ["token_id"])


def downgrade() -> None:
    op.drop_table("console_sessions")
    op.drop_index("tokens_name_idx", "tokens")
    # The release before knows one token of a name, and no expiry: what has expired must not be valid again.
    op.execute("UPDATE tokens SET revoked_at = expires_at WHERE revoked_at IS NULL AND expires_at <= now()")
    op.execute(
        "DELETE FROM tokens AS older USING tokens AS newer"
        " WHERE older.name = newer.name AND older.revoked_at IS NOT NULL"
        " AND (newer.revoked_at IS NULL OR newer.id > older.id)"
    )
    op.create_unique_constraint("tokens_name_key", "tokens", ["name"])
    op.drop_column("tokens", "last_used_at")
    op.drop_column("tokens", "expires_at")
