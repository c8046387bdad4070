import datetime as dt
from datetime import datetime
from decimal import Decimal
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


class TokenPart(StrEnum):
    """The disjoint parts of a model call's tokens: what was read from a cache is in `cached_input` alone, not in `input` too."""

    input = "input"
    cached_input = "cached_input"
    output = "output"
    reasoning = "reasoning"


THRESHOLDS = (50, 80, 100, 120)
"""Percent of what a plan includes."""
THRESHOLDS_SQL = ", ".join(str(threshold) for threshold in THRESHOLDS)
PARTS_SQL = ", ".join(f"'{part}'" for part in TokenPart)


class Attributed:
    """Whose usage it is, besides the team's; for tokens also of which model, and which part of them."""

    user_id: Mapped[UUID | None]
    agent_id: Mapped[UUID | None]
    api_key_id: Mapped[UUID | None]
    workspace_id: Mapped[UUID | None]
    model: Mapped[str | None] = mapped_column(String(200))
    part: Mapped[str | None] = mapped_column(String(20))


class UsageLedger(TeamOwned, Attributed, Base):
    """
    One unit of usage, append-only. `key` is derived from what it counts and unique for ever: sent twice, counted once.

    A row is never edited: a correction is a row that `reverses` it, once, with the opposite quantity.
    """

    __tablename__ = "usage_ledger"
    __table_args__ = (
        UniqueConstraint("team_id", "key"),
        UniqueConstraint("reverses"),
        CheckConstraint(f"metric IN ({METRICS_SQL})", name="metric"),
        # A storage level is reported as signed changes; everything else only grows, but for what reverses it.
        CheckConstraint(
            "quantity > 0 OR (quantity <> 0 AND (metric = 'storage_bytes' OR reverses IS NOT NULL))",
            name="quantity",
        ),
        CheckConstraint(
            f"part IS NULL OR (metric = 'llm_tokens_used' AND part IN ({PARTS_SQL}))", name="part"
        ),
        CheckConstraint("model IS NULL OR metric = 'llm_tokens_used'", name="model"),
        CheckConstraint("(reverses IS NULL) OR (reason IS NOT NULL)", name="reason"),
        Index("ix_usage_ledger_occurred_at", "team_id", "occurred_at"),
        Index("ix_usage_ledger_set", "team_id", "set_id", postgresql_where=text("set_id IS NOT NULL")),
        # What came after its month was closed becomes an adjustment.
        Index("ix_usage_ledger_recorded_at", "team_id", "recorded_at"),
    )

    id: Mapped[UUIDv7] = mapped_column(server_default=text("uuid7()"))
    key: Mapped[str] = mapped_column(String(300))
    metric: Mapped[str] = mapped_column(String(50))
    quantity: Mapped[Count]
    user_id: Mapped[UUID | None] = mapped_column(ForeignKey("users.id"))
    occurred_at: Mapped[datetime]
    recorded_at: Mapped[Created]
    reverses: Mapped[UUID | None] = mapped_column(ForeignKey("usage_ledger.id", ondelete="CASCADE"))
    reason: Mapped[str | None] = mapped_column(String(500))
    set_id: Mapped[UUID | None]
    """The backfill set that it came with."""


class UsagePending(TeamOwned, Attributed, Base):
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


class UsageBreakdown(TeamOwned, Attributed, Base):
    """
    A team's day (UTC) and metric by whose it was and of what; folded together with `usage_stats`, of which each metric is the
    sum of these.
    """

    __tablename__ = "usage_breakdowns"
    __table_args__ = (
        UniqueConstraint(
            "team_id", "date", "metric", "user_id", "agent_id", "api_key_id", "workspace_id", "model", "part",
            name="uq_usage_breakdowns_whose",
            postgresql_nulls_not_distinct=True,
        ),
    )  # fmt: skip

    id: Mapped[UUIDv7] = mapped_column(server_default=text("uuid7()"))
    date: Mapped[dt.date]
    metric: Mapped[str] = mapped_column(String(50))
    quantity: Mapped[Total]


class UsageQuota(TeamOwned, Base):
    """
    A hard limit of a team's plan: how much of it is used in the month `period`. Whoever counts adds to it in the same
    statement and so waits for the row; what would pass the limit rolls back with all that it counted.
    """

    __tablename__ = "usage_quotas"

    team_id: Mapped[UUID] = mapped_column(ForeignKey("teams.id", ondelete="CASCADE"), primary_key=True)
    metric: Mapped[str] = mapped_column(String(50), primary_key=True)
    maximum: Mapped[Total]
    period: Mapped[dt.date]
    """The month's first day (UTC). Of an earlier month, it counts as nothing used; but storage is a level, which stays."""
    used: Mapped[Total]


class UsageAlert(TeamOwned, Base):
    """That a team's use of a metric reached so many percent of what its plan includes in a month: told once, and never again."""

    __tablename__ = "usage_alerts"
    __table_args__ = (CheckConstraint(f"threshold IN ({THRESHOLDS_SQL})", name="threshold"),)

    team_id: Mapped[UUID] = mapped_column(ForeignKey("teams.id", ondelete="CASCADE"), primary_key=True)
    metric: Mapped[str] = mapped_column(String(50), primary_key=True)
    period: Mapped[dt.date] = mapped_column(primary_key=True)
    """The month's first day (UTC)."""
    threshold: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    used: Mapped[Decimal] = mapped_column(Numeric)
    included: Mapped[Decimal] = mapped_column(Numeric)
    created_at: Mapped[Created]


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
