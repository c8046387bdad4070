from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, ForeignKeyConstraint, String
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Created, Updated, UUIDv7


class Team(Base):
    """The tenant. Deleting it is soft: its activity log outlives it until the retention period ends."""

    __tablename__ = "teams"
    __table_args__ = (
        CheckConstraint("plan IN ('free', 'pro', 'enterprise')", name="plan"),
        CheckConstraint("max_members > 0", name="max_members"),
        CheckConstraint("retention_days >= 7", name="retention_days"),
        CheckConstraint("(held_at IS NULL) = (hold_reason IS NULL)", name="hold_reason"),
        # The owner is a member at every commit; deferred, because neither row can come first.
        ForeignKeyConstraint(
            ["id", "owner_id"],
            ["team_members.team_id", "team_members.user_id"],
            name="fk_teams_id_owner_id_team_members",
            deferrable=True,
            initially="DEFERRED",
            use_alter=True,
        ),
    )

    id: Mapped[UUIDv7]
    name: Mapped[str] = mapped_column(String(255))
    owner_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"), index=True)
    plan: Mapped[str] = mapped_column(String(50), server_default="free")
    max_members: Mapped[int] = mapped_column(server_default="5")
    two_factor_required: Mapped[bool] = mapped_column(server_default="false")
    """Then only members with a second factor may enter."""
    retention_days: Mapped[int | None]
    """How long the log's rows are kept, as the team chose; None: as its plan says (models/queries/teams.py)."""
    longer_retention_days: Mapped[int | None]
    """What held before the last shortening, and holds on until `longer_retention_until`."""
    longer_retention_until: Mapped[datetime | None]
    held_at: Mapped[datetime | None]
    """When the legal hold was placed, if one is: nothing is purged meanwhile."""
    hold_reason: Mapped[str | None]
    suspended_at: Mapped[datetime | None]
    """Since then nobody enters, until an operator reinstates it; all that it has stays."""
    deleted_at: Mapped[datetime | None]
    created_at: Mapped[Created]
    updated_at: Mapped[Updated]
