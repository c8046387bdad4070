from datetime import datetime
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    String,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Created, TeamOwned, UUIDv7

PENDING, DELIVERED, DEAD = "pending", "delivered", "dead"


class Webhook(TeamOwned, Base):
    """
    Where a team's log is sent to, in its order. Nothing is queued: `delivered_seq` is a place in the log, and what follows
    it is to be sent.

    It is sent what the person in `user_id` may see at that moment: whoever made it, or last changed where it points, what
    it gets or that it gets anything.
    """

    __tablename__ = "webhooks"
    __table_args__ = (
        UniqueConstraint("team_id", "id"),
        CheckConstraint("(replay_seq IS NULL) = (replay_until IS NULL)", name="replay"),
        CheckConstraint(
            "(previous_secret IS NULL) = (previous_secret_expires_at IS NULL)", name="previous_secret"
        ),
        Index("ix_webhooks_enabled", "due_at", postgresql_where=text("enabled")),
    )

    id: Mapped[UUIDv7]
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"))
    url: Mapped[str]
    description: Mapped[str | None]
    actions: Mapped[list[str] | None] = mapped_column(ARRAY(String(100)))
    """None: all."""
    secret: Mapped[bytes]
    """Encrypted (models/encryption.py); so is the one before it, which signs too until its time is over."""
    previous_secret: Mapped[bytes | None]
    previous_secret_expires_at: Mapped[datetime | None]
    enabled: Mapped[bool] = mapped_column(server_default="true")
    disabled_at: Mapped[datetime | None]
    disabled_reason: Mapped[str | None] = mapped_column(String(20))
    """Why the product disabled it; None: a person did."""
    delivered_seq: Mapped[int] = mapped_column(BigInteger)
    """The log up to here is dealt with: delivered, given up, or not for this webhook."""
    replay_seq: Mapped[int | None] = mapped_column(BigInteger)
    """As `delivered_seq`, of a replay, which goes before what is new and ends at `replay_until`."""
    replay_until: Mapped[int | None] = mapped_column(BigInteger)
    redelivering: Mapped[bool] = mapped_column(server_default="false")
    """Whether single deliveries were asked for."""
    due_at: Mapped[Created]
    """When the next event may be sent: later, after a failure."""
    slow: Mapped[bool] = mapped_column(server_default="false")
    """Whether it was slow or failed the last time: such share what is left of the workers' threads."""
    lease_id: Mapped[UUID | None]
    """Of the worker that is sending; no other does while its time runs."""
    lease_expires_at: Mapped[datetime | None]
    failing_since: Mapped[datetime | None]
    last_error: Mapped[str | None] = mapped_column(String(50))
    created_at: Mapped[Created]
    updated_at: Mapped[Created]
    """When a person changed it; what deliveries note here is no update."""


class WebhookDelivery(TeamOwned, Base):
    """What became of one event at one webhook. Those behind an event that waits for its next try have no row yet."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        ForeignKeyConstraint(
            ["team_id", "webhook_id"], ["webhooks.team_id", "webhooks.id"], ondelete="CASCADE"
        ),
        UniqueConstraint("team_id", "webhook_id", "seq"),
        CheckConstraint("state IN ('pending', 'delivered', 'dead')", name="state"),
        Index(
            "ix_webhook_deliveries_open", "webhook_id", "seq", postgresql_where=text("state <> 'delivered'")
        ),
        Index("ix_webhook_deliveries_attempted_at", "attempted_at"),
    )

    id: Mapped[UUIDv7]
    webhook_id: Mapped[UUID]
    seq: Mapped[int] = mapped_column(BigInteger)
    event_id: Mapped[UUID]
    action: Mapped[str] = mapped_column(String(100))
    state: Mapped[str] = mapped_column(String(20))
    attempts: Mapped[int]
    requested: Mapped[bool] = mapped_column(server_default="false")
    """Whether somebody asked to deliver it again."""
    last_status: Mapped[int | None]
    last_error: Mapped[str | None] = mapped_column(String(50))
    duration_ms: Mapped[int | None]
    next_attempt_at: Mapped[datetime | None]
    created_at: Mapped[Created]
    attempted_at: Mapped[Created]
