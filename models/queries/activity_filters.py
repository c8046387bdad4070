"""What a caller wants of the activity log, and what of it they may see: conditions that every reader of the log shares."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, Text, all_, and_, cast, exists, func, literal, or_, select
from sqlalchemy.dialects.postgresql import ARRAY, JSONPATH
from sqlalchemy.orm import aliased

from models.access.entry import Access
from models.tables import ActivityLog, Agent, DeletedWorkspace, Invitation, User, Workspace, WorkspaceMember
from models.tables.workspaces import PRIVATE

Actor = aliased(User, name="actor")
Subject = aliased(User, name="subject")
VALUES = 'strict $.** ? (@.type() != "object" && @.type() != "array")'
"""Every value in the details, however deep."""


@dataclass(frozen=True, slots=True)
class ActivityFilter:
    """Each narrows what the others leave; `since` inclusive, `until` exclusive, `q` a substring of what happened, in any case."""

    action: Sequence[str] = ()
    user_id: UUID | None = None
    agent_id: UUID | None = None
    api_key_id: UUID | None = None
    resource_type: str | None = None
    resource_id: UUID | None = None
    workspace_id: UUID | None = None
    outcome: str | None = None
    ip_address: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    q: str | None = None


EQUAL = (
    "user_id", "agent_id", "api_key_id", "resource_type", "resource_id", "workspace_id", "outcome", "ip_address",
)  # fmt: skip


def conditions(wanted: ActivityFilter) -> list[ColumnElement[bool]]:
    """Of a statement that models.queries.activity.named has joined, where `q` is given."""
    found: list[ColumnElement[bool]] = []
    if wanted.action:
        found.append(ActivityLog.action.in_(wanted.action))
    given = {name: getattr(wanted, name) for name in EQUAL}
    found.extend(getattr(ActivityLog, name) == value for name, value in given.items() if value is not None)
    if wanted.since:
        found.append(ActivityLog.created_at >= wanted.since)
    if wanted.until:
        found.append(ActivityLog.created_at < wanted.until)
    if wanted.q:
        found.append(_says(wanted.q))
    return found


def visible(access: Access) -> list[ColumnElement[bool]]:
    """The team's rows, but for those of a private workspace that does not list the caller, or did not when it was deleted."""
    of_team = ActivityLog.team_id == access.team_id
    if access.sees_all_workspaces:
        return [of_team]
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
    return [of_team, or_(at.is_(None), and_(at.not_in(hidden), at.not_in(gone)))]


def _says(pattern: str) -> ColumnElement[bool]:
    names = (
        ActivityLog.resource_name, ActivityLog.action, Actor.name, Subject.name, Agent.name, Invitation.email,
    )  # fmt: skip
    return or_(*(name.icontains(pattern, autoescape=True) for name in names), _said_in_details(pattern))


def _said_in_details(pattern: str) -> ColumnElement[bool]:
    """Whether any value of the details contains it: not the field names, which are the same in every row, nor JSON's escapes."""
    value = func.jsonb_path_query(ActivityLog.details, cast(VALUES, JSONPATH)).column_valued("value")
    as_text = value.op("#>>", return_type=Text())(cast([], ARRAY(Text)))
    return exists().where(as_text.icontains(pattern, autoescape=True))
