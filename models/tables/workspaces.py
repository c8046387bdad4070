from uuid import UUID

from sqlalchemy import ForeignKey, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Created, TeamOwned, Updated, UUIDv7


class Workspace(TeamOwned, Base):
    __tablename__ = "workspaces"
    # What composite foreign keys of a workspace's rows point at, so that they can't name another team's workspace.
    __table_args__ = (UniqueConstraint("team_id", "id"),)

    id: Mapped[UUIDv7]
    name: Mapped[str] = mapped_column(String(255))
    description: Mapped[str | None]
    created_by: Mapped[UUID] = mapped_column(ForeignKey("users.id"))
    created_at: Mapped[Created]
    updated_at: Mapped[Updated]
