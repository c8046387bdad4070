"""Invitations, suspension, workspace members, agents and API keys, leases, mails, and what an account needs around it."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "a18430c3f008"
down_revision = "69b41afd1254"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "account_events",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("action", sa.String(length=100), nullable=False),
        sa.Column("details", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("count", sa.Integer(), server_default="1", nullable=False),
        sa.Column("ip_address", postgresql.INET(), nullable=True),
        sa.Column("user_agent", sa.String(), nullable=True),
        sa.Column("request_id", sa.String(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_account_events_user_id_users"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_account_events")),
    )
    op.create_index(op.f("ix_account_events_created_at"), "account_events", ["created_at"], unique=False)
    op.create_index("ix_account_events_user_id", "account_events", ["user_id", "id"], unique=False)
    op.create_table(
        "mailed_tokens",
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("purpose", sa.String(length=50), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "purpose IN ('verify_email', 'reset_password')", name=op.f("ck_mailed_tokens_purpose")
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_mailed_tokens_user_id_users"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("token_hash", name=op.f("pk_mailed_tokens")),
    )
    op.create_index(op.f("ix_mailed_tokens_expires_at"), "mailed_tokens", ["expires_at"], unique=False)
    op.create_index(op.f("ix_mailed_tokens_user_id"), "mailed_tokens", ["user_id"], unique=False)
    op.create_table(
        "second_factors",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("secret", sa.String(length=64), nullable=False),
        sa.Column("confirmed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_step", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column("locked_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_second_factors_user_id_users"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_second_factors")),
    )
    op.create_table(
        "agents",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("description", sa.String(), nullable=True),
        sa.Column("role", sa.String(length=50), nullable=False),
        sa.Column("created_by", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("team_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(["created_by"], ["users.id"], name=op.f("fk_agents_created_by_users")),
        sa.ForeignKeyConstraint(
            ["team_id"], ["teams.id"], name=op.f("fk_agents_team_id_teams"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_agents")),
        sa.UniqueConstraint("team_id", "id", name=op.f("uq_agents_team_id_id")),
        sa.UniqueConstraint("team_id", "name", name=op.f("uq_agents_team_id_name")),
    )
    op.create_table(
        "deleted_workspaces",
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("user_ids", sa.ARRAY(sa.Uuid()), nullable=False),
        sa.Column("team_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["team_id"], ["teams.id"], name=op.f("fk_deleted_workspaces_team_id_teams"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("workspace_id", name=op.f("pk_deleted_workspaces")),
    )
    op.create_index("ix_deleted_workspaces_team_id", "deleted_workspaces", ["team_id"], unique=False)
    op.create_table(
        "invitations",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("email", sa.String(length=320), nullable=False),
        sa.Column("email_normalized", sa.String(length=320), nullable=False),
        sa.Column("role", sa.String(length=50), nullable=False),
        sa.Column("status", sa.String(length=20), server_default="pending", nullable=False),
        sa.Column("invited_by", sa.Uuid(), nullable=False),
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("mailed_token_hash", sa.LargeBinary(), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("team_id", sa.Uuid(), nullable=False),
        sa.CheckConstraint(
            "status IN ('pending', 'accepted', 'revoked', 'expired')", name=op.f("ck_invitations_status")
        ),
        sa.ForeignKeyConstraint(["invited_by"], ["users.id"], name=op.f("fk_invitations_invited_by_users")),
        sa.ForeignKeyConstraint(
            ["team_id"], ["teams.id"], name=op.f("fk_invitations_team_id_teams"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_invitations")),
        sa.UniqueConstraint("mailed_token_hash", name=op.f("uq_invitations_mailed_token_hash")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_invitations_token_hash")),
    )
    op.create_index(
        "ix_invitations_email",
        "invitations",
        ["email_normalized"],
        unique=False,
        postgresql_where=sa.text("status = 'pending'"),
    )
    op.create_index("ix_invitations_team_id", "invitations", ["team_id", "id"], unique=False)
    op.create_index(
        "uq_invitations_pending",
        "invitations",
        ["team_id", "email_normalized"],
        unique=True,
        postgresql_where=sa.text("status = 'pending'"),
    )
    op.create_table(
        "recovery_codes",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("code_hash", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"],
            ["second_factors.user_id"],
            name=op.f("fk_recovery_codes_user_id_second_factors"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("user_id", "code_hash", name=op.f("pk_recovery_codes")),
    )
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("agent_id", sa.Uuid(), nullable=True),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("prefix", sa.String(length=20), nullable=False),
        sa.Column("key_hash", sa.LargeBinary(), nullable=False),
        sa.Column("permissions", sa.ARRAY(sa.String(length=100)), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("team_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["team_id", "agent_id"],
            ["agents.team_id", "agents.id"],
            name=op.f("fk_api_keys_team_id_agent_id_agents"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["team_id", "user_id"],
            ["team_members.team_id", "team_members.user_id"],
            name=op.f("fk_api_keys_team_id_user_id_team_members"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["team_id"], ["teams.id"], name=op.f("fk_api_keys_team_id_teams"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_api_keys_user_id_users")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("key_hash", name=op.f("uq_api_keys_key_hash")),
    )
    op.create_index("ix_api_keys_agent", "api_keys", ["team_id", "agent_id"], unique=False)
    op.create_index("ix_api_keys_user", "api_keys", ["team_id", "user_id"], unique=False)
    op.create_table(
        "mails",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.String(length=50), nullable=False),
        sa.Column("address", sa.String(length=320), nullable=True),
        sa.Column("user_id", sa.Uuid(), nullable=True),
        sa.Column("invitation_id", sa.Uuid(), nullable=True),
        sa.Column("due_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("error", sa.String(), nullable=True),
        sa.Column("failed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["invitation_id"],
            ["invitations.id"],
            name=op.f("fk_mails_invitation_id_invitations"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_mails_user_id_users"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_mails")),
    )
    op.create_index(
        "ix_mails_due", "mails", ["due_at"], unique=False, postgresql_where=sa.text("failed_at IS NULL")
    )
    op.create_index(op.f("ix_mails_invitation_id"), "mails", ["invitation_id"], unique=False)
    op.create_index(op.f("ix_mails_user_id"), "mails", ["user_id"], unique=False)
    op.create_table(
        "workspace_members",
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("role", sa.String(length=50), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("team_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["team_id", "user_id"],
            ["team_members.team_id", "team_members.user_id"],
            name=op.f("fk_workspace_members_team_id_user_id_team_members"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["team_id", "workspace_id"],
            ["workspaces.team_id", "workspaces.id"],
            name=op.f("fk_workspace_members_team_id_workspace_id_workspaces"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["team_id"], ["teams.id"], name=op.f("fk_workspace_members_team_id_teams"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_workspace_members_user_id_users"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("workspace_id", "user_id", name=op.f("pk_workspace_members")),
    )
    op.create_index("ix_workspace_members_user", "workspace_members", ["team_id", "user_id"], unique=False)
    op.add_column("activity_logs", sa.Column("agent_id", sa.Uuid(), nullable=True))
    op.add_column("activity_logs", sa.Column("api_key_id", sa.Uuid(), nullable=True))
    op.add_column("activity_logs", sa.Column("workspace_id", sa.Uuid(), nullable=True))
    op.add_column("outbox", sa.Column("agent_id", sa.Uuid(), nullable=True))
    op.add_column("outbox", sa.Column("api_key_id", sa.Uuid(), nullable=True))
    op.add_column("outbox", sa.Column("workspace_id", sa.Uuid(), nullable=True))
    op.add_column("tasks", sa.Column("attempts", sa.Integer(), server_default="0", nullable=False))
    op.add_column("tasks", sa.Column("agent_id", sa.Uuid(), nullable=True))
    op.add_column("tasks", sa.Column("lease_id", sa.Uuid(), nullable=True))
    op.add_column("tasks", sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index("ix_tasks_agent", "tasks", ["team_id", "agent_id"], unique=False)
    op.create_index(
        "ix_tasks_lease",
        "tasks",
        ["lease_expires_at"],
        unique=False,
        postgresql_where=sa.text("lease_id IS NOT NULL"),
    )
    op.create_index(
        "ix_tasks_pending",
        "tasks",
        ["team_id", "workspace_id", "id"],
        unique=False,
        postgresql_where=sa.text("status = 'pending'"),
    )
    op.create_foreign_key(
        op.f("fk_tasks_team_id_agent_id_agents"),
        "tasks",
        "agents",
        ["team_id", "agent_id"],
        ["team_id", "id"],
        ondelete="SET NULL (agent_id)",
    )
    op.create_check_constraint(
        op.f("ck_tasks_lease"),
        "tasks",
        "(lease_id IS NULL) = (lease_expires_at IS NULL) AND (lease_id IS NULL OR status = 'processing')",
    )
    op.add_column("team_members", sa.Column("suspended_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column(
        "teams", sa.Column("two_factor_required", sa.Boolean(), server_default="false", nullable=False)
    )
    op.add_column("users", sa.Column("email_verified_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column(
        "workspaces", sa.Column("visibility", sa.String(length=20), server_default="team", nullable=False)
    )
    op.create_check_constraint(
        op.f("ck_workspaces_visibility"), "workspaces", "visibility IN ('team', 'private')"
    )


def downgrade() -> None:
    op.drop_column("workspaces", "visibility")
    op.drop_column("users", "email_verified_at")
    op.drop_column("teams", "two_factor_required")
    op.drop_column("team_members", "suspended_at")
    op.drop_constraint(op.f("fk_tasks_team_id_agent_id_agents"), "tasks", type_="foreignkey")
    op.drop_index("ix_tasks_pending", table_name="tasks", postgresql_where=sa.text("status = 'pending'"))
    op.drop_index("ix_tasks_lease", table_name="tasks", postgresql_where=sa.text("lease_id IS NOT NULL"))
    op.drop_index("ix_tasks_agent", table_name="tasks")
    op.drop_constraint(op.f("ck_tasks_lease"), "tasks", type_="check")
    op.drop_column("tasks", "lease_expires_at")
    op.drop_column("tasks", "lease_id")
    op.drop_column("tasks", "agent_id")
    op.drop_column("tasks", "attempts")
    op.drop_column("outbox", "workspace_id")
    op.drop_column("outbox", "api_key_id")
    op.drop_column("outbox", "agent_id")
    op.drop_column("activity_logs", "workspace_id")
    op.drop_column("activity_logs", "api_key_id")
    op.drop_column("activity_logs", "agent_id")
    op.drop_index("ix_workspace_members_user", table_name="workspace_members")
    op.drop_table("workspace_members")
    op.drop_index(op.f("ix_mails_user_id"), table_name="mails")
    op.drop_index(op.f("ix_mails_invitation_id"), table_name="mails")
    op.drop_index("ix_mails_due", table_name="mails", postgresql_where=sa.text("failed_at IS NULL"))
    op.drop_table("mails")
    op.drop_index("ix_api_keys_user", table_name="api_keys")
    op.drop_index("ix_api_keys_agent", table_name="api_keys")
    op.drop_table("api_keys")
    op.drop_table("recovery_codes")
    op.drop_index(
        "uq_invitations_pending", table_name="invitations", postgresql_where=sa.text("status = 'pending'")
    )
    op.drop_index("ix_invitations_team_id", table_name="invitations")
    op.drop_index(
        "ix_invitations_email", table_name="invitations", postgresql_where=sa.text("status = 'pending'")
    )
    op.drop_table("invitations")
    op.drop_index("ix_deleted_workspaces_team_id", table_name="deleted_workspaces")
    op.drop_table("deleted_workspaces")
    op.drop_table("agents")
    op.drop_table("second_factors")
    op.drop_index(op.f("ix_mailed_tokens_user_id"), table_name="mailed_tokens")
    op.drop_index(op.f("ix_mailed_tokens_expires_at"), table_name="mailed_tokens")
    op.drop_table("mailed_tokens")
    op.drop_index("ix_account_events_user_id", table_name="account_events")
    op.drop_index(op.f("ix_account_events_created_at"), table_name="account_events")
    op.drop_table("account_events")
