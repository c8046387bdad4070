"""What an operator walks through: all teams, whoever is in them."""

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from models.tables import ActivityHead


def team_ids(session: Session, *, after: UUID | None, limit: int) -> list[UUID]:
    """The next teams by id that have a log: deleted ones too, until they are purged."""
    statement = select(ActivityHead.team_id).order_by(ActivityHead.team_id).limit(limit)
    return list(
        session.scalars(statement if after is None else statement.where(ActivityHead.team_id > after))
    )
