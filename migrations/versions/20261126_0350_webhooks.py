"""Webhooks with their deliveries, mails about them, and room for second factors that are kept encrypted."""

import sqlalchemy as sa
from alembic import op

revision = "0852bed16fa4"
down_revision = "f741adc05e93"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "webhooks",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("url", sa.String(), nullable=False),
        sa.Column("description", sa.String(), nullable=True),
        sa.Column("actions", sa.ARRAY(sa.String(length=100)), nullable=True),
        sa.Column("secret", sa.LargeBinary(), nullable=False),
        sa.Column("previous_secret", sa.LargeBinary(), nullable=True),
        sa.Column("previous_secret_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("enabled", sa.Boolean(), server_default="true", nullable=False),
        sa.Column("disabled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("disabled_reason", sa.String(length=20), nullable=True),
        sa.Column("delivered_seq", sa.BigInteger(), nullable=False),
        sa.Column("replay_seq", sa.BigInteger(), nullable=True),
        sa.Column("replay_until", sa.BigInteger(), nullable=True),
        sa.Column("redelivering", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("slow", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("lease_id", sa.Uuid(), nullable=True),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("failing_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_error", sa.String(length=50), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("team_id", sa.Uuid(), nullable=False),
        sa.CheckConstraint("(replay_seq IS NULL) = (replay_until IS NULL)", name=op.f("ck_webhooks_replay")),
        sa.CheckConstraint(
            "(previous_secret IS NULL) = (previous_secret_expires_at IS NULL)",
            name=op.f("ck_webhooks_previous_secret"),
        ),
        sa.ForeignKeyConstraint(
            ["team_id"], ["teams.id"], name=op.f("fk_webhooks_team_id_teams"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_webhooks_user_id_users")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhooks")),
        sa.UniqueConstraint("team_id", "id", name=op.f("uq_webhooks_team_id_id")),
    )
    op.create_index(
        "ix_webhooks_enabled", "webhooks", ["due_at"], unique=False, postgresql_where=sa.text("enabled")
    )
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("webhook_id", sa.Uuid(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("action", sa.String(length=100), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("requested", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("last_status", sa.Integer(), nullable=True),
        sa.Column("last_error", sa.String(length=50), nullable=True),
        sa.Column("duration_ms", sa.Integer(), nullable=True),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column(
            "attempted_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("team_id", sa.Uuid(), nullable=False),
        sa.CheckConstraint(
            "state IN ('pending', 'delivered', 'dead')", name=op.f("ck_webhook_deliveries_state")
        ),
        sa.ForeignKeyConstraint(
            ["team_id", "webhook_id"],
            ["webhooks.team_id", "webhooks.id"],
            name=op.f("fk_webhook_deliveries_team_id_webhook_id_webhooks"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["team_id"], ["teams.id"], name=op.f("fk_webhook_deliveries_team_id_teams"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_deliveries")),
        sa.UniqueConstraint(
            "team_id", "webhook_id", "seq", name=op.f("uq_webhook_deliveries_team_id_webhook_id_seq")
        ),
    )
    op.create_index(
        "ix_webhook_deliveries_attempted_at", "webhook_deliveries", ["attempted_at"], unique=False
    )
    op.create_index(
        "ix_webhook_deliveries_open",
        "webhook_deliveries",
        ["webhook_id", "seq"],
        unique=False,
        postgresql_where=sa.text("state <> 'delivered'"),
    )
    op.add_column("mails", sa.Column("webhook_id", sa.Uuid(), nullable=True))
    op.create_foreign_key(
        op.f("fk_mails_webhook_id_webhooks"), "mails", "webhooks", ["webhook_id"], ["id"], ondelete="CASCADE"
    )
    op.create_index(op.f("ix_mails_webhook_id"), "mails", ["webhook_id"], unique=False)
    op.alter_column("second_factors", "secret", type_=sa.String(length=200))


def downgrade() -> None:
    # What is encrypted does not fit any more; those people set their second factor up anew.
    op.execute("DELETE FROM second_factors WHERE length(secret) > 64")
    op.alter_column("second_factors", "secret", type_=sa.String(length=64))
    op.drop_index(op.f("ix_mails_webhook_id"), table_name="mails")
    op.drop_column("mails", "webhook_id")
    op.drop_table("webhook_deliveries")
    op.drop_table("webhooks")
