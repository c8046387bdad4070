from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, LargeBinary, String, func
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Count, Created, Json, TeamOwned, UUIDv7

PENDING, RUNNING, COMPLETED, FAILED, EXPIRED = "pending", "running", "completed", "failed", "expired"
STATES = (PENDING, RUNNING, COMPLETED, FAILED, EXPIRED)
NDJSON, CSV = "ndjson", "csv"


class ActivityExport(TeamOwned, Base):
    """
    An export of the log as a file: what was asked for, by whom, and how far it is.

    A worker that is at it holds `attempt_id` until `due_at`, and says so again all the while; a row whose time is over is
    another's to take. The file of an attempt bears its id in its name, so that two attempts never write to the same one.
    Whoever asked is known by the ids of what they came with, which are looked up again when it runs and when it is fetched.
    """

    __tablename__ = "activity_exports"
    __table_args__ = (
        CheckConstraint("format IN ('ndjson', 'csv')", name="format"),
        CheckConstraint("state IN ('pending', 'running', 'completed', 'failed', 'expired')", name="state"),
        CheckConstraint("(session_id IS NULL) <> (api_key_id IS NULL)", name="credential"),
        CheckConstraint("percent BETWEEN 0 AND 100", name="percent"),
        CheckConstraint(
            "state <> 'completed' OR (sha256 IS NOT NULL AND size IS NOT NULL AND expires_at IS NOT NULL)",
            name="completed",
        ),
        Index("ix_activity_exports_team_id", "team_id", "id"),
        Index("ix_activity_exports_due", "due_at", postgresql_where="state IN ('pending', 'running')"),
    )

    id: Mapped[UUIDv7]
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"), index=True)
    """The person who asked, or for whom the API key or agent did."""
    agent_id: Mapped[UUID | None]
    session_id: Mapped[UUID | None]
    api_key_id: Mapped[UUID | None]
    format: Mapped[str] = mapped_column(String(10))
    proof: Mapped[bool]
    descending: Mapped[bool]
    filters: Mapped[Json]
    """What narrows it, as models/queries/activity_exports.py writes it."""
    state: Mapped[str] = mapped_column(String(10), server_default=PENDING)
    attempts: Mapped[int] = mapped_column(server_default="0")
    attempt_id: Mapped[UUID | None]
    due_at: Mapped[datetime] = mapped_column(server_default=func.now())
    """When a worker may take it: at once, after a pause, or once the one that is at it has fallen silent."""
    rows: Mapped[Count] = mapped_column(server_default="0")
    percent: Mapped[int] = mapped_column(server_default="0")
    """How much of the log's numbers it has passed."""
    error: Mapped[str | None]
    size: Mapped[Count | None]
    sha256: Mapped[bytes | None]
    """Of the file as it is fetched."""
    token_hash: Mapped[bytes | None] = mapped_column(LargeBinary, unique=True)
    """Of the newest download link's secret."""
    created_at: Mapped[Created]
    completed_at: Mapped[datetime | None]
    """When it ended, well or not."""
    expires_at: Mapped[datetime | None]
    """When file and link end."""
