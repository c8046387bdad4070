import datetime as dt
from datetime import datetime
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    PrimaryKeyConstraint,
    String,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Address, Base, Count, Json, TeamOwned, UUIDv7

SUCCESS, DENIED = "success", "denied"
OUTCOMES = "outcome IN ('success', 'denied')"


DIMENSIONS = "dimension IN ('action', 'user', 'agent')"


def _partial(name: str, *columns: str) -> Index:
    """Of the rows that have a value in the first column."""
    where = text(f"{columns[0]} IS NOT NULL")
    return Index(f"ix_activity_logs_{name}", "team_id", *columns, "seq", postgresql_where=where)


class ActivityHead(Base):
    """The end of a team's log: the last number given, and the hash that the next row chains to. Its lock is the team's drain."""

    __tablename__ = "activity_heads"

    team_id: Mapped[UUID] = mapped_column(ForeignKey("teams.id"), primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger, server_default="0")
    hash: Mapped[bytes | None]
    """None before the first row: the chain begins with `activity_genesis(team_id)`."""
    purged_seq: Mapped[int] = mapped_column(BigInteger, server_default="0")
    """The last number whose row is gone for good; the log begins after it."""
    purged_hash: Mapped[bytes | None]
    """That row's hash, which the first row that is left chains to."""


class ActivityLog(Base):
    """
    One thing that happened in a team, numbered without gaps; the audit trail, partitioned by month. Append-only: a trigger
    refuses all but the functions `purge_activity` and `erase_activity_origin` (and moving a row to its month's partition).

    `hash` is the SHA-256 of the hash before it and of `activity_digest` of the row, which is that of all its fields in
    canonical, length-prefixed bytes. Persons are named by id alone, so that what identifies them can be erased elsewhere.
    `ip_address` and `user_agent` are the only personal data here and stay outside `hash`, which covers their salted
    commitment `origin_hash` instead: erasing them and `origin_salt` leaves the chain valid.
    """

    __tablename__ = "activity_logs"
    __table_args__ = (
        PrimaryKeyConstraint("team_id", "seq", "created_at"),
        CheckConstraint(OUTCOMES, name="outcome"),
        Index("ix_activity_logs_user", "team_id", "user_id", "seq"),
        Index("ix_activity_logs_action", "team_id", "action", "seq"),
        Index("ix_activity_logs_user_action", "team_id", "user_id", "action", "seq"),
        Index("ix_activity_logs_resource_id", "team_id", "resource_id", "seq"),
        Index("ix_activity_logs_resource_type", "team_id", "resource_type", "seq"),
        # Of what few rows have or few are: the others cost these nothing.
        _partial("workspace", "workspace_id"),
        _partial("workspace_action", "workspace_id", "action"),
        _partial("agent", "agent_id"),
        _partial("api_key", "api_key_id"),
        _partial("ip_address", "ip_address"),
        Index(
            "ix_activity_logs_refused",
            "team_id",
            "seq",
            postgresql_where=text("outcome <> 'success'"),
        ),
        # A short list of pending entries (kB), as every search reads it and one insert in many waits for all of it to be
        # merged; without any, the drain appends a third as many rows a second (benchmarks/activity_search.py).
        Index(
            "ix_activity_logs_words",
            "team_id",
            "words",
            "mentions",
            postgresql_using="gin",
            postgresql_ops={"words": "gin_trgm_ops"},
            postgresql_with={"gin_pending_list_limit": "256"},
        ),
        {"postgresql_partition_by": "RANGE (created_at)"},
    )

    team_id: Mapped[UUID] = mapped_column(ForeignKey("teams.id"))
    seq: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime]
    id: Mapped[UUID]
    user_id: Mapped[UUID | None] = mapped_column(ForeignKey("users.id"))
    action: Mapped[str] = mapped_column(String(100))
    resource_type: Mapped[str] = mapped_column(String(50))
    resource_id: Mapped[UUID]
    resource_name: Mapped[str | None]
    agent_id: Mapped[UUID | None]
    api_key_id: Mapped[UUID | None]
    workspace_id: Mapped[UUID | None]
    details: Mapped[Json] = mapped_column("metadata")
    schema_version: Mapped[int] = mapped_column(server_default="1")
    outcome: Mapped[str] = mapped_column(String(20), server_default="success")
    request_id: Mapped[str | None]
    ip_address: Mapped[Address | None]
    user_agent: Mapped[str | None]
    origin_salt: Mapped[bytes | None]
    origin_hash: Mapped[bytes | None]
    hash: Mapped[bytes]
    words: Mapped[str] = mapped_column(server_default="", deferred=True, deferred_raiseload=True)
    """What `q` looks through, as the SQL function `activity_words` makes it of the row; derived, and so outside `hash`."""
    mentions: Mapped[list[UUID]] = mapped_column(
        ARRAY(Uuid), server_default="{}", deferred=True, deferred_raiseload=True
    )
    """The ids among the values of the details, which are found by the whole of them (of `activity_words` too)."""


class ActivityFold(TeamOwned, Base):
    """How far a team's log is counted in the tables below; its lock is the team's fold."""

    __tablename__ = "activity_folds"
    __table_args__ = (PrimaryKeyConstraint("team_id"),)

    seq: Mapped[int] = mapped_column(BigInteger, server_default="0")


class ActivityCount(TeamOwned, Base):
    """How many rows of a team's month (UTC) and workspace have a value in a dimension: an action, or an actor's id."""

    __tablename__ = "activity_counts"
    __table_args__ = (
        UniqueConstraint(
            "team_id",
            "month",
            "dimension",
            "value",
            "workspace_id",
            name="uq_activity_counts",
            postgresql_nulls_not_distinct=True,
        ),
        CheckConstraint(DIMENSIONS, name="dimension"),
        CheckConstraint("n >= 0", name="n"),
    )

    id: Mapped[UUIDv7] = mapped_column(server_default=text("uuid7()"))
    month: Mapped[dt.date]
    """Its first day."""
    workspace_id: Mapped[UUID | None]
    dimension: Mapped[str] = mapped_column(String(20))
    value: Mapped[str] = mapped_column(String(100))
    n: Mapped[Count]


class ActivityDay(TeamOwned, Base):
    """Between which numbers the rows of a team's day (UTC) are: where a search begins that wants a time."""

    __tablename__ = "activity_days"
    __table_args__ = (PrimaryKeyConstraint("team_id", "day"),)

    day: Mapped[dt.date]
    first_seq: Mapped[int] = mapped_column(BigInteger)
    last_seq: Mapped[int] = mapped_column(BigInteger)


class ActivityPerson(TeamOwned, Base):
    """Someone who is named in a team's log, as actor or as whom it happened to: whose names a search looks through."""

    __tablename__ = "activity_people"
    __table_args__ = (PrimaryKeyConstraint("team_id", "user_id"),)

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
