import datetime as dt
from datetime import datetime
from enum import StrEnum
from typing import Annotated
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, Numeric, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Count, Created, TeamOwned, UUIDv7

Total = Annotated[int, mapped_column(Numeric(asdecimal=False), server_default="0")]
"""A sum of any number of quantities below 2⁶³: wider than bigint, so that no report can make the fold overflow."""


class Metric(StrEnum):
    """The counters of `usage_stats`, by their column names."""

    tasks_created = "tasks_created"
    tasks_completed = "tasks_completed"
    llm_tokens_used = "llm_tokens_used"
    api_calls = "api_calls"
    storage_bytes = "storage_bytes"


METRICS_SQL = ", ".join(f"'{metric}'" for metric in Metric)


class UsageLedger(TeamOwned, Base):
    """One unit of usage, append-only. `key` is derived from what it counts and unique for ever: sent twice, counted once."""

    __tablename__ = "usage_ledger"
    __table_args__ = (
        UniqueConstraint("team_id", "key"),
        CheckConstraint(f"metric IN ({METRICS_SQL})", name="metric"),
        # A storage level is reported as signed changes; everything else only grows.
        CheckConstraint("quantity > 0 OR (metric = 'storage_bytes' AND quantity <> 0)", name="quantity"),
        Index("ix_usage_ledger_occurred_at", "team_id", "occurred_at"),
    )

    id: Mapped[UUIDv7] = mapped_column(server_default=text("uuid7()"))
    key: Mapped[str] = mapped_column(String(300))
    metric: Mapped[str] = mapped_column(String(50))
    quantity: Mapped[Count]
    user_id: Mapped[UUID | None] = mapped_column(ForeignKey("users.id"))
    occurred_at: Mapped[datetime]
    recorded_at: Mapped[Created]


class UsagePending(TeamOwned, Base):
    """A ledger row that is not folded into `usage_stats` yet; the fold deletes it as it adds it, in one statement."""

    __tablename__ = "usage_pending"
    __table_args__ = (
        Index("ix_usage_pending_date", "team_id", "date"),
        {"postgresql_with": {"autovacuum_vacuum_scale_factor": "0", "autovacuum_vacuum_threshold": "1000"}},
    )

    ledger_id: Mapped[UUID] = mapped_column(
        ForeignKey("usage_ledger.id", ondelete="CASCADE"), primary_key=True
    )
    date: Mapped[dt.date]
    metric: Mapped[str] = mapped_column(String(50))
    quantity: Mapped[Count]


class UsageStats(TeamOwned, Base):
    """A team's day (UTC). `storage_bytes` is the day's net change; the level is the sum of all days up to it."""

    __tablename__ = "usage_stats"
    __table_args__ = (UniqueConstraint("team_id", "date"),)

    id: Mapped[UUIDv7] = mapped_column(server_default=text("uuid7()"))
    date: Mapped[dt.date]
    tasks_created: Mapped[Total]
    tasks_completed: Mapped[Total]
    llm_tokens_used: Mapped[Total]
    api_calls: Mapped[Total]
    storage_bytes: Mapped[Total]
