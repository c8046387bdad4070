"""Workspaces: making, changing and deleting."""

from typing import Any

from sqlalchemy.orm import Session

from models.access.entry import Access
from models.events.catalogue import WorkspaceCreated, WorkspaceDeleted, WorkspaceUpdated
from models.events.record import record
from models.operations.changes import apply_changes
from models.queries import tasks
from models.tables import Workspace


def create(session: Session, access: Access, *, name: str, description: str | None = None) -> Workspace:
    workspace = Workspace(
        team_id=access.team_id, name=name, description=description, created_by=access.user_id
    )
    session.add(workspace)
    session.flush()  # the event names its id
    record(session, access, WorkspaceCreated(workspace_id=workspace.id, name=workspace.name))
    return workspace


def update(session: Session, access: Access, workspace: Workspace, **values: Any) -> None:
    """Changes `name` and `description`, as given; the caller has locked the row."""
    if changes := apply_changes(session, workspace, values):
        record(
            session, access, WorkspaceUpdated(workspace_id=workspace.id, name=workspace.name, changes=changes)
        )


def delete(session: Session, access: Access, workspace: Workspace) -> None:
    """Deletes the workspace with its tasks. What they used stays counted, and what happened stays in the log."""
    deleted = tasks.count_in_workspace(session, access, workspace.id)
    session.delete(workspace)
    session.flush()  # in the lock's order, before the event
    record(
        session,
        access,
        WorkspaceDeleted(workspace_id=workspace.id, name=workspace.name, tasks_deleted=deleted),
    )
