"""What a caller wants of the activity log, and what of it they may see: conditions that every reader of the log shares."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, all_, and_, exists, false, func, literal, or_, select
from sqlalchemy.orm import InstrumentedAttribute, aliased

from models.access.entry import Access
from models.tables import ActivityLog, Agent, DeletedWorkspace, Invitation, User, Workspace, WorkspaceMember
from models.tables.activity import SUCCESS
from models.tables.workspaces import PRIVATE

Actor = aliased(User, name="actor")
Subject = aliased(User, name="subject")
SEPARATOR = "\uffff"
"""Between the words of a row (the SQL function `activity_words`); no character, and so in no text that anybody looks for."""


@dataclass(frozen=True, slots=True)
class ActivityFilter:
    """
    Each narrows what the others leave; `since` inclusive, `until` exclusive. `q` is a substring, in any case, of what happened:
    names, the action, every value of the details; an id among them is found by the whole of it.
    """

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
    return [*narrowed(wanted), *([_says(wanted.q)] if wanted.q else [])]


def narrowed(wanted: ActivityFilter) -> list[ColumnElement[bool]]:
    """What all but `q` asks of the log's rows alone."""
    found: list[ColumnElement[bool]] = []
    if wanted.action:
        found.append(ActivityLog.action.in_(wanted.action))
    given = {name: getattr(wanted, name) for name in EQUAL}
    found.extend(getattr(ActivityLog, name) == value for name, value in given.items() if value is not None)
    if wanted.outcome is not None and wanted.outcome != SUCCESS:
        found.append(ActivityLog.outcome != SUCCESS)  # as the index of refused attempts says it
    if wanted.since:
        found.append(ActivityLog.created_at >= wanted.since)
    if wanted.until:
        found.append(ActivityLog.created_at < wanted.until)
    return found


def visible(access: Access) -> list[ColumnElement[bool]]:
    """The team's rows, but for those of a private workspace that does not list the caller, or did not when it was deleted."""
    return [ActivityLog.team_id == access.team_id, *within_sight(access, ActivityLog.workspace_id)]


def within_sight(
    access: Access, workspace_id: ColumnElement[UUID] | InstrumentedAttribute[UUID | None]
) -> list[ColumnElement[bool]]:
    """Of rows that are about a workspace, if any: that the caller may know of it."""
    if access.sees_all_workspaces:
        return []
    listed = exists().where(
        WorkspaceMember.workspace_id == Workspace.id, WorkspaceMember.user_id == access.user_id
    )
    hidden = select(Workspace.id).where(
        Workspace.team_id == access.team_id, Workspace.visibility == PRIVATE, ~listed
    )
    gone = select(DeletedWorkspace.workspace_id).where(
        DeletedWorkspace.team_id == access.team_id, literal(access.user_id) != all_(DeletedWorkspace.user_ids)
    )
    return [or_(workspace_id.is_(None), and_(workspace_id.not_in(hidden), workspace_id.not_in(gone)))]


def worded(pattern: str) -> ColumnElement[bool]:
    """Whether the row itself says it: its resource's name, its action or a value of its details, an id by the whole of it."""
    says = false() if SEPARATOR in pattern else ActivityLog.words.like(like(pattern))
    with suppress(ValueError):
        whole = UUID(pattern)
        if str(whole) == pattern.lower():
            return or_(says, ActivityLog.mentions.contains([whole]))
    return says


def like(pattern: str) -> ColumnElement[str]:
    """For LIKE on lower-cased text: anything that contains the pattern, as it is written, in any case."""
    escaped = pattern.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return func.lower(f"%{escaped}%")


def _says(pattern: str) -> ColumnElement[bool]:
    names = (Actor.name, Subject.name, Agent.name, Invitation.email)
    return or_(worded(pattern), *(func.lower(name).like(like(pattern)) for name in names))
