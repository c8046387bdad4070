"""Hard limits that begin and end with plans, exactly; alerts of what a plan includes, once each, and their mails."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "3b85e11a49c7"
down_revision = "2a74d00f38b6"
branch_labels = None
depends_on = None

# Whoever counts holds its team's bucket shared until it has committed, and whoever sets a limit takes it exclusively: so what is
# in flight when a limit begins is waited for, and what comes later sees the limit. That takes a snapshot newer than the lock,
# which each statement of a volatile function has, and a part of one statement does not. A row's lock would do too, but a
# steady stream of those who share it keeps out who wants it alone; this lock has a queue. Buckets, as one statement can
# count for more teams than there is room for locks.
FUNCTIONS = """
CREATE FUNCTION quota_bucket(of_team uuid) RETURNS integer LANGUAGE sql IMMUTABLE AS $$
  SELECT hashtext(of_team::text) & 63
$$;
CREATE FUNCTION count_quotas(team_ids uuid[], metrics text[], months date[], quantities numeric[])
RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
  this_month date := date_trunc('month', now() AT TIME ZONE 'UTC');
  counted record;
  total numeric;
  changes jsonb;
BEGIN
  PERFORM pg_advisory_xact_lock_shared(7404, bucket)
  FROM (SELECT DISTINCT quota_bucket(id) AS bucket FROM unnest(team_ids) AS id ORDER BY 1) AS buckets;
  -- In one order for all; calls last, as a request counts itself when its work is done.
  FOR counted IN
    SELECT q.team_id, q.metric, q.maximum, u.month, u.quantity
    FROM unnest(team_ids, metrics, months, quantities) AS u (team_id, metric, month, quantity)
    JOIN usage_quotas q ON q.team_id = u.team_id AND q.metric = u.metric
    WHERE u.month >= this_month OR u.metric = 'storage_bytes'
    ORDER BY q.team_id, q.metric = 'api_calls', q.metric, u.month
  LOOP
    -- A month that another has begun is over for who comes late; storage is a level, which knows no months.
    UPDATE usage_quotas q SET
      used = counted.quantity + CASE WHEN q.period = counted.month OR q.metric = 'storage_bytes' THEN q.used ELSE 0 END,
      period = greatest(q.period, counted.month)
    WHERE q.team_id = counted.team_id AND q.metric = counted.metric
      AND (q.period <= counted.month OR q.metric = 'storage_bytes')
    RETURNING used INTO total;
    IF FOUND THEN
      changes := coalesce(changes, '[]') || jsonb_build_array(
        jsonb_build_array(counted.metric, total - counted.quantity, total, counted.maximum));
    END IF;
  END LOOP;
  RETURN changes;
END
$$;
CREATE FUNCTION set_quotas(of_team uuid, hard_metrics text[], maxima numeric[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  this_month date := date_trunc('month', now() AT TIME ZONE 'UTC');
BEGIN
  IF cardinality(hard_metrics) > 0 THEN
    PERFORM pg_advisory_xact_lock(7404, quota_bucket(of_team));
  END IF;
  DELETE FROM usage_quotas WHERE team_id = of_team AND metric <> ALL (hard_metrics);
  INSERT INTO usage_quotas (team_id, metric, maximum, period, used)
  SELECT of_team, hard.metric, hard.maximum, this_month, coalesce(sum(counted.quantity), 0)
  FROM unnest(hard_metrics, maxima) AS hard (metric, maximum)
  LEFT JOIN (
    SELECT split.metric, s.date, split.quantity
    FROM usage_stats s, LATERAL (VALUES
      ('tasks_created', s.tasks_created), ('tasks_completed', s.tasks_completed), ('llm_tokens_used', s.llm_tokens_used),
      ('api_calls', s.api_calls), ('storage_bytes', s.storage_bytes)) AS split (metric, quantity)
    WHERE s.team_id = of_team
    UNION ALL
    SELECT p.metric, p.date, p.quantity FROM usage_pending p WHERE p.team_id = of_team
    UNION ALL
    SELECT r.metric, (r.created_at AT TIME ZONE 'UTC')::date, r.quantity FROM usage_reservations r
    WHERE r.team_id = of_team AND r.state IN ('open', 'unsettled')
  ) AS counted ON counted.metric = hard.metric AND (counted.date >= this_month OR hard.metric = 'storage_bytes')
  GROUP BY hard.metric, hard.maximum
  ON CONFLICT (team_id, metric) DO UPDATE
  SET maximum = excluded.maximum, period = excluded.period, used = excluded.used;
END
$$;
"""


def upgrade() -> None:
    op.create_table(
        "usage_alerts",
        sa.Column("team_id", sa.Uuid(), nullable=False),
        sa.Column("metric", sa.String(length=50), nullable=False),
        sa.Column("period", sa.Date(), nullable=False),
        sa.Column("threshold", sa.Integer(), nullable=False),
        sa.Column("used", sa.Numeric(), nullable=False),
        sa.Column("included", sa.Numeric(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("threshold IN (50, 80, 100, 120)", name=op.f("ck_usage_alerts_threshold")),
        sa.ForeignKeyConstraint(
            ["team_id"], ["teams.id"], name=op.f("fk_usage_alerts_team_id_teams"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("team_id", "metric", "period", "threshold", name=op.f("pk_usage_alerts")),
    )
    op.add_column(
        "mails",
        sa.Column("details", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
    )
    # Several statements, which the driver's extended protocol refuses.
    op.get_bind().connection.driver_connection.execute(FUNCTIONS.encode())  # type: ignore[union-attr]


def downgrade() -> None:
    op.execute("DROP FUNCTION set_quotas(uuid, text[], numeric[])")
    op.execute("DROP FUNCTION count_quotas(uuid[], text[], date[], numeric[])")
    op.execute("DROP FUNCTION quota_bucket(uuid)")
    op.execute("DELETE FROM mails WHERE kind = 'usage_alert'")  # which is not known any more
    op.drop_column("mails", "details")
    op.drop_table("usage_alerts")
