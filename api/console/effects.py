"""What a change of a role would do, and why somebody may do something or not: what effects.html puts into words."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.orm import Session

from models.access.decisions import Decision, Missing, Standing, decide, missing
from models.access.entry import Access
from models.access.permissions import Permission
from models.operations.dry_runs import Effect
from models.queries import permissions
from models.queries.permissions import Giver, Subject
from models.queries.roles import RoleView


@dataclass(frozen=True, slots=True)
class Group:
    """People who gain and lose the same in the same place; None: in the team."""

    workspace_id: UUID | None
    gains: tuple[str, ...]
    loses: tuple[str, ...]
    names: list[str]


def grouped(effect: Effect) -> list[Group]:
    groups: dict[tuple[UUID | None, tuple[str, ...], tuple[str, ...]], Group] = {}
    for line in effect.lines.items:
        key = (line.workspace_id, tuple(line.gains), tuple(line.loses))
        groups.setdefault(key, Group(*key, [])).names.append(line.user.name)
    return list(groups.values())


def within_power(access: Access, roles: Iterable[RoleView]) -> list[str]:
    """The names of those roles that grant no more than the caller has."""
    return [role.name for role in roles if access.permissions.issuperset(role.permissions)]


@dataclass(frozen=True, slots=True)
class Answer:
    """To "may they, and why?"."""

    standing: Standing
    decision: Decision
    missing: list[Missing]
    givers: list[Giver]


def answer(session: Session, access: Access, subject: Subject, permission: Permission) -> Answer:
    """As `POST …/permissions/explain` answers; the caller has seen to `members:read` for questions about others."""
    (standing,) = permissions.standings(session, access, [subject])
    lacks = missing(standing, permission)
    return Answer(
        standing,
        decide(standing, permission),
        lacks,
        permissions.givers(session, access, standing, permission, lacks),
    )


def by_resource() -> Mapping[str, list[Permission]]:
    """The catalogue in its order, as a matrix has it."""
    found: dict[str, list[Permission]] = {}
    for permission in Permission:
        found.setdefault(permission.resource, []).append(permission)
    return found
