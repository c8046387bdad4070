from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, PrimaryKeyConstraint, String
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Address, Base, Json

SUCCESS, DENIED = "success", "denied"
OUTCOMES = "outcome IN ('success', 'denied')"


class ActivityHead(Base):
    """The end of a team's log: the last number given, and the hash that the next row chains to. Its lock is the team's drain."""

    __tablename__ = "activity_heads"

    team_id: Mapped[UUID] = mapped_column(ForeignKey("teams.id"), primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger, server_default="0")
    hash: Mapped[bytes | None]
    """None before the first row: the chain begins with `activity_genesis(team_id)`."""
    purged_seq: Mapped[int] = mapped_column(BigInteger, server_default="0")
    """The last number whose row is gone for good; the log begins after it."""
    purged_hash: Mapped[bytes | None]
    """That row's hash, which the first row that is left chains to."""


class ActivityLog(Base):
    """
    One thing that happened in a team, numbered without gaps; the audit trail, partitioned by month. Append-only: a trigger
    refuses all but the functions `purge_activity` and `erase_activity_origin` (and moving a row to its month's partition).

    `hash` is the SHA-256 of the hash before it and of `activity_digest` of the row, which is that of all its fields in
    canonical, length-prefixed bytes. Persons are named by id alone, so that what identifies them can be erased elsewhere.
    `ip_address` and `user_agent` are the only personal data here and stay outside `hash`, which covers their salted
    commitment `origin_hash` instead: erasing them and `origin_salt` leaves the chain valid.
    """

    __tablename__ = "activity_logs"
    __table_args__ = (
        PrimaryKeyConstraint("team_id", "seq", "created_at"),
        CheckConstraint(OUTCOMES, name="outcome"),
        Index("ix_activity_logs_created_at", "team_id", "created_at"),
        Index("ix_activity_logs_user", "team_id", "user_id", "seq"),
        Index("ix_activity_logs_action", "team_id", "action", "seq"),
        Index("ix_activity_logs_resource", "team_id", "resource_type", "resource_id", "seq"),
        {"postgresql_partition_by": "RANGE (created_at)"},
    )

    team_id: Mapped[UUID] = mapped_column(ForeignKey("teams.id"))
    seq: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime]
    id: Mapped[UUID]
    user_id: Mapped[UUID | None] = mapped_column(ForeignKey("users.id"))
    action: Mapped[str] = mapped_column(String(100))
    resource_type: Mapped[str] = mapped_column(String(50))
    resource_id: Mapped[UUID]
    resource_name: Mapped[str | None]
    agent_id: Mapped[UUID | None]
    api_key_id: Mapped[UUID | None]
    workspace_id: Mapped[UUID | None]
    details: Mapped[Json] = mapped_column("metadata")
    schema_version: Mapped[int] = mapped_column(server_default="1")
    outcome: Mapped[str] = mapped_column(String(20), server_default="success")
    request_id: Mapped[str | None]
    ip_address: Mapped[Address | None]
    user_agent: Mapped[str | None]
    origin_salt: Mapped[bytes | None]
    origin_hash: Mapped[bytes | None]
    hash: Mapped[bytes]
