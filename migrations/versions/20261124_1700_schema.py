"""The schema: the guide's six tables, with users, sessions, tasks, the outbox and the ledger."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "69b41afd1254"
down_revision = None
branch_labels = None
depends_on = None


# The built-in roles (spec of the interface: "Permissions"); admins have all.
ACTIONS = {
    "teams": "read update delete transfer",
    "members": "read create update delete",
    "workspaces": "read create update delete",
    "tasks": "read create update delete",
    "activity": "read",
    "usage": "read create",
    "billing": "read update",
    "roles": "read create update delete",
    "api_keys": "read create delete",
    "webhooks": "read create update delete",
    "realtime": "read publish",
}
VIEWER = {
    "teams": "read",
    "members": "read",
    "workspaces": "read",
    "tasks": "read",
    "activity": "read",
    "usage": "read",
    "roles": "read",
    "realtime": "read",
}
MEMBER = {
    **VIEWER,
    "workspaces": "read create update",
    "tasks": "read create update delete",
    "usage": "read create",
    "realtime": "read publish",
}
ROLES = {"admin": ACTIONS, "member": MEMBER, "viewer": VIEWER}

# PostgreSQL has uuidv7() from 18 on; we run on 15 as well. RFC 9562, 5.7: 48 bits of milliseconds, version, random.
UUID7 = """
CREATE FUNCTION uuid7() RETURNS uuid LANGUAGE sql VOLATILE PARALLEL SAFE AS $$
  SELECT encode(
    set_bit(set_bit(
      overlay(uuid_send(gen_random_uuid())
              PLACING substring(int8send((extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3) FROM 1 FOR 6),
      52, 1), 53, 1),
    'hex')::uuid
$$
"""

# One partition a month, named by it. Made ahead by a job; what falls outside lands in the default one, never nowhere, and
# moves when its month is made: a partition can't be added while the default one holds its rows.
ENSURE_PARTITIONS = """
CREATE FUNCTION ensure_activity_partitions(first_day date, months int) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  month date := date_trunc('month', first_day)::date;
  name text;
  starts timestamptz;
  ends timestamptz;
BEGIN
  PERFORM pg_advisory_xact_lock(4117031978);  -- one maker at a time; another finds the tables made
  FOR i IN 1..months LOOP
    name := to_char(month, '"activity_logs_y"YYYY"m"MM');
    IF to_regclass(name) IS NULL THEN
      starts := month::timestamp AT TIME ZONE 'UTC';
      ends := (month + interval '1 month') AT TIME ZONE 'UTC';
      -- Inserts wait here, and then find the new partition; past this point they would have chosen the default one.
      LOCK TABLE ONLY activity_logs IN SHARE ROW EXCLUSIVE MODE;
      EXECUTE format('CREATE TABLE %I (LIKE activity_logs INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', name);
      LOCK TABLE activity_logs_default IN ACCESS EXCLUSIVE MODE;  -- as ATTACH will need it, but before the move
      EXECUTE format('WITH moved AS (DELETE FROM activity_logs_default WHERE created_at >= %L AND created_at < %L RETURNING *)
                      INSERT INTO %I SELECT * FROM moved', starts, ends, name);
      EXECUTE format('ALTER TABLE activity_logs ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', name, starts, ends);
    END IF;
    month := (month + interval '1 month')::date;
  END LOOP;
END
$$
"""


def upgrade() -> None:
    op.execute(UUID7)
    op.create_table(
        "idempotency_keys",
        sa.Column("scope", sa.LargeBinary(), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=True),
        sa.Column("etag", sa.String(), nullable=True),
        sa.Column("resource_id", sa.Uuid(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("scope", "key", name=op.f("pk_idempotency_keys")),
    )
    op.create_index(op.f("ix_idempotency_keys_created_at"), "idempotency_keys", ["created_at"], unique=False)
    op.create_table(
        "users",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("email", sa.String(length=320), nullable=False),
        sa.Column("email_normalized", sa.String(length=320), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("password_hash", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_users")),
        sa.UniqueConstraint("email_normalized", name=op.f("uq_users_email_normalized")),
    )
    op.create_table(
        "sessions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("ip_address", postgresql.INET(), nullable=True),
        sa.Column("user_agent", sa.String(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column(
            "last_used_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_sessions_user_id_users"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sessions")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_sessions_token_hash")),
    )
    op.create_index(op.f("ix_sessions_user_id"), "sessions", ["user_id"], unique=False)
    op.create_table(
        "teams",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("plan", sa.String(length=50), server_default="free", nullable=False),
        sa.Column("max_members", sa.Integer(), server_default="5", nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("plan IN ('free', 'pro', 'enterprise')", name=op.f("ck_teams_plan")),
        sa.CheckConstraint("max_members > 0", name=op.f("ck_teams_max_members")),
        sa.ForeignKeyConstraint(["owner_id"], ["users.id"], name=op.f("fk_teams_owner_id_users")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_teams")),
    )
    op.create_index(op.f("ix_teams_owner_id"), "teams", ["owner_id"], unique=False)
    op.create_table(
        "activity_heads",
        sa.Column("team_id", sa.Uuid(), nullable=False),
        sa.Column("seq", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(["team_id"], ["teams.id"], name=op.f("fk_activity_heads_team_id_teams")),
        sa.PrimaryKeyConstraint("team_id", name=op.f("pk_activity_heads")),
    )
    op.create_table(
        "activity_logs",
        sa.Column("team_id", sa.Uuid(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=True),
        sa.Column("action", sa.String(length=100), nullable=False),
        sa.Column("resource_type", sa.String(length=50), nullable=False),
        sa.Column("resource_id", sa.Uuid(), nullable=False),
        sa.Column("resource_name", sa.String(), nullable=True),
        sa.Column("metadata", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("request_id", sa.String(), nullable=True),
        sa.Column("ip_address", postgresql.INET(), nullable=True),
        sa.Column("user_agent", sa.String(), nullable=True),
        sa.Column("origin_salt", sa.LargeBinary(), nullable=True),
        sa.Column("origin_hash", sa.LargeBinary(), nullable=True),
        sa.Column("hash", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(["team_id"], ["teams.id"], name=op.f("fk_activity_logs_team_id_teams")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_activity_logs_user_id_users")),
        sa.PrimaryKeyConstraint("team_id", "seq", "created_at", name=op.f("pk_activity_logs")),
        postgresql_partition_by="RANGE (created_at)",
    )
    op.create_index("ix_activity_logs_action", "activity_logs", ["team_id", "action", "seq"], unique=False)
    op.create_index("ix_activity_logs_created_at", "activity_logs", ["team_id", "created_at"], unique=False)
    op.create_index(
        "ix_activity_logs_resource",
        "activity_logs",
        ["team_id", "resource_type", "resource_id", "seq"],
        unique=False,
    )
    op.create_index("ix_activity_logs_user", "activity_logs", ["team_id", "user_id", "seq"], unique=False)
    op.create_table(
        "outbox",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("team_id", sa.Uuid(), nullable=False),
        sa.Column("action", sa.String(length=100), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=True),
        sa.Column("resource_type", sa.String(length=50), nullable=False),
        sa.Column("resource_id", sa.Uuid(), nullable=False),
        sa.Column("resource_name", sa.String(), nullable=True),
        sa.Column("details", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("ip_address", postgresql.INET(), nullable=True),
        sa.Column("user_agent", sa.String(), nullable=True),
        sa.Column("request_id", sa.String(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["team_id"], ["teams.id"], name=op.f("fk_outbox_team_id_teams"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
        postgresql_with={"autovacuum_vacuum_scale_factor": "0", "autovacuum_vacuum_threshold": "1000"},
    )
    op.create_index("ix_outbox_team_id_id", "outbox", ["team_id", "id"], unique=False)
    op.create_table(
        "permissions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("team_id", sa.Uuid(), nullable=True),
        sa.Column("role", sa.String(length=50), nullable=False),
        sa.Column("resource", sa.String(length=50), nullable=False),
        sa.Column("action", sa.String(length=50), nullable=False),
        sa.Column("allowed", sa.Boolean(), server_default="true", nullable=False),
        sa.ForeignKeyConstraint(
            ["team_id"], ["teams.id"], name=op.f("fk_permissions_team_id_teams"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_permissions")),
        sa.UniqueConstraint(
            "role",
            "team_id",
            "resource",
            "action",
            name=op.f("uq_permissions_role_team_id_resource_action"),
            postgresql_nulls_not_distinct=True,
        ),
    )
    op.create_index(op.f("ix_permissions_team_id"), "permissions", ["team_id"], unique=False)
    op.create_table(
        "team_members",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("role", sa.String(length=50), nullable=False),
        sa.Column("joined_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("team_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["team_id"], ["teams.id"], name=op.f("fk_team_members_team_id_teams"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_team_members_user_id_users"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_team_members")),
        sa.UniqueConstraint("team_id", "user_id", name=op.f("uq_team_members_team_id_user_id")),
    )
    op.create_index(op.f("ix_team_members_user_id"), "team_members", ["user_id"], unique=False)
    op.create_table(
        "usage_ledger",
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuid7()"), nullable=False),
        sa.Column("key", sa.String(length=300), nullable=False),
        sa.Column("metric", sa.String(length=50), nullable=False),
        sa.Column("quantity", sa.BigInteger(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=True),
        sa.Column("occurred_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("team_id", sa.Uuid(), nullable=False),
        sa.CheckConstraint(
            "metric IN ('tasks_created', 'tasks_completed', 'llm_tokens_used', 'api_calls', 'storage_bytes')",
            name=op.f("ck_usage_ledger_metric"),
        ),
        sa.CheckConstraint(
            "quantity > 0 OR (metric = 'storage_bytes' AND quantity <> 0)",
            name=op.f("ck_usage_ledger_quantity"),
        ),
        sa.ForeignKeyConstraint(
            ["team_id"], ["teams.id"], name=op.f("fk_usage_ledger_team_id_teams"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_usage_ledger_user_id_users")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_usage_ledger")),
        sa.UniqueConstraint("team_id", "key", name=op.f("uq_usage_ledger_team_id_key")),
    )
    op.create_index("ix_usage_ledger_occurred_at", "usage_ledger", ["team_id", "occurred_at"], unique=False)
    op.create_table(
        "usage_stats",
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuid7()"), nullable=False),
        sa.Column("date", sa.Date(), nullable=False),
        sa.Column("tasks_created", sa.Numeric(), server_default="0", nullable=False),
        sa.Column("tasks_completed", sa.Numeric(), server_default="0", nullable=False),
        sa.Column("llm_tokens_used", sa.Numeric(), server_default="0", nullable=False),
        sa.Column("api_calls", sa.Numeric(), server_default="0", nullable=False),
        sa.Column("storage_bytes", sa.Numeric(), server_default="0", nullable=False),
        sa.Column("team_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["team_id"], ["teams.id"], name=op.f("fk_usage_stats_team_id_teams"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_usage_stats")),
        sa.UniqueConstraint("team_id", "date", name=op.f("uq_usage_stats_team_id_date")),
    )
    op.create_table(
        "workspaces",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("description", sa.String(), nullable=True),
        sa.Column("created_by", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("team_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(["created_by"], ["users.id"], name=op.f("fk_workspaces_created_by_users")),
        sa.ForeignKeyConstraint(
            ["team_id"], ["teams.id"], name=op.f("fk_workspaces_team_id_teams"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workspaces")),
        sa.UniqueConstraint("team_id", "id", name=op.f("uq_workspaces_team_id_id")),
    )
    op.create_table(
        "tasks",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("title", sa.String(length=500), nullable=False),
        sa.Column("prompt", sa.String(), nullable=True),
        sa.Column("type", sa.String(length=50), server_default="general", nullable=False),
        sa.Column("status", sa.String(length=20), server_default="pending", nullable=False),
        sa.Column("assignee_id", sa.Uuid(), nullable=True),
        sa.Column("result", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("error", sa.String(), nullable=True),
        sa.Column("llm_tokens_used", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("created_by", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("team_id", sa.Uuid(), nullable=False),
        sa.CheckConstraint("(error IS NOT NULL) = (status = 'failed')", name=op.f("ck_tasks_error")),
        sa.CheckConstraint(
            "(finished_at IS NOT NULL) = (status IN ('completed', 'failed', 'cancelled'))",
            name=op.f("ck_tasks_finished"),
        ),
        sa.CheckConstraint("result IS NULL OR status = 'completed'", name=op.f("ck_tasks_result")),
        sa.CheckConstraint(
            "status IN ('pending', 'processing', 'completed', 'failed', 'cancelled')",
            name=op.f("ck_tasks_status"),
        ),
        sa.CheckConstraint("llm_tokens_used >= 0", name=op.f("ck_tasks_llm_tokens_used")),
        sa.ForeignKeyConstraint(["created_by"], ["users.id"], name=op.f("fk_tasks_created_by_users")),
        sa.ForeignKeyConstraint(
            ["team_id", "assignee_id"],
            ["team_members.team_id", "team_members.user_id"],
            name=op.f("fk_tasks_team_id_assignee_id_team_members"),
            ondelete="SET NULL (assignee_id)",
        ),
        sa.ForeignKeyConstraint(
            ["team_id", "workspace_id"],
            ["workspaces.team_id", "workspaces.id"],
            name=op.f("fk_tasks_team_id_workspace_id_workspaces"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["team_id"], ["teams.id"], name=op.f("fk_tasks_team_id_teams"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tasks")),
    )
    op.create_index("ix_tasks_assignee", "tasks", ["team_id", "assignee_id"], unique=False)
    op.create_index("ix_tasks_workspace", "tasks", ["team_id", "workspace_id", "id"], unique=False)
    op.create_table(
        "usage_pending",
        sa.Column("ledger_id", sa.Uuid(), nullable=False),
        sa.Column("date", sa.Date(), nullable=False),
        sa.Column("metric", sa.String(length=50), nullable=False),
        sa.Column("quantity", sa.BigInteger(), nullable=False),
        sa.Column("team_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["ledger_id"],
            ["usage_ledger.id"],
            name=op.f("fk_usage_pending_ledger_id_usage_ledger"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["team_id"], ["teams.id"], name=op.f("fk_usage_pending_team_id_teams"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("ledger_id", name=op.f("pk_usage_pending")),
        postgresql_with={"autovacuum_vacuum_scale_factor": "0", "autovacuum_vacuum_threshold": "1000"},
    )
    op.create_index("ix_usage_pending_date", "usage_pending", ["team_id", "date"], unique=False)
    # Deferred, and so last: a team and its owner's membership refer to each other.
    op.create_foreign_key(
        "fk_teams_id_owner_id_team_members",
        "teams",
        "team_members",
        ["id", "owner_id"],
        ["team_id", "user_id"],
        deferrable=True,
        initially="DEFERRED",
    )
    op.execute(ENSURE_PARTITIONS)
    op.execute("CREATE TABLE activity_logs_default PARTITION OF activity_logs DEFAULT")
    op.execute("SELECT ensure_activity_partitions((now() AT TIME ZONE 'UTC')::date, 4)")
    grants = [
        f"(uuid7(), '{role}', '{resource}', '{action}')"
        for role, resources in ROLES.items()
        for resource, actions in resources.items()
        for action in actions.split()
    ]
    op.execute(f"INSERT INTO permissions (id, role, resource, action) VALUES {', '.join(grants)}")  # noqa: S608


def downgrade() -> None:
    op.execute("DROP FUNCTION ensure_activity_partitions(date, int)")
    op.drop_constraint("fk_teams_id_owner_id_team_members", "teams", type_="foreignkey")
    op.drop_index("ix_usage_pending_date", table_name="usage_pending")
    op.drop_table("usage_pending")
    op.drop_index("ix_tasks_workspace", table_name="tasks")
    op.drop_index("ix_tasks_assignee", table_name="tasks")
    op.drop_table("tasks")
    op.drop_table("workspaces")
    op.drop_table("usage_stats")
    op.drop_index("ix_usage_ledger_occurred_at", table_name="usage_ledger")
    op.drop_table("usage_ledger")
    op.drop_index(op.f("ix_team_members_user_id"), table_name="team_members")
    op.drop_table("team_members")
    op.drop_index(op.f("ix_permissions_team_id"), table_name="permissions")
    op.drop_table("permissions")
    op.drop_index("ix_outbox_team_id_id", table_name="outbox")
    op.drop_table("outbox")
    op.drop_index("ix_activity_logs_user", table_name="activity_logs")
    op.drop_index("ix_activity_logs_resource", table_name="activity_logs")
    op.drop_index("ix_activity_logs_created_at", table_name="activity_logs")
    op.drop_index("ix_activity_logs_action", table_name="activity_logs")
    op.drop_table("activity_logs")
    op.drop_table("activity_heads")
    op.drop_index(op.f("ix_teams_owner_id"), table_name="teams")
    op.drop_table("teams")
    op.drop_index(op.f("ix_sessions_user_id"), table_name="sessions")
    op.drop_table("sessions")
    op.drop_table("users")
    op.drop_index(op.f("ix_idempotency_keys_created_at"), table_name="idempotency_keys")
    op.drop_table("idempotency_keys")
    op.execute("DROP FUNCTION uuid7()")
