"""
What decides about permissions, read from the database: standings of many subjects in one statement, who holds a
permission a page at a time, and who could give one. What it means is models/access/decisions.py's to say.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    Boolean,
    ColumnElement,
    Row,
    String,
    Uuid,
    and_,
    any_,
    bindparam,
    case,
    exists,
    func,
    literal,
    literal_column,
    or_,
    select,
    text,
)
from sqlalchemy.orm import Session, aliased

from models.access.decisions import Cap, Missing, Sight, Standing, Way, decide, ways_to_give
from models.access.entry import BARRED, WORKSPACE_ROLE, Access, permissions_of
from models.access.permissions import OWNER_ONLY, Permission
from models.access.power import WORKSPACE_SCOPED
from models.queries import workspaces
from models.queries.paging import Page, Slice, bad_cursor, keyset
from models.tables import PermissionGrant, Team, TeamMember, User, Workspace, WorkspaceMember
from models.tables.workspaces import OPEN

MOST_GIVERS = 20


def catalogue(page: Page) -> Slice[Permission]:
    """Every permission, in the catalogue's order."""
    every = list(Permission)
    begin = 0
    if page.after is not None:
        try:
            (last,) = page.after
            begin = every.index(Permission(last)) + 1
        except ValueError as error:
            raise bad_cursor() from error
    items = every[begin : begin + page.limit]
    return Slice(items, (items[-1].value,) if begin + page.limit < len(every) else None)


class Subject(NamedTuple):
    """Of whom is asked, and where: None is the caller as they come, with key and agent; and the team at large."""

    user_id: UUID | None = None
    workspace_id: UUID | None = None


SEEN_BY_CALLER = f"""(:sees_all OR w.visibility = '{OPEN}' OR EXISTS (
      SELECT FROM workspace_members c WHERE c.workspace_id = w.id AND c.user_id = :caller_id))"""
# Grants come once for each role, however many have it. The fragments of models/access/entry.py want `m`, `t` and `wm`.
STANDINGS = text(
    f"""
WITH standing AS MATERIALIZED (
  SELECT a.position, m.role, t.owner_id = m.user_id AS owns, {BARRED} AS barred,
    CASE WHEN a.workspace_id IS NULL THEN NULL
         WHEN w.id IS NULL THEN '{Sight.absent}'
         WHEN w.visibility = '{OPEN}' OR t.owner_id = m.user_id OR wm.user_id IS NOT NULL THEN '{Sight.visible}'
         ELSE '{Sight.hidden}' END AS sight,
    {WORKSPACE_ROLE} AS workspace_role
  FROM unnest(:user_ids, :workspace_ids) WITH ORDINALITY AS a (user_id, workspace_id, position)
  JOIN teams t ON t.id = :team_id
  LEFT JOIN team_members m ON m.team_id = t.id AND m.user_id = a.user_id
  LEFT JOIN workspaces w ON w.team_id = t.id AND w.id = a.workspace_id
    AND {SEEN_BY_CALLER}
  LEFT JOIN workspace_members wm ON wm.workspace_id = w.id AND wm.user_id = m.user_id
), presented AS MATERIALIZED (
  SELECT k.name, k.permissions, g.role FROM api_keys k LEFT JOIN agents g ON g.id = k.agent_id WHERE k.id = :api_key_id
)
SELECT 'standing', position, role, owns, barred, sight, workspace_role, NULL AS name, NULL AS granted FROM standing
UNION ALL
SELECT 'role', NULL, r.role, NULL, NULL, NULL, NULL, NULL, {permissions_of("r.role")}
FROM (SELECT role FROM standing UNION SELECT workspace_role FROM standing UNION SELECT role FROM presented) r
  CROSS JOIN (SELECT CAST(:team_id AS uuid) AS team_id) m
WHERE r.role IS NOT NULL
UNION ALL
SELECT 'key', NULL, role, NULL, NULL, NULL, NULL, name, permissions FROM presented
"""  # noqa: S608  made of constants alone
).bindparams(bindparam("user_ids", type_=ARRAY(Uuid)), bindparam("workspace_ids", type_=ARRAY(Uuid)))


def standings(session: Session, access: Access, subjects: Sequence[Subject]) -> list[Standing]:
    """Each subject's standing, in their order, from one statement and so one moment. A workspace is as the caller sees it."""
    asked = list(dict.fromkeys((each.user_id or access.user_id, each.workspace_id) for each in subjects))
    rows = session.execute(
        STANDINGS,
        {
            "user_ids": [user_id for user_id, _ in asked],
            "workspace_ids": [workspace_id for _, workspace_id in asked],
            "team_id": access.team_id,
            "caller_id": access.user_id,
            "sees_all": access.sees_all_workspaces,
            "api_key_id": access.api_key_id,
        },
    ).all()
    grants = {row.role: frozenset(row.granted) for row in rows if row[0] == "role"}
    found = {
        asked[row.position - 1]: _standing(asked[row.position - 1], row, grants)
        for row in rows
        if row[0] == "standing"
    }
    agent, key = next((_caps(row, grants) for row in rows if row[0] == "key"), (None, None))
    return [
        found[each.user_id, each.workspace_id]
        if each.user_id is not None
        else replace(found[access.user_id, each.workspace_id], agent=agent, key=key)
        for each in subjects
    ]


def _standing(
    asked: tuple[UUID, UUID | None], row: Row[Any], grants: Mapping[str, frozenset[str]]
) -> Standing:
    user_id, workspace_id = asked
    none: frozenset[str] = frozenset()
    return Standing(
        user_id=user_id,
        role=row.role,
        grants=grants.get(row.role, none),
        owns=bool(row.owns),
        barred=row.barred,
        workspace_id=workspace_id,
        sight=Sight(row.sight) if row.sight else None,
        workspace_role=row.workspace_role,
        workspace_grants=grants.get(row.workspace_role, none),
    )


def _caps(row: Row[Any], grants: Mapping[str, frozenset[str]]) -> tuple[Cap | None, Cap]:
    agent = Cap(row.role, grants.get(row.role, frozenset())) if row.role is not None else None
    return agent, Cap(row.name, frozenset(row.granted))


@dataclass(frozen=True, slots=True)
class Roles:
    """What each role grants that a team has, and which of them are its own."""

    grants: Mapping[str, frozenset[str]]
    own: frozenset[str]


def roles_of(session: Session, access: Access) -> Roles:
    grant = PermissionGrant.resource + ":" + PermissionGrant.action
    rows = session.execute(
        select(PermissionGrant.role, PermissionGrant.team_id, func.array_agg(grant))
        .where(_known(access), PermissionGrant.allowed)
        .group_by(PermissionGrant.role, PermissionGrant.team_id)
    ).all()
    grants: dict[str, frozenset[str]] = {}
    for role, _, granted in rows:
        grants[role] = grants.get(role, frozenset()) | frozenset(granted)
    return Roles(grants, frozenset(role for role, team_id, _ in rows if team_id is not None))


def _known(access: Access) -> ColumnElement[bool]:
    return or_(PermissionGrant.team_id.is_(None), PermissionGrant.team_id == access.team_id)


# By the names that the fragments of models/access/entry.py want.
M, T, WM = aliased(TeamMember, name="m"), aliased(Team, name="t"), aliased(WorkspaceMember, name="wm")
ACTIVE: ColumnElement[bool] = literal_column(f"(({BARRED}) IS NULL)", Boolean)
DECIDING = case((and_(T.owner_id != M.user_id, WM.role.is_not(None)), WM.role), else_=M.role)
"""The role that decides about what is workspace-scoped, in the workspace of `wm`."""


class Person(NamedTuple):
    id: UUID
    email: str
    name: str


@dataclass(frozen=True, slots=True)
class Holder:
    """A member who has a permission."""

    user: Person
    role: str
    via: str | None


def who_can(
    session: Session, access: Access, permission: Permission, page: Page, *, workspace_id: UUID | None = None
) -> Slice[Holder]:
    """
    The members who have the permission in person, by user id; NotFound for a workspace that the caller does not see.
    """
    private = workspace_id is not None and workspaces.get(session, access, workspace_id).visibility != OPEN
    scoped = workspace_id is not None and permission in WORKSPACE_SCOPED
    granting = select(PermissionGrant.role).where(
        PermissionGrant.resource == permission.resource,
        PermissionGrant.action == permission.action,
        PermissionGrant.allowed,
        _known(access),
    )
    statement = (
        select(
            User.id, User.email, User.name, M.role, WM.role.label("workspace_role"), T.owner_id == M.user_id
        )
        .select_from(M)
        .join(T, T.id == M.team_id)
        .join(User, User.id == M.user_id)
        .outerjoin(WM, and_(WM.workspace_id == workspace_id, WM.user_id == M.user_id))
        .where(M.team_id == access.team_id, ACTIVE, (DECIDING if scoped else M.role).in_(granting))
    )
    if scoped and private:
        statement = statement.where(or_(WM.user_id.is_not(None), T.owner_id == M.user_id))
    if permission in OWNER_ONLY:
        statement = statement.where(T.owner_id == M.user_id)
    found = keyset(session, statement, page, M.user_id)
    return Slice([_holder(row, permission, scoped=scoped) for row in found.items], found.next_key)


def _holder(row: Sequence[Any], permission: Permission, *, scoped: bool) -> Holder:
    user_id, email, name, role, workspace_role, owns = row
    grants = frozenset({permission.value})  # the role that decides has it, or the row would not be here
    standing = Standing(
        user_id=user_id,
        role=role,
        grants=grants,
        owns=owns,
        workspace_role=workspace_role if scoped and not owns else None,
        workspace_grants=grants,
    )
    return Holder(Person(user_id, email, name), role, decide(standing, permission).via)


@dataclass(frozen=True, slots=True)
class Giver:
    """Somebody who could give what is missing."""

    user: Person
    how: list[str]


def givers(
    session: Session, access: Access, standing: Standing, permission: Permission, lacks: Iterable[Missing]
) -> list[Giver]:
    """Up to twenty active members who could give any of what is missing, and how. None for a workspace that nobody sees."""
    lacks = list(lacks)
    if not lacks or standing.sight is Sight.absent:
        return []
    roles = roles_of(session, access)
    owner_id = session.scalar(select(Team.owner_id).where(Team.id == access.team_id))
    assert owner_id is not None  # noqa: S101  it was entered in this transaction  # nosec B101
    ways = [
        way
        for lack in lacks
        for way in ways_to_give(
            lack, standing, permission, roles=roles.grants, own=roles.own, owner_id=owner_id
        )
    ]
    if not ways:
        return []
    conditions = [_can_give(way, standing.workspace_id) for way in ways]
    rows = session.execute(
        select(User.id, User.email, User.name, *conditions)
        .select_from(M)
        .join(T, T.id == M.team_id)
        .join(User, User.id == M.user_id)
        .outerjoin(WM, and_(WM.workspace_id == standing.workspace_id, WM.user_id == M.user_id))
        .where(M.team_id == access.team_id, or_(*conditions))
        .order_by(M.user_id)
        .limit(MOST_GIVERS)
    ).all()
    return [
        Giver(
            Person(*row[:3]),
            list(dict.fromkeys(way.how for way, can in zip(ways, row[3:], strict=True) if can)),
        )
        for row in rows
    ]


def _can_give(way: Way, workspace_id: UUID | None) -> ColumnElement[bool]:
    if way.user_id is not None:
        return M.user_id == way.user_id
    roles = any_(literal(sorted(way.roles), ARRAY(String)))
    if not way.within_workspace:
        return and_(ACTIVE, roles == M.role)
    is_open = exists().where(Workspace.id == workspace_id, Workspace.visibility == OPEN)
    return and_(ACTIVE, roles == DECIDING, or_(WM.user_id.is_not(None), T.owner_id == M.user_id, is_open))


KEYS = text(
    f"""
SELECT m.role, g.role AS agent_role, k.permissions AS scope, ARRAY(
    SELECT DISTINCT wm.role FROM workspace_members wm JOIN workspaces w ON w.id = wm.workspace_id
    WHERE wm.team_id = m.team_id AND wm.user_id = m.user_id AND wm.role IS NOT NULL AND t.owner_id <> m.user_id
      AND {SEEN_BY_CALLER} ORDER BY wm.role
  ) AS workspace_roles, count(*) AS keys
FROM api_keys k JOIN team_members m ON m.team_id = k.team_id AND m.user_id = k.user_id
  JOIN teams t ON t.id = m.team_id LEFT JOIN agents g ON g.id = k.agent_id
WHERE k.team_id = :team_id AND k.expires_at > now() AND ({BARRED}) IS NULL
  AND (k.user_id = :user_id OR m.role = :role OR g.role = :role OR EXISTS (
    SELECT FROM workspace_members o WHERE o.team_id = k.team_id AND o.user_id = k.user_id AND o.role = :role))
GROUP BY m.role, g.role, k.permissions, workspace_roles
"""  # noqa: S608  made of constants alone
).bindparams(bindparam("user_id", type_=Uuid), bindparam("role", type_=String))


@dataclass(frozen=True, slots=True)
class Keys:
    """API keys that are alike in all that decides what they may do."""

    role: str
    """Of whoever made them, in the team."""
    workspace_roles: Sequence[str]
    """Theirs in the workspaces that the caller sees."""
    agent_role: str | None
    scope: frozenset[str]
    count: int


def keys(
    session: Session, access: Access, *, user_id: UUID | None = None, role: str | None = None
) -> list[Keys]:
    """The keys in force that this user made; or those that a role matters to: their maker's, there or there, or their agent's."""
    rows = session.execute(
        KEYS,
        {
            "user_id": user_id,
            "role": role,
            "team_id": access.team_id,
            "caller_id": access.user_id,
            "sees_all": access.sees_all_workspaces,
        },
    )
    return [Keys(row.role, row.workspace_roles, row.agent_role, frozenset(row.scope), row[4]) for row in rows]
