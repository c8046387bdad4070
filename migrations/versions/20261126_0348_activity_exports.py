"""Exports of the activity log as files that a worker writes, and the hours in which its readers were noted."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "e6309cbf4d82"
down_revision = "d52f8bae3c71"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "activity_exports",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("agent_id", sa.Uuid(), nullable=True),
        sa.Column("session_id", sa.Uuid(), nullable=True),
        sa.Column("api_key_id", sa.Uuid(), nullable=True),
        sa.Column("format", sa.String(length=10), nullable=False),
        sa.Column("proof", sa.Boolean(), nullable=False),
        sa.Column("descending", sa.Boolean(), nullable=False),
        sa.Column("filters", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("state", sa.String(length=10), server_default="pending", nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("attempt_id", sa.Uuid(), nullable=True),
        sa.Column("due_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("rows", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("percent", sa.Integer(), server_default="0", nullable=False),
        sa.Column("error", sa.String(), nullable=True),
        sa.Column("size", sa.BigInteger(), nullable=True),
        sa.Column("sha256", sa.LargeBinary(), nullable=True),
        sa.Column("token_hash", sa.LargeBinary(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("team_id", sa.Uuid(), nullable=False),
        sa.CheckConstraint("format IN ('ndjson', 'csv')", name=op.f("ck_activity_exports_format")),
        sa.CheckConstraint(
            "state IN ('pending', 'running', 'completed', 'failed', 'expired')",
            name=op.f("ck_activity_exports_state"),
        ),
        sa.CheckConstraint(
            "(session_id IS NULL) <> (api_key_id IS NULL)", name=op.f("ck_activity_exports_credential")
        ),
        sa.CheckConstraint("percent BETWEEN 0 AND 100", name=op.f("ck_activity_exports_percent")),
        sa.CheckConstraint(
            "state <> 'completed' OR (sha256 IS NOT NULL AND size IS NOT NULL AND expires_at IS NOT NULL)",
            name=op.f("ck_activity_exports_completed"),
        ),
        sa.ForeignKeyConstraint(
            ["team_id"], ["teams.id"], name=op.f("fk_activity_exports_team_id_teams"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_activity_exports_user_id_users")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_activity_exports")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_activity_exports_token_hash")),
    )
    op.create_index("ix_activity_exports_team_id", "activity_exports", ["team_id", "id"])
    op.create_index(op.f("ix_activity_exports_user_id"), "activity_exports", ["user_id"])
    op.create_index(
        "ix_activity_exports_due",
        "activity_exports",
        ["due_at"],
        postgresql_where=sa.text("state IN ('pending', 'running')"),
    )
    op.create_table(
        "activity_reads",
        sa.Column("reader_id", sa.Uuid(), nullable=False),
        sa.Column("hour", sa.DateTime(timezone=True), nullable=False),
        sa.Column("team_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["team_id"], ["teams.id"], name=op.f("fk_activity_reads_team_id_teams"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("team_id", "reader_id", name=op.f("pk_activity_reads")),
    )
    op.create_index(op.f("ix_activity_reads_hour"), "activity_reads", ["hour"])


def downgrade() -> None:
    op.drop_table("activity_reads")  # their indexes go with them
    op.drop_table("activity_exports")
