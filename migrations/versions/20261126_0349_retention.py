"""
Refused attempts, retention and legal hold, erasure: their tables and columns, erasing a person's origin in parts, and dropping
the log's partitions that hold nothing.

Whatever was logged before stays for 30 days more, however short the plan's retention is.
"""

import sqlalchemy as sa
from alembic import op

revision = "f741adc05e93"
down_revision = "e6309cbf4d82"
branch_labels = None
depends_on = None

# Of the person's rows after a number, at most so many, in their order; the number of the last, or NULL if there was none.
# The caller holds the lock of the team's head, as a purge does: the two never wait for each other's rows.
ERASE = """
CREATE FUNCTION erase_activity_origin(of_team uuid, person uuid, after bigint DEFAULT 0, at_most int DEFAULT NULL)
RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
  last bigint;
BEGIN
  PERFORM set_config('agenthq.activity_change', 'erase', true);
  SELECT max(seq) INTO last FROM (
    SELECT l.seq FROM activity_logs l
    WHERE l.team_id = of_team AND l.user_id = person AND l.seq > after AND l.origin_salt IS NOT NULL
    ORDER BY l.seq LIMIT at_most
  ) AS next;
  UPDATE activity_logs l SET ip_address = NULL, user_agent = NULL, origin_salt = NULL
  WHERE l.team_id = of_team AND l.user_id = person AND l.seq > after AND l.seq <= last AND l.origin_salt IS NOT NULL;
  PERFORM set_config('agenthq.activity_change', '', true);
  RETURN last;
END
$$
"""
# As revision b3d1c0a94f27 has it.
ERASE_BEFORE = """
CREATE FUNCTION erase_activity_origin(of_team uuid, person uuid) RETURNS bigint LANGUAGE plpgsql
SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
  erased bigint;
BEGIN
  PERFORM set_config('agenthq.activity_change', 'erase', true);
  UPDATE activity_logs l SET ip_address = NULL, user_agent = NULL, origin_salt = NULL
  WHERE l.team_id = of_team AND l.user_id = person AND l.origin_salt IS NOT NULL;
  GET DIAGNOSTICS erased = ROW_COUNT;
  PERFORM set_config('agenthq.activity_change', '', true);
  RETURN erased;
END
$$
"""
# The months that ended a month ago or more and have no row. A drop locks the log and what it refers to, so it waits for
# nobody longer than a moment: what it can't have now, it leaves to the next call. An event that comes late all the same
# finds the default partition.
DROP_EMPTY = """
CREATE FUNCTION drop_empty_activity_partitions() RETURNS int LANGUAGE plpgsql
SECURITY DEFINER SET search_path = public, pg_temp SET lock_timeout = '200ms' AS $$
DECLARE
  name text;
  month text[];
  filled boolean;
  dropped int := 0;
BEGIN
  IF NOT pg_try_advisory_xact_lock(4117031978) THEN  -- partitions are being made (ensure_activity_partitions)
    RETURN 0;
  END IF;
  FOR name IN SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
              WHERE i.inhparent = 'activity_logs'::regclass ORDER BY c.relname LOOP
    month := regexp_match(name, '^activity_logs_y(\\d{4})m(\\d{2})$');
    CONTINUE WHEN month IS NULL;
    CONTINUE WHEN make_date(month[1]::int, month[2]::int, 1) + interval '2 months' > now() AT TIME ZONE 'UTC';
    EXECUTE format('SELECT EXISTS (SELECT FROM %I)', name) INTO filled;
    CONTINUE WHEN filled;
    BEGIN
      LOCK TABLE ONLY activity_logs IN ACCESS EXCLUSIVE MODE;
      EXECUTE format('SELECT EXISTS (SELECT FROM %I)', name) INTO filled;
      IF NOT filled THEN
        EXECUTE format('DROP TABLE %I', name);
        dropped := dropped + 1;
      END IF;
    EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
      RETURN dropped;
    END;
  END LOOP;
  RETURN dropped;
END
$$
"""
KEEP_THE_PAST = (
    "UPDATE teams SET longer_retention_days = 3650, longer_retention_until = now() + interval '30 days'"
)


def upgrade() -> None:
    op.add_column("users", sa.Column("erased_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("teams", sa.Column("retention_days", sa.Integer(), nullable=True))
    op.add_column("teams", sa.Column("longer_retention_days", sa.Integer(), nullable=True))
    op.add_column("teams", sa.Column("longer_retention_until", sa.DateTime(timezone=True), nullable=True))
    op.add_column("teams", sa.Column("held_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("teams", sa.Column("hold_reason", sa.String(), nullable=True))
    op.create_check_constraint(op.f("ck_teams_retention_days"), "teams", "retention_days >= 7")
    op.create_check_constraint(
        op.f("ck_teams_hold_reason"), "teams", "(held_at IS NULL) = (hold_reason IS NULL)"
    )
    op.execute(KEEP_THE_PAST)
    op.create_table(
        "refused_attempts",
        sa.Column("actor_id", sa.Uuid(), nullable=False),
        sa.Column("permission", sa.String(length=100), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=True),
        sa.Column("agent_id", sa.Uuid(), nullable=True),
        sa.Column("api_key_id", sa.Uuid(), nullable=True),
        sa.Column("method", sa.String(length=20), nullable=False),
        sa.Column("route", sa.String(), nullable=False),
        sa.Column("repeats", sa.BigInteger(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("ip_address", sa.dialects.postgresql.INET(), nullable=True),
        sa.Column("user_agent", sa.String(), nullable=True),
        sa.Column("request_id", sa.String(), nullable=True),
        sa.Column("team_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["team_id"], ["teams.id"], name=op.f("fk_refused_attempts_team_id_teams"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("team_id", "actor_id", "permission", name=op.f("pk_refused_attempts")),
    )
    op.create_index("ix_refused_attempts_since", "refused_attempts", ["since"], unique=False)
    op.create_table(
        "erasures",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column(
            "requested_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("due_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("pass_began_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("after_team_id", sa.Uuid(), nullable=True),
        sa.Column("at_team_id", sa.Uuid(), nullable=True),
        sa.Column("after_seq", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("held", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_erasures_user_id_users"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_erasures")),
    )
    op.create_index(
        "ix_erasures_due",
        "erasures",
        ["due_at"],
        unique=False,
        postgresql_where=sa.text("finished_at IS NULL"),
    )
    op.execute("DROP FUNCTION erase_activity_origin(uuid, uuid)")
    op.execute(ERASE)
    op.execute(DROP_EMPTY)


def downgrade() -> None:
    op.execute("DROP FUNCTION drop_empty_activity_partitions()")
    op.execute("DROP FUNCTION erase_activity_origin(uuid, uuid, bigint, int)")
    op.execute(ERASE_BEFORE)
    op.drop_table("erasures")
    op.drop_table("refused_attempts")
    for column in (
        "hold_reason",
        "held_at",
        "longer_retention_until",
        "longer_retention_days",
        "retention_days",
    ):
        op.drop_column("teams", column)  # its checks go with it
    op.drop_column("users", "erased_at")
