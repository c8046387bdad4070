"""The roles that a team has: the built-in ones and its own. What they grant are rows of `permissions`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, ScalarSelect, Select, case, func, or_, select
from sqlalchemy.orm import Session

from models.access.entry import Access
from models.errors import NotFound
from models.json_text import problem_with_text
from models.queries.paging import Page, Slice, keyset
from models.tables import Agent, Invitation, PermissionGrant, TeamMember, WorkspaceMember
from models.tables.invitations import PENDING


@dataclass(frozen=True, slots=True)
class RoleView:
    name: str
    built_in: bool
    permissions: list[str]
    members: int
    """How many have it in the team."""


@dataclass(frozen=True, slots=True)
class RoleUse:
    """Where a role is in use."""

    members: int
    workspace_members: int
    invitations: int
    agents: int

    @property
    def any(self) -> bool:
        return any((self.members, self.workspace_members, self.invitations, self.agents))


_OWN = case((PermissionGrant.team_id.is_(None), 0), else_=1)


def in_team(session: Session, access: Access, page: Page) -> Slice[RoleView]:
    """The built-in roles, then the team's own, by name."""
    found = keyset(session, _select(access), page, _OWN, PermissionGrant.role)
    return Slice([_view(row) for row in found.items], found.next_key)


def get(session: Session, access: Access, name: str) -> RoleView:
    """One role; raises NotFound. Before a change, lock the team (queries.teams.get) first."""
    statement = _select(access).where(PermissionGrant.role == name)
    row = None if problem_with_text(name) else session.execute(statement).one_or_none()  # a path can hold NUL
    if row is None:
        raise NotFound("role")
    return _view(row)


def names(session: Session, access: Access) -> list[str]:
    return list(session.scalars(select(PermissionGrant.role).where(_known(access)).distinct()))


def use(session: Session, access: Access, name: str) -> RoleUse:
    """Where the role is in use; exact while the team's row is locked."""

    def count(
        table: type[TeamMember | WorkspaceMember | Invitation | Agent], *more: ColumnElement[bool]
    ) -> ScalarSelect[int]:
        statement = select(func.count()).where(table.team_id == access.team_id, table.role == name)
        return statement.where(*more).scalar_subquery()

    row = session.execute(
        select(
            count(TeamMember),
            count(WorkspaceMember),
            count(Invitation, Invitation.status == PENDING),
            count(Agent),
        )
    ).one()
    return RoleUse(*row)


def _known(access: Access) -> ColumnElement[bool]:
    return or_(PermissionGrant.team_id.is_(None), PermissionGrant.team_id == access.team_id)


def _select(access: Access) -> Select[tuple[str, int, list[str], int]]:
    grant = PermissionGrant.resource + ":" + PermissionGrant.action
    members = (
        select(func.count())
        .where(TeamMember.team_id == access.team_id, TeamMember.role == PermissionGrant.role)
        .correlate(PermissionGrant)
        .scalar_subquery()
    )
    return (
        select(PermissionGrant.role, _OWN, func.array_agg(grant), members)
        .where(_known(access), PermissionGrant.allowed)
        .group_by(PermissionGrant.role, PermissionGrant.team_id)
    )


def _view(row: Sequence[Any]) -> RoleView:
    name, own, permissions, members = row
    return RoleView(name, not own, sorted(permissions), members)
