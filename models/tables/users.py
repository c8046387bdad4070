from datetime import datetime

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Created, Updated, UUIDv7


class User(Base):
    """A person. The address is kept as written; uniqueness and look-up go by its normalised form."""

    __tablename__ = "users"

    id: Mapped[UUIDv7]
    email: Mapped[str] = mapped_column(String(320))
    email_normalized: Mapped[str] = mapped_column(String(320), unique=True)
    email_verified_at: Mapped[datetime | None]
    """When the person proved to read this address; None until then."""
    name: Mapped[str] = mapped_column(String(255))
    password_hash: Mapped[str]
    erased_at: Mapped[datetime | None]
    """Since then the row is nobody's: no name, no address, no way in. It stays, as the log refers to it."""
    suspended_at: Mapped[datetime | None]
    """Since then nobody signs in to it, and nothing that acts for it is let in, until an operator reinstates it."""
    created_at: Mapped[Created]
    updated_at: Mapped[Updated]
