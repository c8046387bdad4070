"""
Workspaces: making, changing and deleting, and who is listed in them.

A workspace is open to the team or private to those listed in it (and the team's owner). Whoever is listed may have a
role in it that differs from theirs in the team. Lists are changed under the team's lock, as memberships are.
"""

from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from models.access.entry import Access, reenter
from models.access.permissions import Permission
from models.access.power import WORKSPACE_SCOPED, effective, refuse_above
from models.errors import Conflict, Invalid, NotFound
from models.events.catalogue import (
    WorkspaceCreated,
    WorkspaceDeleted,
    WorkspaceMemberAdded,
    WorkspaceMemberRemoved,
    WorkspaceMemberRoleChanged,
    WorkspaceUpdated,
)
from models.events.record import record
from models.operations.changes import apply_changes
from models.queries import members, tasks, workspaces
from models.tables import DeletedWorkspace, Team, TeamMember, Workspace, WorkspaceMember
from models.tables.workspaces import OPEN, PRIVATE


def create(
    session: Session, access: Access, *, name: str, description: str | None = None, visibility: str = OPEN
) -> Workspace:
    """A new workspace; whoever makes a private one is listed in it."""
    workspace = Workspace(
        team_id=access.team_id,
        name=name,
        description=description,
        visibility=visibility,
        created_by=access.user_id,
    )
    session.add(workspace)
    session.flush()  # the event names its id
    if visibility == PRIVATE:
        _list(session, workspace, access.user_id)
    record(session, access, WorkspaceCreated(workspace_id=workspace.id, name=workspace.name))
    return workspace


def update(session: Session, access: Access, workspace: Workspace, **values: Any) -> None:
    """
    Changes `name`, `description` and `visibility`, as given; the caller has locked the team, then the row. Whoever makes it
    private stays in it. That takes it from all others, so it needs what deleting it needs, but for whoever made it.
    """
    access = reenter(session, access, Permission.workspaces_update, workspace_id=workspace.id)
    closes = values.get("visibility") == PRIVATE != workspace.visibility
    if closes and workspace.created_by != access.user_id:
        access.require(Permission.workspaces_delete)
    if changes := apply_changes(session, workspace, values):
        if closes and workspaces.member(session, workspace, access.user_id) is None:
            _list(session, workspace, access.user_id)
        record(
            session, access, WorkspaceUpdated(workspace_id=workspace.id, name=workspace.name, changes=changes)
        )


def delete(session: Session, access: Access, workspace: Workspace) -> None:
    """
    Deletes the workspace with its tasks; the caller has locked the team, then the row. What they used stays counted, and
    what happened stays in the log.
    """
    access = reenter(session, access, Permission.workspaces_delete, workspace_id=workspace.id)
    deleted = tasks.count_in_workspace(session, access, workspace.id)
    if workspace.visibility == PRIVATE:  # its events stay hidden from all others
        session.add(
            DeletedWorkspace(
                team_id=workspace.team_id,
                workspace_id=workspace.id,
                user_ids=workspaces.user_ids(session, workspace),
            )
        )
    session.delete(workspace)
    session.flush()  # in the lock's order, before the event
    record(
        session,
        access,
        WorkspaceDeleted(workspace_id=workspace.id, name=workspace.name, tasks_deleted=deleted),
    )


def set_member(
    session: Session,
    access: Access,
    team: Team,
    workspace: Workspace,
    member: TeamMember,
    *,
    role: str | None,
) -> WorkspaceMember:
    """
    Lists the member in the workspace, with `role` in it (None: the same as in the team), or changes that role.

    Raises Conflict for a role of the owner's, who is an admin everywhere; Invalid for a role that does not exist here; and
    PermissionDenied if the member has, or would have, more in this workspace than the actor.
    """
    access = reenter(session, access, Permission.workspaces_update, workspace_id=workspace.id)
    if role is not None and member.user_id == team.owner_id:
        raise Conflict("The owner is an admin in every workspace.")
    listed = workspaces.member(session, workspace, member.user_id)
    previous = listed.role if listed else None
    if role is not None and not members.permissions_of_role(session, team.id, role):
        raise Invalid({"role": ["There is no such role in this team."]})
    if role != previous:
        refuse_above_in_workspace(session, access, member, previous)
        refuse_above_in_workspace(session, access, member, role)
    said: dict[str, Any] = {
        "workspace_id": workspace.id,
        "name": workspace.name,
        "user_id": member.user_id,
        "role": role,
    }
    if listed is None:
        listed = _list(session, workspace, member.user_id, role)
        record(session, access, WorkspaceMemberAdded(**said))
    elif role != previous:
        listed.role = role
        session.flush()  # in the lock's order, before the event
        record(session, access, WorkspaceMemberRoleChanged(**said, from_role=previous))
    return workspaces.member(session, workspace, member.user_id) or listed


def remove_member(
    session: Session, access: Access, team: Team, workspace: Workspace, member: TeamMember
) -> None:
    """
    Takes the member off the workspace's list, or oneself. NotFound for who is not listed; PermissionDenied for who has, or
    would have without a role there, more in this workspace than the actor.
    """
    oneself = member.user_id == access.user_id and access.session_id is not None  # in person, with no key
    needed = None if oneself else Permission.workspaces_update
    access = reenter(session, access, needed, workspace_id=workspace.id)
    listed = workspaces.member(session, workspace, member.user_id)
    if listed is None:
        raise NotFound("member")
    if not oneself:
        refuse_above_in_workspace(session, access, member, listed.role)
    if listed.role is not None and workspace.visibility == OPEN:
        # Off the list, their role in the team counts again: nobody lifts a restriction that binds themselves.
        refuse_above_in_workspace(session, access, member, None)
    session.delete(listed)
    session.flush()  # in the lock's order, before the event
    record(
        session,
        access,
        WorkspaceMemberRemoved(
            workspace_id=workspace.id, name=workspace.name, user_id=member.user_id, role=listed.role
        ),
    )


def _list(session: Session, workspace: Workspace, user_id: UUID, role: str | None = None) -> WorkspaceMember:
    listed = WorkspaceMember(team_id=workspace.team_id, workspace_id=workspace.id, user_id=user_id, role=role)
    session.add(listed)
    session.flush()  # before the event
    return listed


def refuse_above_in_workspace(session: Session, access: Access, member: TeamMember, role: str | None) -> None:
    """Nobody gives or takes more than they may do in this workspace themselves: all that the member may, in this role there."""
    in_workspace = members.permissions_of_role(session, access.team_id, role) if role else None
    has = effective(members.permissions_of_role(session, access.team_id, member.role), workspace=in_workspace)
    refuse_above(access.permissions, has & WORKSPACE_SCOPED, f"The role {role or member.role}")
