"""
The log, counted by action, actor and workspace: what is counted already, by whole months, plus the rows beyond the watermark and
those of the months that the question cuts, in one statement and so in one snapshot. Exact at once, whenever the fold last ran.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, Select, String, cast, func, select, tuple_, union_all
from sqlalchemy.orm import Session

from models.access.entry import Access
from models.queries.activity_filters import ActivityFilter, narrowed, visible, within_sight
from models.tables import ActivityCount, ActivityFold, ActivityLog, Agent, User, Workspace

MOST = 200
"""How many of each kind are shown, the most frequent ones."""


@dataclass(frozen=True, slots=True)
class Facet:
    value: str
    count: int
    name: str | None = None
    """As it is called today; None for what is gone."""


@dataclass(frozen=True, slots=True)
class Facets:
    total: int
    actions: Sequence[Facet]
    users: Sequence[Facet]
    """Who acted, in person or through an agent."""
    agents: Sequence[Facet]
    workspaces: Sequence[Facet]


Row = tuple[str | None, str | None, str | None, UUID | None, Any]
"""Action, person, agent (as text), workspace, and how many rows."""


class Months(NamedTuple):
    """The months of a question that it has whole: from one on and before another, by their first days; None is no bound."""

    first: date | None
    end: date | None


class Span(NamedTuple):
    since: datetime | None
    until: datetime | None


def count(
    session: Session,
    access: Access,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    workspace_id: UUID | None = None,
) -> Facets:
    """How many rows that the caller may see have each value, from `since` on and before `until`, of one workspace or all."""
    wanted = ActivityFilter(since=since, until=until, workspace_id=workspace_id)
    months, cut = _divided(Span(since, until))
    folded = (
        select(func.coalesce(func.max(ActivityFold.seq), 0))
        .where(ActivityFold.team_id == access.team_id)
        .scalar_subquery()
    )
    sources = [_rows(access, wanted, ActivityLog.seq > folded)]
    if months:
        sources.append(_counted(access, months, workspace_id))
    for span in cut:
        of_span = replace(wanted, since=span.since, until=span.until)
        sources.append(_rows(access, of_span, ActivityLog.seq <= folded))
    actions, users, agents, places = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    for action, user_id, agent_id, place, n in session.execute(union_all(*sources)):
        for counter, value in ((actions, action), (users, user_id), (agents, agent_id)):
            if value is not None:
                counter[value] += int(n)
        if action is not None and place is not None:
            places[str(place)] += int(n)
    return Facets(
        total=actions.total(),
        actions=_most(actions),
        users=_named(session, _most(users), select(User.id, User.name), User.id),
        agents=_named(session, _most(agents), _of_team(access, Agent), Agent.id),
        workspaces=_named(session, _most(places), _of_team(access, Workspace), Workspace.id),
    )


def _divided(span: Span) -> tuple[Months | None, list[Span]]:
    """The whole months of a span, if it has any, and what it has besides."""
    first = _next_month_unless_begun(span.since) if span.since else None
    end = (
        span.until.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        if span.until
        else None
    )
    if first and end and first >= end:
        return None, [span]
    cut = [Span(span.since, first)] if first and span.since != first else []
    if end and span.until != end:
        cut.append(Span(end, span.until))
    return Months(first.date() if first else None, end.date() if end else None), cut


def _next_month_unless_begun(time: datetime) -> datetime:
    begun = time.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    if begun == time:
        return begun
    try:
        return begun.replace(year=begun.year + begun.month // 12, month=begun.month % 12 + 1)
    except ValueError:  # the year 10000; nothing is later
        return time


def _counted(access: Access, months: Months, workspace_id: UUID | None) -> Select[*Row]:
    table = ActivityCount
    actions, users, agents = (
        func.max(table.value).filter(table.dimension == dimension)
        for dimension in ("action", "user", "agent")
    )
    statement = (
        select(actions, users, agents, table.workspace_id, func.sum(table.n))
        .where(table.team_id == access.team_id, *within_sight(access, table.workspace_id))
        .group_by(table.dimension, table.value, table.workspace_id)
    )
    if months.first:
        statement = statement.where(table.month >= months.first)
    if months.end:
        statement = statement.where(table.month < months.end)
    return statement if workspace_id is None else statement.where(table.workspace_id == workspace_id)


def _rows(access: Access, wanted: ActivityFilter, among: ColumnElement[bool]) -> Select[*Row]:
    action, workspace = ActivityLog.action, ActivityLog.workspace_id
    user, agent = cast(ActivityLog.user_id, String), cast(ActivityLog.agent_id, String)
    return (
        select(action, user, agent, workspace, func.count())
        .where(*visible(access), *narrowed(wanted), among)
        .group_by(func.grouping_sets(tuple_(action, workspace), tuple_(user), tuple_(agent)))
    )


def _most(counts: Counter[str]) -> list[Facet]:
    """The most frequent ones; of those as frequent, in the order of their values."""
    ranked = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
    return [Facet(value, n) for value, n in ranked[:MOST]]


def _of_team(access: Access, table: type[Agent] | type[Workspace]) -> Select[UUID, str]:
    return select(table.id, table.name).where(table.team_id == access.team_id)


def _named(
    session: Session, facets: list[Facet], names: Select[UUID, str], by: ColumnElement[UUID] | Any
) -> list[Facet]:
    ids = [UUID(facet.value) for facet in facets]
    if not ids:
        return []
    called = {str(id_): name for id_, name in session.execute(names.where(by.in_(ids)))}
    return [replace(facet, name=called.get(facet.value)) for facet in facets]
