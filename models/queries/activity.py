"""The activity log, read: pages for people, ranges by `seq` for sockets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Text, all_, and_, cast, exists, func, literal, or_, select
from sqlalchemy.dialects.postgresql import ARRAY, JSONPATH
from sqlalchemy.orm import Session, aliased

from models.access.entry import Access
from models.events.catalogue import CATALOGUE
from models.queries.paging import Page, Slice, keyset
from models.tables import (
    ActivityHead,
    ActivityLog,
    Agent,
    DeletedWorkspace,
    Invitation,
    User,
    Workspace,
    WorkspaceMember,
)
from models.tables.workspaces import PRIVATE

Actor = aliased(User, name="actor")
Subject = aliased(User, name="subject")
VALUES = 'strict $.** ? (@.type() != "object" && @.type() != "array")'
"""Every value in the details, however deep."""


@dataclass(frozen=True, slots=True)
class ActivityView:
    """A row of the log with the names of the persons in it, as they are called today."""

    row: ActivityLog
    actor_name: str | None
    agent_name: str | None
    subject_name: str | None
    """Of the person, or the invited address, that it happened to."""

    @property
    def resource_name(self) -> str | None:
        return self.row.resource_name or self.subject_name

    @property
    def summary(self) -> str:
        """What happened, in one sentence of the event catalogue."""
        actor = self.actor_name
        if self.row.agent_id is not None:
            actor = f"{self.agent_name or 'An agent'} for {actor}"
        return summarize(self.row.action, self.row.details, actor=actor, resource=self.resource_name)


def summarize(action: str, details: Mapping[str, Any], *, actor: str | None, resource: str | None) -> str:
    """The catalogue's sentence for an event; the bare action for a type that this release does not know (any more)."""
    declared = CATALOGUE.get(action)
    if declared is None:
        return action
    names = {"actor": actor or "The system", "resource": resource or declared.resource_type}
    try:
        return declared.sentence.format_map({**details, **names})
    except (KeyError, IndexError):  # a row that an older release wrote, with another payload
        return f"{names['actor']}: {action} {names['resource']}"


@dataclass(frozen=True, slots=True)
class ActivityFilter:
    action: Sequence[str] = ()
    user_id: UUID | None = None
    resource_type: str | None = None
    resource_id: UUID | None = None
    since: datetime | None = None
    until: datetime | None = None
    q: str | None = None


def in_team(session: Session, access: Access, wanted: ActivityFilter, page: Page) -> Slice[ActivityView]:
    """The team's log, newest first: what matches every given filter, `since` inclusive, `until` exclusive."""
    statement = (
        select(ActivityLog, Actor.name, Agent.name, func.coalesce(Subject.name, Invitation.email))
        .outerjoin(Actor, Actor.id == ActivityLog.user_id)
        .outerjoin(Agent, Agent.id == ActivityLog.agent_id)
        .outerjoin(
            Invitation,
            (ActivityLog.resource_type == "invitation") & (Invitation.id == ActivityLog.resource_id),
        )
        .outerjoin(Subject, (ActivityLog.resource_type == "user") & (Subject.id == ActivityLog.resource_id))
        .where(ActivityLog.team_id == access.team_id)
    )
    if not access.sees_all_workspaces:
        statement = statement.where(_not_hidden_from(access))
    if wanted.action:
        statement = statement.where(ActivityLog.action.in_(wanted.action))
    if wanted.user_id:
        statement = statement.where(ActivityLog.user_id == wanted.user_id)
    if wanted.resource_type:
        statement = statement.where(ActivityLog.resource_type == wanted.resource_type)
    if wanted.resource_id:
        statement = statement.where(ActivityLog.resource_id == wanted.resource_id)
    if wanted.since:
        statement = statement.where(ActivityLog.created_at >= wanted.since)
    if wanted.until:
        statement = statement.where(ActivityLog.created_at < wanted.until)
    if wanted.q:
        pattern = wanted.q
        statement = statement.where(
            or_(
                ActivityLog.resource_name.icontains(pattern, autoescape=True),
                _said_in_details(pattern),
                ActivityLog.action.icontains(pattern, autoescape=True),
                Actor.name.icontains(pattern, autoescape=True),
                Subject.name.icontains(pattern, autoescape=True),
                Agent.name.icontains(pattern, autoescape=True),
                Invitation.email.icontains(pattern, autoescape=True),
            )
        )
    found = keyset(session, statement, page, ActivityLog.seq, descending=True)
    return Slice([ActivityView(*row) for row in found.items], found.next_key)


def _not_hidden_from(access: Access) -> ColumnElement[bool]:
    """Not of a private workspace that does not list the caller, or did not when it was deleted."""
    listed = exists().where(
        WorkspaceMember.workspace_id == Workspace.id, WorkspaceMember.user_id == access.user_id
    )
    hidden = select(Workspace.id).where(
        Workspace.team_id == access.team_id, Workspace.visibility == PRIVATE, ~listed
    )
    gone = select(DeletedWorkspace.workspace_id).where(
        DeletedWorkspace.team_id == access.team_id, literal(access.user_id) != all_(DeletedWorkspace.user_ids)
    )
    at = ActivityLog.workspace_id
    return or_(at.is_(None), and_(at.not_in(hidden), at.not_in(gone)))


def _said_in_details(pattern: str) -> ColumnElement[bool]:
    """Whether any value of the details contains it: not the field names, which are the same in every row, nor JSON's escapes."""
    value = func.jsonb_path_query(ActivityLog.details, cast(VALUES, JSONPATH)).column_valued("value")
    as_text = value.op("#>>", return_type=Text())(cast([], ARRAY(Text)))
    return exists().where(as_text.icontains(pattern, autoescape=True))


def after(session: Session, team_id: UUID, seq: int, limit: int) -> list[ActivityLog]:
    """The team's rows that follow `seq`, in order: what a socket replays. For callers that have entered the team."""
    statement = (
        select(ActivityLog)
        .where(ActivityLog.team_id == team_id, ActivityLog.seq > seq)
        .order_by(ActivityLog.seq)
        .limit(limit)
    )
    return list(session.scalars(statement))


def heads(session: Session, team_ids: Sequence[UUID]) -> dict[UUID, int]:
    """The last `seq` of each team's log."""
    statement = select(ActivityHead.team_id, ActivityHead.seq).where(ActivityHead.team_id.in_(team_ids))
    return {row.team_id: row.seq for row in session.execute(statement)}
