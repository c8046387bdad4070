"""Which plan a team was on, and when: what invoices are prorated by, and which hard limits it has."""

from sqlalchemy import text
from sqlalchemy.orm import Session

from models.plans import Book, Plan
from models.tables import Team
from models.tables.usage import Metric

BYTES_PER_GB = 10**9
# By the time when the team's row was locked, not by that of the transaction's begin: so periods meet, and never cross.
BEGIN = text("""
WITH ended AS (
  UPDATE plan_periods SET ends_at = clock.now FROM (SELECT clock_timestamp() AS now) AS clock
  WHERE team_id = :team_id AND ends_at IS NULL RETURNING ends_at
)
INSERT INTO plan_periods (team_id, plan, price_book, starts_at)
VALUES (:team_id, :plan, :price_book, coalesce((SELECT ends_at FROM ended), now()))
""")
END = text("UPDATE plan_periods SET ends_at = clock_timestamp() WHERE team_id = :team_id AND ends_at IS NULL")
SET_QUOTAS = text("SELECT set_quotas(:team_id, CAST(:metrics AS text[]), CAST(:maxima AS numeric[]))")


def begin(session: Session, team: Team, book: Book) -> None:
    """
    The team's present plan begins, at the prices of the book, and whatever it was on ends; so do its hard limits, each with what
    this month used so far. The caller has locked the team, and locks nothing more after this: whoever counts usage waits.
    """
    plan = book.plans[team.plan]
    session.execute(BEGIN, {"team_id": team.id, "plan": plan.name, "price_book": book.version})
    maxima = hard_limits(plan)
    session.execute(
        SET_QUOTAS, {"team_id": team.id, "metrics": list(maxima), "maxima": list(maxima.values())}
    )


def hard_limits(plan: Plan) -> dict[str, int]:
    """What may not be passed, by metric: in a month; of storage the level in bytes, at any time."""
    return {
        metric: terms.included * (BYTES_PER_GB if metric == Metric.storage_bytes else 1)
        for metric, terms in plan.metrics.items()
        if terms.is_hard
    }


def end(session: Session, team: Team) -> None:
    """The team is on no plan from now on, as it is deleted; the caller has locked it."""
    session.execute(END, {"team_id": team.id})
