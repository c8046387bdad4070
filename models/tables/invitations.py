from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Created, TeamOwned, Updated, UUIDv7

PENDING, ACCEPTED, REVOKED, EXPIRED = "pending", "accepted", "revoked", "expired"


class Invitation(TeamOwned, Base):
    """
    A seat kept for an address until `expires_at`. The token that the API showed and the one that was mailed are both
    known by their SHA-256 alone; either accepts.
    """

    __tablename__ = "invitations"
    __table_args__ = (
        CheckConstraint("status IN ('pending', 'accepted', 'revoked', 'expired')", name="status"),
        Index("ix_invitations_team_id", "team_id", "id"),
        Index(
            "uq_invitations_pending",
            "team_id",
            "email_normalized",
            unique=True,
            postgresql_where=text("status = 'pending'"),
        ),
        Index("ix_invitations_email", "email_normalized", postgresql_where=text("status = 'pending'")),
    )

    id: Mapped[UUIDv7]
    email: Mapped[str] = mapped_column(String(320))
    email_normalized: Mapped[str] = mapped_column(String(320))
    role: Mapped[str] = mapped_column(String(50))
    status: Mapped[str] = mapped_column(String(20), server_default=PENDING)
    """As stored: a pending one whose time is over is expired, whether or not a row says so (models/queries/invitations.py)."""
    invited_by: Mapped[UUID] = mapped_column(ForeignKey("users.id"))
    token_hash: Mapped[bytes] = mapped_column(unique=True)
    mailed_token_hash: Mapped[bytes | None] = mapped_column(unique=True)
    expires_at: Mapped[datetime]
    created_at: Mapped[Created]
    updated_at: Mapped[Updated]
