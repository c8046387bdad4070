import datetime as dt
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated
from uuid import UUID

from sqlalchemy import (
    CheckConstraint,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Numeric,
    String,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Count, Created, Json, TeamOwned, UUIDv7

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
        # The level of the storage at any moment is a sum of these.
        Index(
            "ix_usage_ledger_storage", "team_id", "occurred_at",
            postgresql_include=("quantity",), postgresql_where=text("metric = 'storage_bytes'"),
        ),
    )  # fmt: skip

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
    """By the ledger, and by reservations of the month that are open or unsettled."""


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


OPEN, SETTLED, RELEASED, UNSETTLED = "open", "settled", "released", "unsettled"
APPLIED, REVERTED = "applied", "reverted"


class UsageReservation(TeamOwned, Base):
    """
    What an agent is about to use at the most, noted before it calls a model. Settled, it leaves the ledger rows of what was
    really used; unsettled, it stays to be seen as such.
    """

    __tablename__ = "usage_reservations"
    __table_args__ = (
        UniqueConstraint("team_id", "external_id"),
        CheckConstraint("metric = 'llm_tokens_used'", name="metric"),
        CheckConstraint("quantity > 0", name="quantity"),
        CheckConstraint("state IN ('open', 'settled', 'released', 'unsettled')", name="state"),
        CheckConstraint("(state IN ('settled', 'released')) = (ended_at IS NOT NULL)", name="ended_at"),
        CheckConstraint("(state = 'settled') = (tokens IS NOT NULL)", name="tokens"),
        Index("ix_usage_reservations_expires_at", "expires_at", postgresql_where=text("state = 'open'")),
        Index(
            "ix_usage_reservations_unsettled", "team_id", "created_at",
            postgresql_where=text("state IN ('open', 'unsettled')"),
        ),
    )  # fmt: skip

    id: Mapped[UUIDv7]
    external_id: Mapped[str] = mapped_column(String(200))
    metric: Mapped[str] = mapped_column(String(50))
    quantity: Mapped[Count]
    """The most that it may come to."""
    state: Mapped[str] = mapped_column(String(20), server_default=OPEN)
    model: Mapped[str | None] = mapped_column(String(200))
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"))
    agent_id: Mapped[UUID | None]
    api_key_id: Mapped[UUID | None]
    workspace_id: Mapped[UUID | None]
    task_id: Mapped[UUID | None]
    expires_at: Mapped[datetime]
    created_at: Mapped[Created]
    ended_at: Mapped[datetime | None]
    tokens: Mapped[Json | None]
    """What was used, by part, once it is settled."""
    settled_model: Mapped[str | None] = mapped_column(String(200))


class UsageBackfill(TeamOwned, Base):
    """A set of past usage that is counted whole, and can be taken back whole."""

    __tablename__ = "usage_backfills"
    __table_args__ = (
        CheckConstraint("state IN ('open', 'applied', 'reverted')", name="state"),
        CheckConstraint("(state = 'open') = (applied_at IS NULL)", name="applied_at"),
        CheckConstraint("(state = 'reverted') = (reverted_at IS NOT NULL)", name="reverted_at"),
        UniqueConstraint("team_id", "id"),
    )

    id: Mapped[UUIDv7]
    name: Mapped[str] = mapped_column(String(255))
    reason: Mapped[str] = mapped_column(String(500))
    state: Mapped[str] = mapped_column(String(20), server_default=OPEN)
    created_by: Mapped[UUID] = mapped_column(ForeignKey("users.id"))
    created_at: Mapped[Created]
    applied_at: Mapped[datetime | None]
    reverted_at: Mapped[datetime | None]


class UsageBackfillEvent(TeamOwned, Attributed, Base):
    """A unit of usage that waits in a set; the ledger gets it when the set is applied."""

    __tablename__ = "usage_backfill_events"
    __table_args__ = (
        ForeignKeyConstraint(
            ["team_id", "backfill_id"], ["usage_backfills.team_id", "usage_backfills.id"], ondelete="CASCADE"
        ),
        Index("ix_usage_backfill_events_team_id", "team_id"),
    )

    backfill_id: Mapped[UUID] = mapped_column(primary_key=True)
    external_id: Mapped[str] = mapped_column(String(200), primary_key=True)
    metric: Mapped[str] = mapped_column(String(50))
    quantity: Mapped[Count]
    occurred_at: Mapped[datetime]
