"""What a team's usage consists of, and what it will come to."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from fractions import Fraction
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, Text, cast, func, select, union_all
from sqlalchemy.orm import Session

from models.access.entry import Access
from models.errors import Invalid
from models.queries import usage, workspaces
from models.queries.paging import Page, Slice, keyset
from models.queries.usage import round_half_up
from models.tables import Agent, ApiKey, UsageBreakdown, UsagePending, User, Workspace
from models.tables.usage import Metric

WEEK = 7


class Group(StrEnum):
    """What the usage can be broken down by, each value being the name in the interface."""

    user = "user"
    agent = "agent"
    api_key = "api_key"
    workspace = "workspace"
    model = "model"
    part = "part"
    date = "date"

    @property
    def column(self) -> str:
        return f"{self}_id" if self in NAMED else str(self)


NAMED: dict[Group, Any] = {
    Group.user: User,
    Group.agent: Agent,
    Group.api_key: ApiKey,
    Group.workspace: Workspace,
}
"""Those that are ids, whose present names are joined."""


@dataclass(frozen=True, slots=True)
class Projection:
    """A metric in a month: what was used so far, and what it comes to by the month's end; of storage the level."""

    used: int
    linear: int
    """At the pace of the month so far."""
    last_7_days: int
    """At the pace of the seven full days (UTC) before today."""


def breakdown(
    session: Session,
    access: Access,
    *,
    since: date,
    until: date,
    by: Sequence[Group],
    metric: Metric | None,
    page: Page,
) -> Slice[dict[str, Any]]:
    """
    The usage from `since` to `until`, both included, by metric and by every group, in their order; exact at once. Of storage
    it is the net change. What was used in a workspace that the caller may not see is there under none.
    """
    groups = list(dict.fromkeys(by))
    keys = [group.column for group in groups] + ["metric"]
    metrics = list(Metric) if metric is None else [metric]
    sources = union_all(
        *(
            source(access, table, keys).where(
                table.date >= since, table.date <= until, table.metric.in_(metrics)
            )
            for table in (UsageBreakdown, UsagePending)
        )
    ).subquery()
    columns = [sources.c[key] for key in keys]
    summed = select(*columns, func.sum(sources.c.quantity).label("quantity")).group_by(*columns).subquery()
    statement: Select[*tuple[Any, ...]] = select(summed)
    for group in groups:
        if table := NAMED.get(group):
            statement = statement.add_columns(table.name.label(f"{group}_name"))
            statement = statement.outerjoin(table, table.id == summed.c[group.column])
    order: list[ColumnElement[str]] = [func.coalesce(cast(summed.c[key], Text), "") for key in keys]
    found = keyset(session, statement, page, *order)
    names = [column.name for column in statement.selected_columns]
    items = [dict(zip(names, row, strict=True)) for row in found.items]
    for item in items:
        item["quantity"] = int(item["quantity"])
    return Slice(items, found.next_key)


def names(session: Session, group: Group, ids: Collection[UUID]) -> dict[UUID, str]:
    """The present names of those that a group of the team's usage names by id, and of nobody else."""
    if not ids:
        return {}
    table = NAMED[group]
    return {
        row.id: row.name for row in session.execute(select(table.id, table.name).where(table.id.in_(ids)))
    }


def projection(session: Session, access: Access, *, year: int, month: int) -> dict[Metric, Projection]:
    """What the month will come to by its end; of one that has ended, what it came to. Invalid for one that has not begun."""
    first = date(year, month, 1)
    begins = datetime(year, month, 1, tzinfo=UTC)
    ends = (begins + timedelta(days=32)).replace(day=1)
    now = min(datetime.now(UTC), ends)
    if now < begins:
        raise Invalid({"month": ["This month has not begun."]})
    used = usage.total(session, access, since=first, until=(ends - timedelta(days=1)).date())
    before = usage.total(session, access, since=first, until=first - timedelta(days=1))
    today = now.date()
    week = usage.total(session, access, since=today - timedelta(days=WEEK), until=today - timedelta(days=1))
    week_before = usage.total(session, access, since=today, until=today - timedelta(days=WEEK + 1))
    so_far, left = _days(now - begins), _days(ends - now)
    projected = {}
    for metric in Metric:
        level, grown = getattr(used, metric), getattr(used, metric)
        last = getattr(week, metric)
        if metric is Metric.storage_bytes:
            grown -= before.storage_bytes
            last -= week_before.storage_bytes
        linear = level + (grown * left / so_far if so_far else 0)
        weekly = level + last * left / WEEK
        projected[metric] = Projection(
            level, max(round_half_up(Fraction(linear)), 0), max(round_half_up(Fraction(weekly)), 0)
        )
    return projected


def source(access: Access, table: Any, keys: Sequence[str]) -> Select[*tuple[Any, ...]]:
    """The team's rows of one of the two tables that make up the usage, without what names a workspace that is hidden."""
    columns: list[Any] = [
        workspaces.shown_id(access, table.workspace_id).label(key)
        if key == "workspace_id"
        else getattr(table, key)
        for key in keys
    ]
    return select(*columns, table.quantity).where(table.team_id == access.team_id)


def _days(time: timedelta) -> Fraction:
    return Fraction(time // timedelta(microseconds=1), 86_400 * 10**6)
