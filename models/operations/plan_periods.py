"""Which plan a team was on, and when: what invoices are prorated by."""

from sqlalchemy import text
from sqlalchemy.orm import Session

from models.tables import Team

# By the time when the team's row was locked, not by that of the transaction's begin: so periods meet, and never cross.
BEGIN = text("""
WITH ended AS (
  UPDATE plan_periods SET ends_at = clock.now FROM (SELECT clock_timestamp() AS now) AS clock
  WHERE team_id = :team_id AND ends_at IS NULL RETURNING ends_at
)
INSERT INTO plan_periods (team_id, plan, price_book, starts_at)
SELECT :team_id, :plan, max(version), coalesce((SELECT ends_at FROM ended), now()) FROM price_books
""")
END = text("UPDATE plan_periods SET ends_at = clock_timestamp() WHERE team_id = :team_id AND ends_at IS NULL")


def begin(session: Session, team: Team) -> None:
    """The team's present plan begins, at the prices of the newest book, and whatever it was on ends; the caller has locked the team."""
    session.execute(BEGIN, {"team_id": team.id, "plan": team.plan})


def end(session: Session, team: Team) -> None:
    """The team is on no plan from now on, as it is deleted; the caller has locked it."""
    session.execute(END, {"team_id": team.id})
