"""The hourly rollup: what the month has cost each team so far, for reports over all of them."""

from datetime import UTC, date, datetime
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from models.charges import lines_of
from models.queries.month_usage import plans_in, recount
from models.tables import ChargeEstimate

JOB = "charges.estimate"
WAITING = """
SELECT p.team_id FROM plan_periods p JOIN teams t ON t.id = p.team_id AND t.deleted_at IS NULL
LEFT JOIN charge_estimates e ON e.team_id = p.team_id AND e.month = :month
WHERE p.ends_at IS NULL AND (e.as_of IS NULL OR e.as_of < :hour)
"""
LISTED = text(f"{WAITING} ORDER BY p.team_id LIMIT :limit")
# Whoever estimates a team holds its plan period, so that another passes it over.
HELD = text(f"{WAITING} AND p.team_id = :team_id FOR NO KEY UPDATE OF p SKIP LOCKED")


def waiting(session: Session, hour: datetime, *, limit: int) -> list[UUID]:
    """Teams that have no estimate of the hour (UTC, its beginning)."""
    return list(session.scalars(LISTED, {"month": month_of(hour), "hour": hour, "limit": limit}))


def estimate(session: Session, team_id: UUID, hour: datetime) -> bool:
    """
    Estimates what the month has cost the team by this hour; whether this transaction is the one to do it, as any number of
    workers may try.
    """
    month = month_of(hour)
    if session.scalar(HELD, {"month": month, "hour": hour, "team_id": team_id}) is None:
        return False
    _estimate(session, team_id, month, hour)
    return True


def month_of(moment: datetime) -> date:
    return moment.astimezone(UTC).date().replace(day=1)


def _estimate(session: Session, team_id: UUID, month: date, hour: datetime) -> None:
    plans = plans_in(session, team_id, month)
    currency = plans[-1].book.currency if plans else "USD"
    lines = lines_of(month, recount(session, team_id, month, plans).segments, currency)
    values = {
        "as_of": hour,
        "currency": currency,
        "total": sum(line.amount for line in lines),
        "lines": [
            {
                "kind": line.kind,
                "plan": line.plan,
                "metric": line.metric,
                "quantity": str(line.quantity),
                "amount": line.amount,
            }
            for line in lines
        ],
    }
    statement = insert(ChargeEstimate).values(team_id=team_id, month=month, **values)
    session.execute(
        statement.on_conflict_do_update(index_elements=["team_id", "month"], set_=values).returning(
            ChargeEstimate.team_id
        )
    )
