"""The daily rollup's proof: what was recorded in a day is counted again from the ledger, and compared with what was folded."""

from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from models.operations import job_runs
from models.tables.usage import Metric

JOB = "usage.recount"
SETTLED_AFTER = timedelta(hours=1)
"""A row is as old as its transaction's beginning: no transaction lasts so long that it would be missed."""
_UNPIVOTED = ", ".join(f"('{metric}', s.{metric})" for metric in Metric)
# Each team's own index finds what was recorded; a day that it is dated to is recounted whole, however long ago it was. What
# differed before and agrees now is forgotten.
RECOUNT = text(f"""
WITH touched AS MATERIALIZED (
  SELECT t.id AS team_id, d.date FROM teams t CROSS JOIN LATERAL (
    SELECT DISTINCT (l.occurred_at AT TIME ZONE 'UTC')::date AS date FROM usage_ledger l
    WHERE l.team_id = t.id AND l.recorded_at >= :since AND l.recorded_at < :until
    UNION
    SELECT date FROM usage_differences u WHERE u.team_id = t.id
  ) AS d
), compared AS MATERIALIZED (
  SELECT t.team_id, t.date, c.metric, c.ledger, c.daily, c.broken_down FROM touched t CROSS JOIN LATERAL (
    SELECT metric, coalesce(sum(quantity) FILTER (WHERE source = 'ledger'), 0) AS ledger,
           coalesce(sum(quantity) FILTER (WHERE source IN ('daily', 'waiting')), 0) AS daily,
           coalesce(sum(quantity) FILTER (WHERE source IN ('broken_down', 'waiting')), 0) AS broken_down
    FROM (
      SELECT 'ledger' AS source, metric, quantity FROM usage_ledger
      WHERE team_id = t.team_id AND occurred_at >= t.date::timestamp AT TIME ZONE 'UTC'
        AND occurred_at < (t.date + 1)::timestamp AT TIME ZONE 'UTC'
      UNION ALL
      SELECT 'waiting', metric, quantity FROM usage_pending WHERE team_id = t.team_id AND date = t.date
      UNION ALL
      SELECT 'daily', m.metric, m.quantity FROM usage_stats s, LATERAL (VALUES {_UNPIVOTED}) AS m (metric, quantity)
      WHERE s.team_id = t.team_id AND s.date = t.date
      UNION ALL
      SELECT 'broken_down', metric, quantity FROM usage_breakdowns WHERE team_id = t.team_id AND date = t.date
    ) AS sources GROUP BY metric
  ) AS c
), settled AS (
  DELETE FROM usage_differences u USING compared c
  WHERE (u.team_id, u.date, u.metric) = (c.team_id, c.date, c.metric) AND c.ledger = c.daily AND c.ledger = c.broken_down
), found AS (
  INSERT INTO usage_differences AS u (team_id, date, metric, ledger, daily, broken_down)
  SELECT team_id, date, metric, ledger, daily, broken_down FROM compared WHERE ledger <> daily OR ledger <> broken_down
  ORDER BY 1, 2, 3
  ON CONFLICT (team_id, date, metric) DO UPDATE
  SET ledger = excluded.ledger, daily = excluded.daily, broken_down = excluded.broken_down
  RETURNING team_id, date, metric, ledger, daily, broken_down
)
SELECT * FROM found ORDER BY 1, 2, 3
""")  # noqa: S608  made of constants alone
FIRST_DAY = text("SELECT (min(recorded_at) AT TIME ZONE 'UTC')::date FROM usage_ledger")
LONGER = text("SET LOCAL statement_timeout = '100s'")


class Difference(NamedTuple):
    """A day of a team on which the ledger says something else than `usage_stats` or `usage_breakdowns`."""

    team_id: UUID
    date: date
    metric: str
    ledger: int
    daily: int
    broken_down: int


def open_days(session: Session, now: datetime) -> list[date]:
    """The days that have ended, settled, and are not recounted yet, the oldest first: all since the last that was."""
    last = job_runs.last_period(session, JOB)
    first = date.fromisoformat(last) + timedelta(days=1) if last else session.scalar(FIRST_DAY)
    today = (now.astimezone(UTC) - SETTLED_AFTER).date()
    return [first + timedelta(days=number) for number in range((today - first).days)] if first else []


def recount(session: Session, day: date) -> list[Difference] | None:
    """
    Recounts every day that usage recorded on `day` is dated to; what differs, which is also kept in `usage_differences`. None
    if another worker has done it.
    """
    if not job_runs.claim(session, JOB, day.isoformat()):
        return None
    session.execute(LONGER)
    begins = datetime.combine(day, time(), UTC)
    rows = session.execute(RECOUNT, {"since": begins - SETTLED_AFTER, "until": begins + timedelta(days=1)})
    return [Difference(*row) for row in rows]
