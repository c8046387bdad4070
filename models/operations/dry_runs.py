"""
What a change of a role, or of somebody's role, would do: who gains and loses what. Nothing is written and nothing locked,
so the answer is of the moment.

A role, a user or a workspace that is not there is refused as the operation itself refuses it. Whatever else stands against
the change (the caller's power, a role that is built in or in use) comes back in `refused`, beside what the change would do.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import Select, Uuid, and_, distinct, func, literal, null, select, union_all
from sqlalchemy.orm import Session

from models.access.decisions import Cap, Sight, Standing, changes
from models.access.entry import Access, reenter
from models.access.permissions import OWNER_ONLY, Permission
from models.access.power import WORKSPACE_SCOPED, refuse_above
from models.errors import Conflict, DomainError, Invalid
from models.operations.members import refuse_member_above, refuse_role_above
from models.operations.workspaces import refuse_above_in_workspace
from models.queries import members, permissions, roles, teams, workspaces
from models.queries.paging import Page, Slice, bad_cursor, keyset
from models.queries.permissions import ACTIVE, WM, Keys, M, Person, Subject, T
from models.queries.roles import RoleView
from models.tables import Agent, User, Workspace

TEAM_AT_LARGE = UUID(int=0)
"""Stands for no workspace in a cursor, and comes first."""
Grants = Mapping[str, frozenset[str]]
Change = tuple[frozenset[str], frozenset[str]]
"""What is gained, and what is lost."""


@dataclass(frozen=True, slots=True)
class Line:
    """What one person gains and loses: in the team at large (and wherever no role of their own counts), or in one workspace."""

    user: Person
    workspace_id: UUID | None
    gains: list[str]
    loses: list[str]


@dataclass(frozen=True, slots=True)
class Touched:
    """How many could do more afterwards, and how many less."""

    grow: int = 0
    shrink: int = 0


@dataclass(frozen=True, slots=True)
class Effect:
    lines: Slice[Line]
    affected: int
    """People who gain or lose something."""
    gains: list[str]
    """What anybody gains, anywhere."""
    loses: list[str]
    agents: Touched
    api_keys: Touched
    refused: DomainError | None = None
    """Why the caller could not make this change."""


def of_permissions(
    session: Session, access: Access, page: Page, *, role: str, permissions: Iterable[str]
) -> Effect:
    """Of editing what a role grants; NotFound for a role that is not there."""
    view, wanted = roles.get(session, access, role), frozenset(permissions)
    refused = _first_refusal(
        lambda: access.require(Permission.roles_update),
        lambda: _refuse_built_in(view),
        lambda: refuse_above(access.permissions, view.permissions, f"The role {role}"),
        lambda: refuse_above(access.permissions, wanted, f"The role {role}"),
    )
    return replace(_of_role(session, access, page, view, wanted), refused=refused)


def of_deletion(
    session: Session, access: Access, page: Page, *, role: str, replacement: str | None
) -> Effect:
    """
    Of deleting a role; without a replacement whoever has it is left with nothing, and it is refused if anybody has.

    Raises NotFound for a role that is not there, Invalid for a replacement that is not another role of the team.
    """
    view = roles.get(session, access, role)
    if replacement is not None and (replacement == role or replacement not in roles.names(session, access)):
        raise Invalid({"replacement": ["This must be another role of the team."]})
    wanted = members.permissions_of_role(session, access.team_id, replacement) if replacement else frozenset()
    refused = _first_refusal(
        lambda: access.require(Permission.roles_delete),
        lambda: _refuse_built_in(view),
        lambda: refuse_above(access.permissions, view.permissions, f"The role {role}"),
        lambda: None if replacement else _refuse_in_use(session, access, role),
        lambda: refuse_above(access.permissions, wanted, f"The role {replacement}"),
    )
    return replace(_of_role(session, access, page, view, wanted), refused=refused)


def of_member(session: Session, access: Access, page: Page, *, user_id: UUID, role: str) -> Effect:
    """Of giving a member another role in the team; NotFound for who is none, Invalid for a role that is not there."""
    member, owner_id = members.get(session, access, user_id), teams.get(session, access).owner_id
    granted = _granted_by(session, access, role)
    (before,) = permissions.standings(session, access, [Subject(user_id)])
    changing = role != member.role
    refused = _first_refusal(
        lambda: access.require(Permission.members_update),
        lambda: (
            _refuse_owner("The owner is always an admin; transfer the ownership first.")
            if changing and user_id == owner_id
            else None
        ),
        lambda: refuse_role_above(session, access, role) if changing else None,
        lambda: refuse_member_above(session, access, member) if changing else None,
    )
    after = replace(before, role=role, grants=granted)
    return replace(_of_person(session, access, page, before, after), refused=refused)


def of_listing(
    session: Session, access: Access, page: Page, *, user_id: UUID, workspace_id: UUID, role: str | None
) -> Effect:
    """
    Of listing a member in a workspace with this role (None: the same as in the team), or changing it.

    Raises NotFound for a workspace that the caller does not see or for who is no member, Invalid for a role that is not there.
    """
    workspaces.get(session, access, workspace_id)
    member = members.get(session, access, user_id)
    owner_id = teams.get(session, access).owner_id
    granted = _granted_by(session, access, role) if role is not None else frozenset()
    (before,) = permissions.standings(session, access, [Subject(user_id, workspace_id)])
    there = reenter(session, access, workspace_id=workspace_id)
    refused = _first_refusal(
        lambda: there.require(Permission.workspaces_update),
        lambda: (
            _refuse_owner("The owner is an admin in every workspace.")
            if role is not None and user_id == owner_id
            else None
        ),
        *(
            partial(refuse_above_in_workspace, session, there, member, each)
            for each in (before.workspace_role, role)
            if role != before.workspace_role
        ),
    )
    after = replace(before, sight=Sight.visible, workspace_role=role, workspace_grants=granted)
    effect = _of_person(session, access, page, before, before if before.owns else after)
    return replace(effect, refused=refused)


def _first_refusal(*checks: Callable[[], None]) -> DomainError | None:
    for check in checks:
        try:
            check()
        except DomainError as error:
            return error
    return None


# What models/operations says in these words.


def _refuse_built_in(role: RoleView) -> None:
    if role.built_in:
        raise Conflict(f"The role {role.name} is built in; make one of your own.")


def _refuse_in_use(session: Session, access: Access, role: str) -> None:
    if roles.use(session, access, role).any:
        raise Conflict(f"The role {role} is in use; name the role that replaces it.")


def _refuse_owner(detail: str) -> None:
    raise Conflict(detail)


def _granted_by(session: Session, access: Access, role: str) -> frozenset[str]:
    granted = members.permissions_of_role(session, access.team_id, role)
    if not granted:
        raise Invalid({"role": ["There is no such role in this team."]})
    return granted


def _of_person(
    session: Session,
    access: Access,
    page: Page,
    before: Standing,
    after: Standing,
) -> Effect:
    """One line at the most, and the person's keys."""
    if page.after is not None:
        raise bad_cursor()
    within = WORKSPACE_SCOPED if before.workspace_id else None
    gains, loses = (sorted(each) for each in changes(before, after, within))
    user = members.get(session, access, before.user_id).user
    line = Line(Person(user.id, user.email, user.name), before.workspace_id, gains, loses)
    grants = permissions.roles_of(session, access).grants
    touched = [
        (kind.count, *changes(_with_caps(before, kind, grants), _with_caps(after, kind, grants), within))
        for kind in permissions.keys(session, access, user_id=before.user_id)
    ]
    changed = bool(gains or loses)
    return Effect(
        lines=Slice([line] if changed else [], None),
        affected=int(changed),
        gains=gains,
        loses=loses,
        agents=Touched(),
        api_keys=_touched(touched),
    )


def _of_role(
    session: Session,
    access: Access,
    page: Page,
    role: RoleView,
    wanted: frozenset[str],
) -> Effect:
    """Everyone who has the role, in the team or in a workspace that the caller sees, and the keys and agents that do."""
    grants = permissions.roles_of(session, access).grants
    edited = {**grants, role.name: wanted}

    def change(owns: bool, in_team: str, in_workspace: str | None) -> Change:
        before = _standing(grants, in_team, in_workspace, owns=owns)
        after = _standing(edited, in_team, in_workspace, owns=owns)
        return changes(before, after, WORKSPACE_SCOPED if in_workspace else None)

    lines: Slice[Line] = Slice([], None)
    affected, kinds = 0, []
    if selects := _places(access, role.name, grants[role.name] ^ wanted):
        place = union_all(*selects).subquery()
        statement = select(
            User.id,
            User.email,
            User.name,
            place.c.workspace_id,
            place.c.owns,
            place.c.role,
            place.c.workspace_role,
        ).join(place, place.c.user_id == User.id)
        found = keyset(session, statement, page, place.c.user_id, place.c.workspace_id)
        lines = Slice([_line(row, *change(*row[4:])) for row in found.items], found.next_key)
        affected = session.scalar(select(func.count(distinct(place.c.user_id)))) or 0
        kinds = list(session.execute(select(place.c.owns, place.c.workspace_id != TEAM_AT_LARGE).distinct()))
    anyone = [change(owns, role.name, role.name if within else None) for owns, within in kinds]
    touched = [
        (
            kind.count,
            *_joined(
                changes(
                    _with_caps(_standing(grants, kind.role, there), kind, grants),
                    _with_caps(_standing(edited, kind.role, there), kind, edited),
                )
                for there in (None, *kind.workspace_roles)
            ),
        )
        for kind in permissions.keys(session, access, role=role.name)
    ]
    agents = session.scalar(
        select(func.count()).where(Agent.team_id == access.team_id, Agent.role == role.name)
    )
    gains, loses = _joined(anyone)
    return Effect(
        lines=lines,
        affected=affected,
        gains=sorted(gains),
        loses=sorted(loses),
        agents=_touched([(agents or 0, *change(False, role.name, None))]),
        api_keys=_touched(touched),
    )


def _places(access: Access, role: str, changed: frozenset[str]) -> list[Select[*tuple[Any, ...]]]:
    """Where the change counts: the members who have the role, and who has it in a workspace that the caller sees."""
    owns = T.owner_id == M.user_id
    in_team = (
        select(
            M.user_id,
            literal(TEAM_AT_LARGE, Uuid).label("workspace_id"),
            owns.label("owns"),
            M.role,
            null().label("workspace_role"),
        )
        .join(T, T.id == M.team_id)
        .where(M.team_id == access.team_id, ACTIVE, M.role == role)
    )
    in_workspaces = (
        select(M.user_id, WM.workspace_id, literal(False), M.role, WM.role)
        .join(T, T.id == M.team_id)
        .join(WM, and_(WM.team_id == M.team_id, WM.user_id == M.user_id))
        .join(Workspace, Workspace.id == WM.workspace_id)
        .where(M.team_id == access.team_id, ACTIVE, WM.role == role, ~owns, workspaces.visible_to(access))
    )
    selects: list[Select[*tuple[Any, ...]]] = []
    if changed:
        selects.append(in_team.where(owns) if changed <= OWNER_ONLY else in_team)
    if changed & WORKSPACE_SCOPED:
        selects.append(in_workspaces)
    return selects


def _line(row: Sequence[Any], gains: frozenset[str], loses: frozenset[str]) -> Line:
    user_id, email, name, workspace_id, *_ = row
    at_large = workspace_id == TEAM_AT_LARGE
    return Line(
        Person(user_id, email, name), None if at_large else workspace_id, sorted(gains), sorted(loses)
    )


def _standing(grants: Grants, role: str, workspace_role: str | None, *, owns: bool = False) -> Standing:
    none: frozenset[str] = frozenset()
    return Standing(
        user_id=TEAM_AT_LARGE,  # whoever
        role=role,
        grants=grants.get(role, none),
        owns=owns,
        workspace_role=workspace_role,
        workspace_grants=grants.get(workspace_role, none) if workspace_role else none,
    )


def _with_caps(standing: Standing, kind: Keys, grants: Grants) -> Standing:
    agent = Cap(kind.agent_role, grants.get(kind.agent_role, frozenset())) if kind.agent_role else None
    return replace(standing, agent=agent, key=Cap("", kind.scope))


def _joined(each: Iterable[Change]) -> Change:
    gains: frozenset[str] = frozenset()
    loses: frozenset[str] = frozenset()
    for gained, lost in each:
        gains, loses = gains | gained, loses | lost
    return gains, loses


def _touched(each: Iterable[tuple[int, frozenset[str], frozenset[str]]]) -> Touched:
    counted = list(each)
    return Touched(
        grow=sum(count for count, gains, _ in counted if gains),
        shrink=sum(count for count, _, loses in counted if loses),
    )
