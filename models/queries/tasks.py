"""A team's tasks."""

from collections.abc import Collection, Sequence
from uuid import UUID

from sqlalchemy import ColumnElement, Select, func, literal, or_, select, true
from sqlalchemy.orm import Session, aliased

from models.access.entry import Access
from models.errors import NotFound
from models.queries import workspaces
from models.queries.paging import Page, Slice, keyset
from models.tables import Task, Workspace

# As a constant of the statement: for a parameter, a plan made once for all values can't use the index of pending tasks.
PENDING = Task.status == literal("pending", literal_execute=True)
LEASE_RAN_OUT = Task.lease_id.is_not(None) & (Task.lease_expires_at <= func.now())
"""As the transaction began, which an index can answer; a lease that runs out meanwhile is found a moment later."""


def in_workspace(
    session: Session,
    access: Access,
    workspace_id: UUID,
    page: Page,
    *,
    status: str | None = None,
    assignee_id: UUID | None = None,
) -> Slice[Task]:
    """The workspace's tasks, newest first; raises NotFound for a workspace that is not the team's."""
    workspaces.get(session, access, workspace_id)
    statement = select(Task).where(Task.team_id == access.team_id, Task.workspace_id == workspace_id)
    if status is not None:
        statement = statement.where(Task.status == status)
    if assignee_id is not None:
        statement = statement.where(Task.assignee_id == assignee_id)
    return keyset(session, statement, page, Task.id, descending=True)


def in_team(
    session: Session,
    access: Access,
    page: Page,
    *,
    workspace_id: UUID | None = None,
    status: str | None = None,
    assignee_id: UUID | None = None,
    agent_id: UUID | None = None,
) -> Slice[Task]:
    """The tasks of all workspaces that the caller may see, newest first."""
    statement = (
        select(Task)
        .join(Workspace, Workspace.id == Task.workspace_id)
        .where(Task.team_id == access.team_id, workspaces.visible_to(access))
    )
    wanted = {
        "workspace_id": workspace_id,
        "status": status,
        "assignee_id": assignee_id,
        "agent_id": agent_id,
    }
    for name, value in wanted.items():
        if value is not None:
            statement = statement.where(getattr(Task, name) == value)
    return keyset(session, statement, page, Task.id, descending=True)


NEWEST_SEARCHED = 2_000
"""Of a workspace's tasks, by title: so that a word which nobody used costs little in a team of millions."""


def titled(session: Session, access: Access, text: str, limit: int) -> Sequence[Task]:
    """The newest tasks that the caller may see and whose title has this in it, in any case; of each workspace's newest alone."""
    newest = (
        select(Task)
        .where(Task.team_id == access.team_id, Task.workspace_id == Workspace.id)
        .order_by(Task.id.desc())
        .limit(NEWEST_SEARCHED)
        .correlate(Workspace)
        .lateral("newest")
    )
    found = aliased(Task, newest)
    statement = (
        select(found)
        .select_from(Workspace)
        .join(newest, true())
        .where(Workspace.team_id == access.team_id, workspaces.visible_to(access))
        .where(found.title.icontains(text, autoescape=True))
    )
    return session.scalars(statement.order_by(found.id.desc()).limit(limit)).all()


def counts(session: Session, access: Access) -> dict[UUID, dict[str, int]]:
    """How many tasks each workspace that the caller may see has of each status."""
    statement = (
        select(Task.workspace_id, Task.status, func.count())
        .join(Workspace, Workspace.id == Task.workspace_id)
        .where(Task.team_id == access.team_id, workspaces.visible_to(access))
        .group_by(Task.workspace_id, Task.status)
    )
    found: dict[UUID, dict[str, int]] = {}
    for workspace_id, status, count in session.execute(statement):
        found.setdefault(workspace_id, {})[status] = count
    return found


def get(session: Session, access: Access, task_id: UUID, *, for_update: bool = False) -> Task:
    """One task of the team, in a workspace that the caller may see; raises NotFound."""
    statement = (
        select(Task)
        .join(Workspace, Workspace.id == Task.workspace_id)
        .where(Task.team_id == access.team_id, Task.id == task_id, workspaces.visible_to(access))
    )
    task = session.scalar(statement.with_for_update(key_share=True, of=Task) if for_update else statement)
    if task is None:
        raise NotFound("task")
    return task


def count_in_workspace(session: Session, access: Access, workspace_id: UUID) -> int:
    statement = select(func.count()).where(Task.team_id == access.team_id, Task.workspace_id == workspace_id)
    return session.scalar(statement) or 0


def next_pending(
    session: Session, access: Access, workspace: Workspace, *, types: Collection[str] | None = None
) -> Task | None:
    """The oldest pending task that the caller may claim, locked; passes over those that others have locked."""
    return session.scalar(_claimable(access, workspace, types).where(PENDING))


def next_expired(
    session: Session, access: Access, workspace: Workspace, *, types: Collection[str] | None = None
) -> Task | None:
    """The oldest task whose lease ran out and that the caller may claim then, locked; passes over as `next_pending` does."""
    return session.scalar(_claimable(access, workspace, types).where(LEASE_RAN_OUT))


def _claimable(access: Access, workspace: Workspace, types: Collection[str] | None) -> Select[Task]:
    """The workspace's tasks that are nobody's or the caller's, the first one locked once more conditions are added."""
    conditions: list[ColumnElement[bool]] = [
        Task.team_id == access.team_id,
        Task.workspace_id == workspace.id,
        or_(Task.assignee_id.is_(None), Task.assignee_id == access.user_id),
    ]
    if types is not None:
        conditions.append(Task.type.in_(types))
    return (
        select(Task)
        .where(*conditions)
        .order_by(Task.id)
        .limit(1)
        .with_for_update(key_share=True, skip_locked=True)
    )
