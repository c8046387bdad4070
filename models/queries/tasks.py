"""A team's tasks."""

from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from models.access.entry import Access
from models.errors import NotFound
from models.queries import workspaces
from models.queries.paging import Page, Slice, keyset
from models.tables import Task


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


def get(session: Session, access: Access, task_id: UUID, *, for_update: bool = False) -> Task:
    """One task of the team; raises NotFound."""
    statement = select(Task).where(Task.team_id == access.team_id, Task.id == task_id)
    task = session.scalar(statement.with_for_update(key_share=True) if for_update else statement)
    if task is None:
        raise NotFound("task")
    return task


def count_in_workspace(session: Session, access: Access, workspace_id: UUID) -> int:
    statement = select(func.count()).where(Task.team_id == access.team_id, Task.workspace_id == workspace_id)
    return session.scalar(statement) or 0
