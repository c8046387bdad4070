from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Created, Json, UUIDv7


class Mail(Base):
    """
    A mail that is due, as an intent: it has no text and no secret. Its token is made when it is sent, so that none lies
    here; a mail that was sent is gone from this table.
    """

    __tablename__ = "mails"
    __table_args__ = (Index("ix_mails_due", "due_at", postgresql_where=text("failed_at IS NULL")),)

    id: Mapped[UUIDv7]
    kind: Mapped[str] = mapped_column(String(50))
    address: Mapped[str | None] = mapped_column(String(320))
    """For a mail to whoever has this (normalised) address, if anybody has."""
    user_id: Mapped[UUID | None] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    invitation_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("invitations.id", ondelete="CASCADE"), index=True
    )
    webhook_id: Mapped[UUID | None] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"), index=True)
    details: Mapped[Json | None]
    """What it is about, where nothing else knows: numbers, and names and ids of ours."""
    due_at: Mapped[Created]
    attempts: Mapped[int] = mapped_column(server_default="0")
    error: Mapped[str | None]
    failed_at: Mapped[datetime | None]
    """When it was given up."""
    created_at: Mapped[Created]
