from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, ForeignKeyConstraint, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Count, Created, Json, TeamOwned, Updated, UUIDv7


class Task(TeamOwned, Base):
    """A piece of work that an agent does. The states and what leads from one to the next: models/operations/tasks.py."""

    __tablename__ = "tasks"
    __table_args__ = (
        ForeignKeyConstraint(
            ["team_id", "workspace_id"], ["workspaces.team_id", "workspaces.id"], ondelete="CASCADE"
        ),
        # Who leaves the team keeps nothing assigned; the team stays (PostgreSQL 15: SET NULL of named columns).
        ForeignKeyConstraint(
            ["team_id", "assignee_id"],
            ["team_members.team_id", "team_members.user_id"],
            ondelete="SET NULL (assignee_id)",
        ),
        CheckConstraint(
            "status IN ('pending', 'processing', 'completed', 'failed', 'cancelled')", name="status"
        ),
        CheckConstraint(
            "(finished_at IS NOT NULL) = (status IN ('completed', 'failed', 'cancelled'))", name="finished"
        ),
        CheckConstraint("(error IS NOT NULL) = (status = 'failed')", name="error"),
        CheckConstraint("result IS NULL OR status = 'completed'", name="result"),
        CheckConstraint("llm_tokens_used >= 0", name="llm_tokens_used"),
        CheckConstraint(
            "(lease_id IS NULL) = (lease_expires_at IS NULL) AND (lease_id IS NULL OR status = 'processing')",
            name="lease",
        ),
        # Whoever's agent goes, the task stays.
        ForeignKeyConstraint(
            ["team_id", "agent_id"], ["agents.team_id", "agents.id"], ondelete="SET NULL (agent_id)"
        ),
        Index("ix_tasks_workspace", "team_id", "workspace_id", "id"),
        Index("ix_tasks_agent", "team_id", "agent_id"),
        Index(
            "ix_tasks_pending",
            "team_id",
            "workspace_id",
            "id",
            postgresql_where=text("status = 'pending'"),
        ),
        Index("ix_tasks_lease", "lease_expires_at", postgresql_where=text("lease_id IS NOT NULL")),
        Index("ix_tasks_assignee", "team_id", "assignee_id"),
    )

    id: Mapped[UUIDv7]
    workspace_id: Mapped[UUID]
    title: Mapped[str] = mapped_column(String(500))
    prompt: Mapped[str | None]
    type: Mapped[str] = mapped_column(String(50), server_default="general")
    status: Mapped[str] = mapped_column(String(20), server_default="pending")
    assignee_id: Mapped[UUID | None]
    result: Mapped[Json | None]
    error: Mapped[str | None]
    llm_tokens_used: Mapped[Count] = mapped_column(server_default="0")
    attempts: Mapped[int] = mapped_column(server_default="0")
    """How often work on it began."""
    agent_id: Mapped[UUID | None]
    """The agent that works on it, or did last."""
    lease_id: Mapped[UUID | None]
    """Whoever claimed the task reports on it under this id, until `lease_expires_at`."""
    lease_expires_at: Mapped[datetime | None]
    created_by: Mapped[UUID] = mapped_column(ForeignKey("users.id"))
    created_at: Mapped[Created]
    updated_at: Mapped[Updated]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
