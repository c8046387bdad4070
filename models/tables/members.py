from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from models.base import Base, Created, TeamOwned, UUIDv7
from models.tables.users import User


class TeamMember(TeamOwned, Base):
    __tablename__ = "team_members"
    __table_args__ = (UniqueConstraint("team_id", "user_id"),)

    id: Mapped[UUIDv7]
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    role: Mapped[str] = mapped_column(String(50))
    joined_at: Mapped[Created]
    suspended_at: Mapped[datetime | None]
    """Keeps the seat and the role, and may not enter."""

    user: Mapped[User] = relationship(lazy="raise")
