"""
The activity log, searched and counted: the words of each row, their index, an index for each filter, and the counts.

The words are what `q` looks through: they follow from the row, and so are no part of its digest.
"""

import sqlalchemy as sa
from alembic import op

revision = "d52f8bae3c71"
down_revision = "c41e7a9d2b60"
branch_labels = None
depends_on = None

# Both are trusted extensions: the database's owner may make them. One that was there before is not ours to drop.
MINE = "made by AgentHQ"
EXTENSIONS = ("pg_trgm", "btree_gin")
MAKE_EXTENSION = """
DO $$ BEGIN
  IF NOT EXISTS (SELECT FROM pg_extension WHERE extname = '{name}') THEN
    CREATE EXTENSION {name};
    COMMENT ON EXTENSION {name} IS '{mine}';
  END IF;
END $$
"""
DROP_EXTENSION = """
DO $$ BEGIN
  IF EXISTS (SELECT FROM pg_extension WHERE extname = '{name}' AND obj_description(oid, 'pg_extension') = '{mine}') THEN
    DROP EXTENSION {name};
  END IF;
END $$
"""
# U+FFFF is no character (Unicode, 23.7), and so in no text: it keeps a search from finding the end of one value with the
# beginning of the next. Whole ids are no words: their trigrams would be most of the index. Called in FROM, it is inlined.
WORDS = """
CREATE FUNCTION activity_words(resource_name text, action text, metadata jsonb)
RETURNS TABLE (words text, mentions uuid[]) LANGUAGE sql IMMUTABLE PARALLEL SAFE ROWS 1 AS $$
  SELECT lower(coalesce(resource_name || U&'\\FFFF', '') || action
               || coalesce(U&'\\FFFF' || string_agg(value, U&'\\FFFF') FILTER (WHERE NOT is_id), '')),
         coalesce(array_agg(value::uuid) FILTER (WHERE is_id), '{}')
  FROM (
    SELECT value, length(value) = 36 AND value ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' AS is_id
    FROM (
      SELECT value #>> '{}' AS value
      FROM jsonb_path_query(metadata, 'strict $.** ? (@.type() != "object" && @.type() != "array")') AS value
    ) AS texts WHERE value IS NOT NULL OFFSET 0
  ) AS told
$$
"""
# What was logged before: the trigger that keeps the log append-only knows no such change.
WORDS_OF_THE_PAST = """
ALTER TABLE activity_logs DISABLE TRIGGER append_only;
UPDATE activity_logs l SET words = t.words, mentions = t.mentions
FROM activity_logs o CROSS JOIN LATERAL activity_words(o.resource_name, o.action, o.metadata) t
WHERE o.team_id = l.team_id AND o.seq = l.seq AND o.created_at = l.created_at;
ALTER TABLE activity_logs ENABLE TRIGGER append_only;
"""
# Rows that are purged are counted no more, those that were not counted yet excepted. The fold's lock comes first: after it,
# the counts are what the watermark says.
UNCOUNT = """
CREATE FUNCTION uncount_activity() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO activity_folds (team_id) SELECT DISTINCT g.team_id FROM gone g ORDER BY 1 ON CONFLICT DO NOTHING;
  PERFORM FROM activity_folds f WHERE f.team_id IN (SELECT g.team_id FROM gone g) ORDER BY f.team_id FOR UPDATE;
  UPDATE activity_counts c SET n = c.n - u.n
  FROM (
    SELECT g.team_id, date_trunc('month', g.created_at AT TIME ZONE 'UTC')::date AS month, g.workspace_id,
           d.dimension, d.value, count(*) AS n
    FROM gone g JOIN activity_folds f ON f.team_id = g.team_id AND g.seq <= f.seq
    CROSS JOIN LATERAL (
      VALUES ('action', g.action::text), ('user', g.user_id::text), ('agent', g.agent_id::text)
    ) AS d (dimension, value)
    WHERE d.value IS NOT NULL GROUP BY 1, 2, 3, 4, 5
  ) u
  WHERE c.team_id = u.team_id AND c.month = u.month AND c.dimension = u.dimension AND c.value = u.value
    AND c.workspace_id IS NOT DISTINCT FROM u.workspace_id;
  DELETE FROM activity_counts c WHERE c.n = 0 AND c.team_id IN (SELECT g.team_id FROM gone g);
  RETURN NULL;
END
$$;
CREATE TRIGGER uncount AFTER DELETE ON activity_logs REFERENCING OLD TABLE AS gone
FOR EACH STATEMENT EXECUTE FUNCTION uncount_activity();
"""
INDEXES: dict[str, tuple[list[str], str | None]] = {
    "user_action": (["team_id", "user_id", "action", "seq"], None),
    "resource_id": (["team_id", "resource_id", "seq"], None),
    "resource_type": (["team_id", "resource_type", "seq"], None),
    "workspace": (["team_id", "workspace_id", "seq"], "workspace_id IS NOT NULL"),
    "workspace_action": (["team_id", "workspace_id", "action", "seq"], "workspace_id IS NOT NULL"),
    "agent": (["team_id", "agent_id", "seq"], "agent_id IS NOT NULL"),
    "api_key": (["team_id", "api_key_id", "seq"], "api_key_id IS NOT NULL"),
    "ip_address": (["team_id", "ip_address", "seq"], "ip_address IS NOT NULL"),
    "refused": (["team_id", "seq"], "outcome <> 'success'"),
}
REPLACED = {
    "resource": ["team_id", "resource_type", "resource_id", "seq"],
    "created_at": ["team_id", "created_at"],
}


def run(statements: str) -> None:
    """Several statements in one, which the driver's extended protocol refuses."""
    op.get_bind().connection.driver_connection.execute(statements.encode())  # type: ignore[union-attr]


def team_id() -> sa.Column:
    return sa.Column("team_id", sa.Uuid(), nullable=False)


def of_a_team(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["team_id"], ["teams.id"], name=op.f(f"fk_{table}_team_id_teams"), ondelete="CASCADE"
    )


def upgrade() -> None:
    for name in EXTENSIONS:
        op.execute(MAKE_EXTENSION.format(name=name, mine=MINE))
    run(WORDS)
    op.add_column("activity_logs", sa.Column("words", sa.String(), server_default="", nullable=False))
    op.add_column(
        "activity_logs", sa.Column("mentions", sa.ARRAY(sa.Uuid()), server_default="{}", nullable=False)
    )
    run(WORDS_OF_THE_PAST)
    for name in REPLACED:
        op.drop_index(f"ix_activity_logs_{name}", "activity_logs")
    for name, (columns, condition) in INDEXES.items():
        where = sa.text(condition) if condition else None
        op.create_index(f"ix_activity_logs_{name}", "activity_logs", columns, postgresql_where=where)
    op.create_index(
        "ix_activity_logs_words",
        "activity_logs",
        ["team_id", "words", "mentions"],
        postgresql_using="gin",
        postgresql_ops={"words": "gin_trgm_ops"},
        postgresql_with={"gin_pending_list_limit": "256"},
    )
    make_tables()
    run(UNCOUNT)


def make_tables() -> None:
    op.create_table(
        "activity_folds",
        team_id(),
        sa.Column("seq", sa.BigInteger(), server_default="0", nullable=False),
        of_a_team("activity_folds"),
        sa.PrimaryKeyConstraint("team_id", name=op.f("pk_activity_folds")),
    )
    op.create_table(
        "activity_counts",
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuid7()"), nullable=False),
        sa.Column("month", sa.Date(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=True),
        sa.Column("dimension", sa.String(length=20), nullable=False),
        sa.Column("value", sa.String(length=100), nullable=False),
        sa.Column("n", sa.BigInteger(), nullable=False),
        team_id(),
        sa.CheckConstraint(
            "dimension IN ('action', 'user', 'agent')", name=op.f("ck_activity_counts_dimension")
        ),
        sa.CheckConstraint("n >= 0", name=op.f("ck_activity_counts_n")),
        of_a_team("activity_counts"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_activity_counts")),
        sa.UniqueConstraint(
            "team_id",
            "month",
            "dimension",
            "value",
            "workspace_id",
            name="uq_activity_counts",
            postgresql_nulls_not_distinct=True,
        ),
    )
    op.create_table(
        "activity_days",
        team_id(),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("first_seq", sa.BigInteger(), nullable=False),
        sa.Column("last_seq", sa.BigInteger(), nullable=False),
        of_a_team("activity_days"),
        sa.PrimaryKeyConstraint("team_id", "day", name=op.f("pk_activity_days")),
    )
    op.create_table(
        "activity_people",
        team_id(),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        of_a_team("activity_people"),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_activity_people_user_id_users"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("team_id", "user_id", name=op.f("pk_activity_people")),
    )


def downgrade() -> None:
    op.execute("DROP FUNCTION uncount_activity() CASCADE")  # its trigger
    for table in ("activity_people", "activity_days", "activity_counts", "activity_folds"):
        op.drop_table(table)
    for name in (*INDEXES, "words"):
        op.drop_index(f"ix_activity_logs_{name}", "activity_logs")
    op.drop_column("activity_logs", "mentions")
    op.drop_column("activity_logs", "words")
    for name, columns in REPLACED.items():
        op.create_index(f"ix_activity_logs_{name}", "activity_logs", columns)
    op.execute("DROP FUNCTION activity_words(text, text, jsonb)")
    for name in reversed(EXTENSIONS):
        op.execute(DROP_EXTENSION.format(name=name, mine=MINE))
