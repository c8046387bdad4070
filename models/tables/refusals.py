from uuid import UUID

from sqlalchemy import BigInteger, Index, PrimaryKeyConstraint, String
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Address, Base, Created, TeamOwned


class RefusedAttempt(TeamOwned, Base):
    """
    What one actor of a team was refused, from the first time on until a minute went by without another: the first is in the
    log already, `repeats` waits to be summed (models/operations/refusals.py). So a flood of refusals is a few rows a minute.
    """

    __tablename__ = "refused_attempts"
    __table_args__ = (
        PrimaryKeyConstraint("team_id", "actor_id", "permission"),
        Index("ix_refused_attempts_since", "since"),
    )

    actor_id: Mapped[UUID]
    """The API key, or the person who came without one; nobody (the nil UUID) for what is counted without a name."""
    permission: Mapped[str] = mapped_column(String(100))
    user_id: Mapped[UUID | None]
    agent_id: Mapped[UUID | None]
    api_key_id: Mapped[UUID | None]
    method: Mapped[str] = mapped_column(String(20))
    route: Mapped[str]
    repeats: Mapped[int] = mapped_column(BigInteger)
    since: Mapped[Created]
    """When the first, or what was summed last, was logged."""
    ip_address: Mapped[Address | None]
    user_agent: Mapped[str | None]
    request_id: Mapped[str | None]
