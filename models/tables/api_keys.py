from datetime import datetime
from uuid import UUID

from sqlalchemy import ARRAY, ForeignKey, ForeignKeyConstraint, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Created, TeamOwned, Updated, UUIDv7


class Agent(TeamOwned, Base):
    """A non-human member: has a role, takes no seat, and acts for the person who made the key that it presents."""

    __tablename__ = "agents"
    __table_args__ = (UniqueConstraint("team_id", "id"), UniqueConstraint("team_id", "name"))

    id: Mapped[UUIDv7]
    name: Mapped[str] = mapped_column(String(255))
    description: Mapped[str | None]
    role: Mapped[str] = mapped_column(String(50))
    created_by: Mapped[UUID] = mapped_column(ForeignKey("users.id"))
    created_at: Mapped[Created]
    updated_at: Mapped[Updated]


class ApiKey(TeamOwned, Base):
    """
    A credential of one team that acts for its maker, within `permissions` and never above the maker's present power.

    The key itself is never stored, only its SHA-256 and the `prefix` by which people tell keys apart. It goes with its
    maker's membership and with its agent.
    """

    __tablename__ = "api_keys"
    __table_args__ = (
        ForeignKeyConstraint(
            ["team_id", "user_id"], ["team_members.team_id", "team_members.user_id"], ondelete="CASCADE"
        ),
        ForeignKeyConstraint(["team_id", "agent_id"], ["agents.team_id", "agents.id"], ondelete="CASCADE"),
        Index("ix_api_keys_user", "team_id", "user_id"),
        Index("ix_api_keys_agent", "team_id", "agent_id"),
    )

    id: Mapped[UUIDv7]
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"))
    agent_id: Mapped[UUID | None]
    name: Mapped[str] = mapped_column(String(255))
    prefix: Mapped[str] = mapped_column(String(20))
    key_hash: Mapped[bytes] = mapped_column(unique=True)
    permissions: Mapped[list[str]] = mapped_column(ARRAY(String(100)))
    expires_at: Mapped[datetime]
    last_used_at: Mapped[datetime | None]
    created_at: Mapped[Created]
