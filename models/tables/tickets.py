from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Created, TeamOwned


class Ticket(TeamOwned, Base):
    """
    Opens one socket of one team, once, instead of the credential that asked for it: what stands in a URL ends up in logs.

    Known by its SHA-256 alone; using it deletes the row, and so does the end of the credential.
    """

    __tablename__ = "tickets"
    __table_args__ = (
        CheckConstraint("(session_id IS NULL) <> (api_key_id IS NULL)", name="credential"),
        Index("ix_tickets_team_id", "team_id"),
    )

    token_hash: Mapped[bytes] = mapped_column(primary_key=True)
    session_id: Mapped[UUID | None] = mapped_column(ForeignKey("sessions.id", ondelete="CASCADE"), index=True)
    api_key_id: Mapped[UUID | None] = mapped_column(ForeignKey("api_keys.id", ondelete="CASCADE"), index=True)
    expires_at: Mapped[datetime] = mapped_column(index=True)
    created_at: Mapped[Created]
