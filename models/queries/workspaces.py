"""A team's workspaces."""

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from models.access.entry import Access
from models.errors import NotFound
from models.queries.paging import Page, Slice, keyset
from models.tables import Workspace


def in_team(session: Session, access: Access, page: Page) -> Slice[Workspace]:
    """The workspaces, oldest first."""
    return keyset(session, select(Workspace).where(Workspace.team_id == access.team_id), page, Workspace.id)


def get(session: Session, access: Access, workspace_id: UUID, *, for_update: bool = False) -> Workspace:
    """One workspace of the team; raises NotFound."""
    statement = select(Workspace).where(Workspace.team_id == access.team_id, Workspace.id == workspace_id)
    workspace = session.scalar(statement.with_for_update(key_share=True) if for_update else statement)
    if workspace is None:
        raise NotFound("workspace")
    return workspace
