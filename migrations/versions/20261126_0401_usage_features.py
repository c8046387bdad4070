"""Reservations of tokens, backfill sets and what is staged in them; an index of the storage's changes."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "2a74d00f38b6"
down_revision = "1963cfe27ab5"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "usage_reservations",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("external_id", sa.String(length=200), nullable=False),
        sa.Column("metric", sa.String(length=50), nullable=False),
        sa.Column("quantity", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(length=20), server_default="open", nullable=False),
        sa.Column("model", sa.String(length=200), nullable=True),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("agent_id", sa.Uuid(), nullable=True),
        sa.Column("api_key_id", sa.Uuid(), nullable=True),
        sa.Column("workspace_id", sa.Uuid(), nullable=True),
        sa.Column("task_id", sa.Uuid(), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("tokens", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("settled_model", sa.String(length=200), nullable=True),
        sa.Column("team_id", sa.Uuid(), nullable=False),
        sa.CheckConstraint("metric = 'llm_tokens_used'", name=op.f("ck_usage_reservations_metric")),
        sa.CheckConstraint("quantity > 0", name=op.f("ck_usage_reservations_quantity")),
        sa.CheckConstraint(
            "state IN ('open', 'settled', 'released', 'unsettled')", name=op.f("ck_usage_reservations_state")
        ),
        sa.CheckConstraint(
            "(state IN ('settled', 'released')) = (ended_at IS NOT NULL)",
            name=op.f("ck_usage_reservations_ended_at"),
        ),
        sa.CheckConstraint(
            "(state = 'settled') = (tokens IS NOT NULL)", name=op.f("ck_usage_reservations_tokens")
        ),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_usage_reservations_user_id_users")),
        sa.ForeignKeyConstraint(
            ["team_id"], ["teams.id"], name=op.f("fk_usage_reservations_team_id_teams"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_usage_reservations")),
        sa.UniqueConstraint("team_id", "external_id", name=op.f("uq_usage_reservations_team_id_external_id")),
    )
    op.create_index(
        "ix_usage_reservations_expires_at",
        "usage_reservations",
        ["expires_at"],
        postgresql_where=sa.text("state = 'open'"),
    )
    op.create_index(
        "ix_usage_reservations_unsettled",
        "usage_reservations",
        ["team_id", "created_at"],
        postgresql_where=sa.text("state IN ('open', 'unsettled')"),
    )
    op.create_table(
        "usage_backfills",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("reason", sa.String(length=500), nullable=False),
        sa.Column("state", sa.String(length=20), server_default="open", nullable=False),
        sa.Column("created_by", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("applied_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reverted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("team_id", sa.Uuid(), nullable=False),
        sa.CheckConstraint("state IN ('open', 'applied', 'reverted')", name=op.f("ck_usage_backfills_state")),
        sa.CheckConstraint(
            "(state = 'open') = (applied_at IS NULL)", name=op.f("ck_usage_backfills_applied_at")
        ),
        sa.CheckConstraint(
            "(state = 'reverted') = (reverted_at IS NOT NULL)", name=op.f("ck_usage_backfills_reverted_at")
        ),
        sa.ForeignKeyConstraint(
            ["created_by"], ["users.id"], name=op.f("fk_usage_backfills_created_by_users")
        ),
        sa.ForeignKeyConstraint(
            ["team_id"], ["teams.id"], name=op.f("fk_usage_backfills_team_id_teams"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_usage_backfills")),
        sa.UniqueConstraint("team_id", "id", name=op.f("uq_usage_backfills_team_id_id")),
    )
    op.create_table(
        "usage_backfill_events",
        sa.Column("backfill_id", sa.Uuid(), nullable=False),
        sa.Column("external_id", sa.String(length=200), nullable=False),
        sa.Column("metric", sa.String(length=50), nullable=False),
        sa.Column("quantity", sa.BigInteger(), nullable=False),
        sa.Column("occurred_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("team_id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=True),
        sa.Column("agent_id", sa.Uuid(), nullable=True),
        sa.Column("api_key_id", sa.Uuid(), nullable=True),
        sa.Column("workspace_id", sa.Uuid(), nullable=True),
        sa.Column("model", sa.String(length=200), nullable=True),
        sa.Column("part", sa.String(length=20), nullable=True),
        sa.ForeignKeyConstraint(
            ["team_id", "backfill_id"],
            ["usage_backfills.team_id", "usage_backfills.id"],
            name=op.f("fk_usage_backfill_events_team_id_backfill_id_usage_backfills"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["team_id"], ["teams.id"], name=op.f("fk_usage_backfill_events_team_id_teams"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("backfill_id", "external_id", name=op.f("pk_usage_backfill_events")),
    )
    op.create_index("ix_usage_backfill_events_team_id", "usage_backfill_events", ["team_id"])
    op.create_index(
        "ix_usage_ledger_storage",
        "usage_ledger",
        ["team_id", "occurred_at"],
        postgresql_include=["quantity"],
        postgresql_where=sa.text("metric = 'storage_bytes'"),
    )


def downgrade() -> None:
    op.drop_index("ix_usage_ledger_storage", table_name="usage_ledger")
    op.drop_table("usage_backfill_events")
    op.drop_table("usage_backfills")
    op.drop_table("usage_reservations")
