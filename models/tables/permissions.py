from uuid import UUID

from sqlalchemy import ForeignKey, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, UUIDv7


class PermissionGrant(Base):
    """A role's permission. Without a team: a built-in role, seeded by the first migration. With one: that team's own role."""

    __tablename__ = "permissions"
    __table_args__ = (
        # Role and team first: entering a team must not read what other teams call by the same name.
        UniqueConstraint("role", "team_id", "resource", "action", postgresql_nulls_not_distinct=True),
    )

    id: Mapped[UUIDv7]
    team_id: Mapped[UUID | None] = mapped_column(ForeignKey("teams.id", ondelete="CASCADE"), index=True)
    role: Mapped[str] = mapped_column(String(50))
    resource: Mapped[str] = mapped_column(String(50))
    action: Mapped[str] = mapped_column(String(50))
    allowed: Mapped[bool] = mapped_column(server_default="true")
