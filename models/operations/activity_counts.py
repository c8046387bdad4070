"""
The log, counted: how many rows of each action and actor, between which numbers a day lies, and who is named. A row counts once
its team's watermark (`activity_folds`) has passed it; whoever reads counts what is beyond it by itself.
"""

from sqlalchemy import text
from sqlalchemy.orm import Session

BEGIN = text("""
INSERT INTO activity_folds (team_id)
SELECT h.team_id FROM activity_heads h
WHERE h.seq > 0 AND NOT EXISTS (SELECT FROM activity_folds f WHERE f.team_id = h.team_id)
ORDER BY h.team_id LIMIT :teams
ON CONFLICT DO NOTHING
""")
# One folder a team at a time; teams that another has, or whose rows are being purged, are passed over.
CLAIM = text("""
SELECT f.team_id FROM activity_folds f JOIN activity_heads h ON h.team_id = f.team_id
WHERE h.seq > f.seq LIMIT :teams FOR UPDATE OF f SKIP LOCKED
""")
# Its own statement, and so its own snapshot, taken after the watermarks are locked. A team's rows come into sight in the
# order of their numbers, since one drainer at a time appends them: what is below the highest seen is all seen.
FOLD = text("""
WITH new AS MATERIALIZED (
  SELECT l.* FROM activity_folds f CROSS JOIN LATERAL (
    SELECT l.team_id, l.seq, l.created_at AT TIME ZONE 'UTC' AS at, l.workspace_id, l.action, l.user_id, l.agent_id,
           l.resource_type, l.resource_id
    FROM activity_logs l WHERE l.team_id = f.team_id AND l.seq > f.seq ORDER BY l.seq LIMIT :limit
  ) l WHERE f.team_id = ANY(CAST(:team_ids AS uuid[]))
), counted AS (
  INSERT INTO activity_counts AS c (team_id, month, workspace_id, dimension, value, n)
  SELECT n.team_id, date_trunc('month', n.at)::date, n.workspace_id, d.dimension, d.value, count(*)
  FROM new n CROSS JOIN LATERAL (
    VALUES ('action', n.action::text), ('user', n.user_id::text), ('agent', n.agent_id::text)
  ) AS d (dimension, value)
  WHERE d.value IS NOT NULL GROUP BY 1, 2, 3, 4, 5
  ON CONFLICT (team_id, month, dimension, value, workspace_id) DO UPDATE SET n = c.n + excluded.n
), dated AS (
  INSERT INTO activity_days AS d (team_id, day, first_seq, last_seq)
  SELECT team_id, at::date, min(seq), max(seq) FROM new GROUP BY 1, 2
  ON CONFLICT (team_id, day) DO UPDATE
  SET first_seq = least(d.first_seq, excluded.first_seq), last_seq = greatest(d.last_seq, excluded.last_seq)
), named AS (
  INSERT INTO activity_people (team_id, user_id)
  SELECT DISTINCT n.team_id, u.id FROM new n
  CROSS JOIN LATERAL (VALUES (n.user_id), (CASE WHEN n.resource_type = 'user' THEN n.resource_id END)) AS p (id)
  JOIN users u ON u.id = p.id
  ON CONFLICT DO NOTHING
), moved AS (
  UPDATE activity_folds f SET seq = coalesce(last.seq, h.seq)  -- what is not there was purged
  FROM activity_heads h LEFT JOIN (SELECT team_id, max(seq) AS seq FROM new GROUP BY team_id) AS last USING (team_id)
  WHERE h.team_id = f.team_id AND f.team_id = ANY(CAST(:team_ids AS uuid[]))
)
SELECT count(*) FROM new
""")


def fold(session: Session, *, limit: int, teams: int = 20) -> int:
    """
    Counts up to `limit` further rows of each of up to `teams` teams; how many rows in all.

    Safe to repeat, to kill and to run in any number of workers at once: counts and watermark commit together.
    """
    session.execute(BEGIN, {"teams": teams})
    team_ids = list(session.scalars(CLAIM, {"teams": teams}))
    if not team_ids:
        return 0
    return int(session.execute(FOLD, {"team_ids": team_ids, "limit": limit}).scalar_one())
