"""A team's workspaces, as far as the caller may see them, and who is listed in one."""

from collections.abc import Collection, Sequence
from uuid import UUID

from sqlalchemy import ColumnElement, all_, case, exists, func, literal, null, or_, select, true
from sqlalchemy.orm import InstrumentedAttribute, Session, contains_eager

from models.access.entry import Access
from models.access.permissions import Permission
from models.errors import NotFound
from models.queries.paging import Page, Slice, keyset
from models.tables import DeletedWorkspace, PermissionGrant, Workspace, WorkspaceMember
from models.tables.workspaces import OPEN, PRIVATE


def visible_to(access: Access) -> ColumnElement[bool]:
    """Whether a workspace is open to the team, or lists the caller; the owner sees all of them."""
    if access.sees_all_workspaces:
        return true()
    listed = exists().where(
        WorkspaceMember.workspace_id == Workspace.id, WorkspaceMember.user_id == access.user_id
    )
    return or_(Workspace.visibility == OPEN, listed)


def _readable_by(access: Access) -> ColumnElement[bool]:
    """Visible, and not in a role there that can't read it."""
    if access.sees_all_workspaces:
        return true()
    reading = select(PermissionGrant.role).where(
        PermissionGrant.resource == Permission.workspaces_read.resource,
        PermissionGrant.action == Permission.workspaces_read.action,
        PermissionGrant.allowed,
        or_(PermissionGrant.team_id.is_(None), PermissionGrant.team_id == access.team_id),
    )
    barred = exists().where(
        WorkspaceMember.workspace_id == Workspace.id,
        WorkspaceMember.user_id == access.user_id,
        WorkspaceMember.role.not_in(reading),
    )
    return visible_to(access) & ~barred


def in_team(session: Session, access: Access, page: Page) -> Slice[Workspace]:
    """The workspaces that the caller may read, oldest first."""
    statement = select(Workspace).where(Workspace.team_id == access.team_id, _readable_by(access))
    return keyset(session, statement, page, Workspace.id)


def named(session: Session, access: Access, text: str, limit: int) -> Sequence[Workspace]:
    """The oldest workspaces that the caller may read and whose name has this in it, in any case."""
    statement = select(Workspace).where(
        Workspace.team_id == access.team_id,
        _readable_by(access),
        Workspace.name.icontains(text, autoescape=True),
    )
    return session.scalars(statement.order_by(Workspace.id).limit(limit)).all()


def counts_by_member(
    session: Session, access: Access, user_ids: Collection[UUID], owner_id: UUID
) -> dict[UUID, int]:
    """How many workspaces each of these members sees, of those that the caller sees."""
    seen = (Workspace.team_id == access.team_id, visible_to(access))
    public, private = (
        session.scalar(select(func.count()).where(*seen, Workspace.visibility == visibility)) or 0
        for visibility in (OPEN, PRIVATE)
    )
    seen_private = select(Workspace.id).where(*seen, Workspace.visibility == PRIVATE)
    listed = session.execute(
        select(WorkspaceMember.user_id, func.count())
        .where(
            WorkspaceMember.workspace_id.in_(seen_private.correlate(None)),
            WorkspaceMember.user_id.in_(user_ids),
        )
        .group_by(WorkspaceMember.user_id)
    )
    private_by_member = {row[0]: row[1] for row in listed} | {owner_id: private}
    return {user_id: public + private_by_member.get(user_id, 0) for user_id in user_ids}


def get(session: Session, access: Access, workspace_id: UUID, *, for_update: bool = False) -> Workspace:
    """One workspace of the team that the caller may see; raises NotFound."""
    statement = select(Workspace).where(
        Workspace.team_id == access.team_id, Workspace.id == workspace_id, visible_to(access)
    )
    workspace = session.scalar(statement.with_for_update(key_share=True) if for_update else statement)
    if workspace is None:
        raise NotFound("workspace")
    return workspace


def visible(session: Session, access: Access, ids: Collection[UUID]) -> set[UUID]:
    """Which of the ids are workspaces of the team that the caller may see."""
    if not ids:
        return set()
    statement = select(Workspace.id).where(
        Workspace.team_id == access.team_id, Workspace.id.in_(ids), visible_to(access)
    )
    return set(session.scalars(statement))


def shown_id(access: Access, workspace_id: InstrumentedAttribute[UUID | None]) -> ColumnElement[UUID | None]:
    """
    The id, or NULL where it names a private workspace that does not list the caller, or did not when it was deleted: what
    was used there is the team's all the same, and where is not the caller's business.
    """
    if access.sees_all_workspaces:
        return workspace_id.expression
    listed = exists().where(
        WorkspaceMember.workspace_id == Workspace.id, WorkspaceMember.user_id == access.user_id
    )
    closed = select(Workspace.id).where(
        Workspace.team_id == access.team_id, Workspace.visibility == PRIVATE, ~listed
    )
    gone = select(DeletedWorkspace.workspace_id).where(
        DeletedWorkspace.team_id == access.team_id, literal(access.user_id) != all_(DeletedWorkspace.user_ids)
    )
    return case((or_(workspace_id.in_(closed), workspace_id.in_(gone)), null()), else_=workspace_id)


def members(session: Session, access: Access, workspace: Workspace, page: Page) -> Slice[WorkspaceMember]:
    """Who is listed in the workspace, each with the user loaded."""
    statement = (
        select(WorkspaceMember)
        .join(WorkspaceMember.user)
        .options(contains_eager(WorkspaceMember.user))
        .where(WorkspaceMember.team_id == access.team_id, WorkspaceMember.workspace_id == workspace.id)
    )
    return keyset(session, statement, page, WorkspaceMember.user_id)


def member(session: Session, workspace: Workspace, user_id: UUID) -> WorkspaceMember | None:
    """One who is listed, with the user loaded; None for who is not."""
    return session.scalar(
        select(WorkspaceMember)
        .join(WorkspaceMember.user)
        .options(contains_eager(WorkspaceMember.user))
        .where(WorkspaceMember.workspace_id == workspace.id, WorkspaceMember.user_id == user_id)
        .execution_options(populate_existing=True)
    )


def user_ids(session: Session, workspace: Workspace) -> list[UUID]:
    """Everyone who is listed."""
    return list(
        session.scalars(select(WorkspaceMember.user_id).where(WorkspaceMember.workspace_id == workspace.id))
    )
