"""
A team's own roles: rows of `permissions` under the team. Making, changing and deleting them is done under the team's
lock, since members, invitations, agents and workspaces name them.

A role is made and given within the actor's own power, as sets of permissions; what a role is called decides nothing.
"""

import unicodedata
from collections.abc import Collection

from sqlalchemy import delete as delete_rows
from sqlalchemy import update as update_rows
from sqlalchemy.orm import Session

from models.access.entry import Access, reenter
from models.access.permissions import BUILT_IN_ROLES, Permission
from models.access.power import refuse_above
from models.errors import Conflict, Invalid
from models.events.catalogue import RoleCreated, RoleDeleted, RoleUpdated
from models.events.record import record
from models.queries import roles
from models.queries.roles import RoleView
from models.tables import Agent, Invitation, PermissionGrant, Team, TeamMember, WorkspaceMember
from models.tables.invitations import PENDING

RESERVED = {*BUILT_IN_ROLES, "owner"}


def create(
    session: Session, access: Access, team: Team, *, name: str, permissions: Collection[str]
) -> RoleView:
    """A new role; Conflict for a name that is taken or reserved, PermissionDenied above the actor's power."""
    access = reenter(session, access, Permission.roles_create)
    _refuse_name(session, access, name)
    refuse_above(access.permissions, permissions, f"The role {name}")
    _write(session, team, name, permissions)
    record(session, access, RoleCreated(team_id=team.id, name=name, permissions=sorted(set(permissions))))
    return roles.get(session, access, name)


def update(
    session: Session,
    access: Access,
    team: Team,
    role: RoleView,
    *,
    name: str | None = None,
    permissions: Collection[str] | None = None,
) -> RoleView:
    """
    Changes a role's name or what it grants, for everyone who has it, from their next request on.

    Raises Conflict for a built-in role or a name that is taken, and PermissionDenied if what the role grants, before or
    after, is above the actor's power.
    """
    access = reenter(session, access, Permission.roles_update)
    _refuse_built_in(role)
    name = name or role.name
    wanted = sorted(set(role.permissions if permissions is None else permissions))
    refuse_above(access.permissions, role.permissions, f"The role {role.name}")
    refuse_above(access.permissions, wanted, f"The role {name}")
    changes: dict[str, list[object]] = {}
    if name != role.name:
        _refuse_name(session, access, name, besides=role.name)
        changes["name"] = [role.name, name]
    if wanted != role.permissions:
        changes["permissions"] = [role.permissions, wanted]
    if not changes:
        return role
    _erase(session, team, role.name)
    _write(session, team, name, wanted)
    if name != role.name:
        _replace(session, team, role.name, name)
    record(session, access, RoleUpdated(team_id=team.id, name=name, changes=changes))
    return roles.get(session, access, name)


def delete(session: Session, access: Access, team: Team, role: RoleView, *, replacement: str | None) -> None:
    """
    Deletes a role. One in use needs a `replacement`, which its members, invitations, agents and workspace members get.

    Raises Conflict for a built-in role, or one in use without a replacement; Invalid for a replacement that is not
    another role of the team; PermissionDenied if either role grants more than the actor has.
    """
    access = reenter(session, access, Permission.roles_delete)
    _refuse_built_in(role)
    refuse_above(access.permissions, role.permissions, f"The role {role.name}")
    used = roles.use(session, access, role.name)
    if replacement is None and used.any:
        raise Conflict(
            f"The role {role.name} is in use; name the role that replaces it.",
            in_use={
                "members": used.members,
                "workspace_members": used.workspace_members,
                "invitations": used.invitations,
                "agents": used.agents,
            },
        )
    if replacement is not None:
        if replacement == role.name or replacement not in roles.names(session, access):
            raise Invalid({"replacement": ["This must be another role of the team."]})
        refuse_above(
            access.permissions, roles.get(session, access, replacement).permissions, f"The role {replacement}"
        )
        _replace(session, team, role.name, replacement)
    _erase(session, team, role.name)
    record(
        session,
        access,
        RoleDeleted(team_id=team.id, name=role.name, permissions=role.permissions, replacement=replacement),
    )


def _refuse_built_in(role: RoleView) -> None:
    if role.built_in:
        raise Conflict(f"The role {role.name} is built in; make one of your own.")


def _refuse_name(session: Session, access: Access, name: str, besides: str | None = None) -> None:
    """Names that people would take for each other are the same."""
    taken = {_folded(each) for each in roles.names(session, access) if each != besides} | RESERVED
    if _folded(name) in taken:
        raise Conflict(f"There is a role {name} already, or the name is reserved.")


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold()


def _write(session: Session, team: Team, name: str, permissions: Collection[str]) -> None:
    granted = [Permission(each) for each in sorted(set(permissions))]
    session.add_all(
        PermissionGrant(team_id=team.id, role=name, resource=each.resource, action=each.action)
        for each in granted
    )
    session.flush()  # before the event


def _erase(session: Session, team: Team, name: str) -> None:
    session.execute(
        delete_rows(PermissionGrant).where(PermissionGrant.team_id == team.id, PermissionGrant.role == name)
    )


def _replace(session: Session, team: Team, name: str, by: str) -> None:
    """Everywhere that the role is named; what is over (an accepted invitation) keeps what it said."""
    for table in (TeamMember, WorkspaceMember, Agent):
        session.execute(
            update_rows(table).where(table.team_id == team.id, table.role == name).values(role=by)
        )
    session.execute(
        update_rows(Invitation)
        .where(Invitation.team_id == team.id, Invitation.role == name, Invitation.status == PENDING)
        .values(role=by)
    )
