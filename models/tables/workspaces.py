from uuid import UUID

from sqlalchemy import (
    ARRAY,
    CheckConstraint,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    String,
    UniqueConstraint,
    Uuid,
)
from sqlalchemy.orm import Mapped, mapped_column, relationship

from models.base import Base, Created, TeamOwned, Updated, UUIDv7
from models.tables.users import User

OPEN, PRIVATE = "team", "private"


class Workspace(TeamOwned, Base):
    """Open to the team, or private to those listed in `workspace_members` and the team's owner."""

    __tablename__ = "workspaces"
    __table_args__ = (
        # What composite foreign keys of a workspace's rows point at, so that they can't name another team's workspace.
        UniqueConstraint("team_id", "id"),
        CheckConstraint("visibility IN ('team', 'private')", name="visibility"),
    )

    id: Mapped[UUIDv7]
    name: Mapped[str] = mapped_column(String(255))
    description: Mapped[str | None]
    visibility: Mapped[str] = mapped_column(String(20), server_default=OPEN)
    created_by: Mapped[UUID] = mapped_column(ForeignKey("users.id"))
    created_at: Mapped[Created]
    updated_at: Mapped[Updated]


class WorkspaceMember(TeamOwned, Base):
    """Someone listed in a workspace: sees it though it is private, and has `role` in it instead of their role in the team."""

    __tablename__ = "workspace_members"
    __table_args__ = (
        ForeignKeyConstraint(
            ["team_id", "workspace_id"], ["workspaces.team_id", "workspaces.id"], ondelete="CASCADE"
        ),
        ForeignKeyConstraint(
            ["team_id", "user_id"], ["team_members.team_id", "team_members.user_id"], ondelete="CASCADE"
        ),
        Index("ix_workspace_members_user", "team_id", "user_id"),
    )

    workspace_id: Mapped[UUID] = mapped_column(primary_key=True)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    role: Mapped[str | None] = mapped_column(String(50))
    """None: the same as in the team."""
    created_at: Mapped[Created]

    user: Mapped[User] = relationship(lazy="raise")


class DeletedWorkspace(TeamOwned, Base):
    """A private workspace that is gone, and who could see it: its events stay in the log, for them and the team's owner."""

    __tablename__ = "deleted_workspaces"
    __table_args__ = (Index("ix_deleted_workspaces_team_id", "team_id"),)

    workspace_id: Mapped[UUID] = mapped_column(primary_key=True)
    user_ids: Mapped[list[UUID]] = mapped_column(ARRAY(Uuid))
