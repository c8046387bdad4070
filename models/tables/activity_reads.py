from datetime import datetime
from uuid import UUID

from sqlalchemy import PrimaryKeyConstraint
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, TeamOwned


class ActivityRead(TeamOwned, Base):
    """The last hour in which it was noted that a reader read the team's log: once per row and hour, whoever else tries."""

    __tablename__ = "activity_reads"
    __table_args__ = (PrimaryKeyConstraint("team_id", "reader_id"),)

    reader_id: Mapped[UUID]
    """The agent, else the API key, else the person."""
    hour: Mapped[datetime] = mapped_column(index=True)
    """Its beginning."""
