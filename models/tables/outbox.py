from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Identity, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Address, Base, Created, Json
from models.tables.activity import OUTCOMES


class OutboxEvent(Base):
    """An event that committed with its change and waits to be projected. The drain deletes the row as it numbers it."""

    __tablename__ = "outbox"
    __table_args__ = (
        Index("ix_outbox_team_id_id", "team_id", "id"),
        CheckConstraint(OUTCOMES, name="outcome"),
        # Every row is deleted within moments: vacuum soon, so that the scan for the next batch stays short.
        {"postgresql_with": {"autovacuum_vacuum_scale_factor": "0", "autovacuum_vacuum_threshold": "1000"}},
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    event_id: Mapped[UUID]
    team_id: Mapped[UUID] = mapped_column(ForeignKey("teams.id", ondelete="CASCADE"))
    action: Mapped[str] = mapped_column(String(100))
    user_id: Mapped[UUID | None]
    resource_type: Mapped[str] = mapped_column(String(50))
    resource_id: Mapped[UUID]
    resource_name: Mapped[str | None]
    agent_id: Mapped[UUID | None]
    api_key_id: Mapped[UUID | None]
    workspace_id: Mapped[UUID | None]
    details: Mapped[Json]
    schema_version: Mapped[int] = mapped_column(server_default="1")
    outcome: Mapped[str] = mapped_column(String(20), server_default="success")
    ip_address: Mapped[Address | None]
    user_agent: Mapped[str | None]
    request_id: Mapped[str | None]
    traceparent: Mapped[str | None] = mapped_column(String(55))
    """Of the request's trace (W3C Trace Context), where it is recorded: the drain goes on with it."""
    created_at: Mapped[Created]
