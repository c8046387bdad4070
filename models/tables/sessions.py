from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Address, Base, Created, UUIDv7


class UserSession(Base):
    """One sign-in. The token itself is never stored, only its SHA-256; ending a session deletes its row."""

    __tablename__ = "sessions"

    id: Mapped[UUIDv7]
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    token_hash: Mapped[bytes] = mapped_column(unique=True)
    ip_address: Mapped[Address | None]
    user_agent: Mapped[str | None]
    created_at: Mapped[Created]
    last_used_at: Mapped[Created]
    expires_at: Mapped[datetime]
