"""Telling a team that it has used so many percent of what its plan includes: once for each metric, month and threshold."""

from collections.abc import Iterable, Sequence
from datetime import date
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from models.access.actor import System
from models.events.catalogue import UsageLimitReached
from models.events.record import record
from models.operations import mails
from models.tables.usage import THRESHOLDS, Metric
from models.tables.usage import THRESHOLDS_SQL as PERCENTS

# Two folders that add to different days of a team see each other's sums only once they have committed; so that the later one
# does, they decide one after the other.
TAKE_TURNS = text("SELECT pg_advisory_xact_lock(7405)")
_FLOWS = tuple(metric for metric in Metric if metric is not Metric.storage_bytes)
# What is folded of this month (of storage: the level) beside what the present plan includes; a level of so many GB all month is as
# many GB-months.
REACHED = text(f"""
WITH month AS (
  SELECT date_trunc('month', now() AT TIME ZONE 'UTC')::date AS begins
), current AS (
  SELECT p.team_id, p.plan, p.price_book FROM plan_periods p JOIN teams t ON t.id = p.team_id AND t.deleted_at IS NULL
  WHERE p.team_id = ANY(CAST(:team_ids AS uuid[])) AND p.ends_at IS NULL
), terms AS MATERIALIZED (
  SELECT b.version, plan ->> 'name' AS plan, metric,
         (terms ->> 'included')::numeric * CASE metric WHEN 'storage_bytes' THEN 1000000000 ELSE 1 END AS included
  FROM price_books b, jsonb_array_elements(b.body -> 'plans') AS plan, jsonb_each(plan -> 'metrics') AS each (metric, terms)
  WHERE b.version IN (SELECT price_book FROM current)
), used AS (
  SELECT sums.team_id, split.metric, split.quantity
  FROM (SELECT team_id, {", ".join(f"sum({metric}) AS {metric}" for metric in _FLOWS)}
        FROM usage_stats, month WHERE team_id = ANY(CAST(:team_ids AS uuid[])) AND date >= month.begins
        GROUP BY team_id) AS sums,
       LATERAL (VALUES {", ".join(f"('{metric}', {metric})" for metric in _FLOWS)}) AS split (metric, quantity)
  UNION ALL
  SELECT team_id, 'storage_bytes', sum(storage_bytes) FROM usage_stats
  WHERE team_id = ANY(CAST(:with_storage AS uuid[])) GROUP BY team_id
)
SELECT u.team_id, u.metric, month.begins AS period, t.threshold, u.quantity AS used, i.included
FROM month, used u JOIN current c ON c.team_id = u.team_id
JOIN terms i ON i.version = c.price_book AND i.plan = c.plan AND i.metric = u.metric
JOIN unnest(ARRAY[{PERCENTS}]) AS t (threshold) ON u.quantity * 100 >= i.included * t.threshold
WHERE i.included > 0 AND NOT EXISTS (
  SELECT FROM usage_alerts a
  WHERE a.team_id = u.team_id AND a.metric = u.metric AND a.period = month.begins AND a.threshold = t.threshold
)
""")  # noqa: S608  made of constants alone
# Whoever comes second, be it folder or request, waits for the first and finds it told.
TELL = text("""
INSERT INTO usage_alerts (team_id, metric, period, threshold, used, included)
SELECT * FROM unnest(CAST(:team_ids AS uuid[]), CAST(:metrics AS text[]), CAST(:periods AS date[]), CAST(:thresholds AS int[]),
                     CAST(:useds AS numeric[]), CAST(:includeds AS numeric[]))
  AS told (team_id, metric, period, threshold, used, included) ORDER BY 1, 2, 3, 4
ON CONFLICT DO NOTHING
RETURNING team_id, metric, period, threshold, used, included
""")


class Alert(NamedTuple):
    """That a team used this much of what its plan includes, and so reached the threshold."""

    team_id: UUID
    metric: str
    period: date
    threshold: int
    used: Decimal
    included: Decimal


def after_fold(session: Session, team_ids: Sequence[UUID], with_storage: Sequence[UUID]) -> None:
    """Tells what was reached by the usage of this month that this transaction has just folded, and by storage where that changed."""
    if team_ids:
        session.execute(TAKE_TURNS)
        rows = session.execute(REACHED, {"team_ids": list(team_ids), "with_storage": list(with_storage)})
        tell(session, [Alert(*row) for row in rows])


def thresholds_between(before: int, after: int, included: int) -> list[int]:
    """The thresholds that are reached by what was added; of nothing included, there is no share."""
    return [each for each in THRESHOLDS if included > 0 and before * 100 < included * each <= after * 100]


def tell(session: Session, alerts: Sequence[Alert]) -> None:
    """
    Records each alert that was not told before, and its event. Whoever may see the bill gets a mail: of several thresholds that
    were passed at once, about the highest.
    """
    if not alerts:
        return
    columns = zip(*alerts, strict=True)
    parameters = {f"{name}s": list(column) for name, column in zip(Alert._fields, columns, strict=True)}
    told = sorted(Alert(*row) for row in session.execute(TELL, parameters))
    for alert in told:
        record(
            session,
            System(alert.team_id),
            UsageLimitReached(
                team_id=alert.team_id,
                metric=alert.metric,
                threshold=alert.threshold,
                used=int(alert.used),
                included=int(alert.included),
                period=alert.period,
            ),
        )
    for alert in _highest(told):
        mails.enqueue_usage_alert(
            session,
            alert.team_id,
            metric=alert.metric,
            threshold=alert.threshold,
            used=int(alert.used),
            included=int(alert.included),
        )


def _highest(told: Iterable[Alert]) -> Iterable[Alert]:
    return {(alert.team_id, alert.metric, alert.period): alert for alert in told}.values()
