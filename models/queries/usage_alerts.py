"""What a team was told about its limits."""

from collections.abc import Sequence
from datetime import date

from sqlalchemy import select
from sqlalchemy.orm import Session

from models.access.entry import Access
from models.tables import UsageAlert


def of_month(session: Session, access: Access, month: date) -> Sequence[UsageAlert]:
    """The thresholds that were reached in the month that begins on `month`, the latest first."""
    return session.scalars(
        select(UsageAlert)
        .where(UsageAlert.team_id == access.team_id, UsageAlert.period == month)
        .order_by(UsageAlert.created_at.desc(), UsageAlert.metric, UsageAlert.threshold.desc())
    ).all()
