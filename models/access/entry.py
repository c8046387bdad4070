"""
Entering: from a credential to a proven Actor or Access, in one statement of the request's own transaction.

Only this module builds an Access, so an operation that takes one can't be reached without authorization. Nothing is
cached: a revoked session, key, member or permission is refused on the next request (design.md, invariant 5).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any, Literal, NamedTuple
from uuid import UUID

from sqlalchemy import event, text
from sqlalchemy.orm import Session

from models.access.actor import Actor, Named, Origin
from models.access.credentials import Credential
from models.access.permissions import Permission
from models.access.power import OWNER, effective, lacking
from models.database import fetch_row
from models.errors import NotFound, PermissionDenied, Unauthenticated

LAST_USED_RESOLUTION = timedelta(minutes=5)
"""How exact `last_used_at` is: finer would turn every read into a write."""


@dataclass(frozen=True, slots=True)
class Access:
    """An actor proven into one team, with what they may do there as it was in this transaction."""

    team_id: UUID
    user_id: UUID
    """The person: who signed in, or for whom the API key or the agent acts."""
    role: str
    is_owner: bool
    """Whether it is the owner in person: no API key and no agent is."""
    permissions: frozenset[str]
    """Within the workspace that was entered, if one was."""
    origin: Origin
    session_id: UUID | None = None
    api_key_id: UUID | None = None
    agent_id: UUID | None = None
    sees_all_workspaces: bool = False
    """The owner does, and whatever acts for the owner; everyone else sees those that are open or list them."""
    calls_used_up: bool | None = None
    """Whether no API call is left of a hard limit of the team's plan; None where the plan sets none."""

    @property
    def named(self) -> Named:
        """Who it is, without what they may."""
        return Named(self.team_id, self.user_id, self.agent_id, self.api_key_id, self.origin)

    def require(self, permission: Permission) -> None:
        """Raises PermissionDenied naming what is missing: the permission, or `owner` for what only the owner may do."""
        missing = lacking(permission, self.permissions, is_owner=self.is_owner)
        if missing is not None:
            detail = "Only the team's owner may do this." if missing == OWNER else None
            raise PermissionDenied(missing, detail, by=self.named)


@dataclass(frozen=True, slots=True)
class Place:
    """What is entered: the team, or a workspace of it, named by its own id or by a task in it."""

    team_id: UUID
    workspace_id: UUID | None = None
    task_id: UUID | None = None

    @property
    def within_workspace(self) -> str | None:
        """How the statement finds the workspace; None for the team at large."""
        if self.workspace_id is not None:
            return "w.id = %(workspace_id)s"
        if self.task_id is not None:
            return "w.id = (SELECT k.workspace_id FROM tasks k WHERE k.team_id = m.team_id AND k.id = %(task_id)s)"
        return None


class Position(NamedTuple):
    """
    Where a team's log stands: its last number, and the one it reaches once all that waits in the outbox is drained. What was
    committed before a socket came is no news to it: a client's first frame is of what happened since it connected.
    """

    head: int
    committed: int


# Each column and each layer costs a time that counts here (benchmarks/permission_check.py), so comparisons are
# PostgreSQL's, and SQLAlchemy is passed by (models.database.fetch_row).
_TOUCHABLE = f"interval '{LAST_USED_RESOLUTION.total_seconds()} s'"
SIGN_IN = (
    f"SELECT s.id, s.user_id, s.expires_at <= now(), s.last_used_at < now() - {_TOUCHABLE} "  # noqa: S608  made of constants alone
    "FROM sessions s WHERE s.token_hash = %(token_hash)s"
)
BARRED = """
  CASE WHEN m.suspended_at IS NOT NULL THEN 'membership'
       WHEN EXISTS (SELECT FROM users u WHERE u.id = m.user_id AND u.suspended_at IS NOT NULL) THEN 'account'
       WHEN t.suspended_at IS NOT NULL THEN 'team'
       WHEN t.two_factor_required AND NOT EXISTS (
         SELECT FROM second_factors f WHERE f.user_id = m.user_id AND f.confirmed_at IS NOT NULL) THEN 'two_factor'
  END"""
"""Why a member may not enter all the same; NULL if they may. Asked of `team_members m` and `teams t`."""


CALLS_USED_UP = """
  (SELECT q.used >= q.maximum AND q.period >= date_trunc('month', now())::date FROM usage_quotas q
   WHERE q.team_id = m.team_id AND q.metric = 'api_calls')"""
"""Whether no API call is left of the month's hard limit; NULL without one. Sessions are in UTC."""


def permissions_of(role: str) -> str:
    """SQL: what a role, given as SQL, grants in the team of `m`, as an array of `resource:action`."""
    return f"""ARRAY(SELECT p.resource || ':' || p.action FROM permissions p
         WHERE p.role = {role} AND p.allowed AND (p.team_id IS NULL OR p.team_id = m.team_id))"""  # noqa: S608  made of constants alone


WORKSPACE_ROLE = "CASE WHEN t.owner_id <> m.user_id THEN wm.role END"
"""The role in the workspace instead of that in the team; the owner is an admin everywhere."""


LOG_POSITION = (
    "(SELECT h.seq FROM activity_heads h WHERE h.team_id = m.team_id)",
    "(SELECT count(*) FROM outbox o WHERE o.team_id = m.team_id)",
)
"""The number of the log's last row, and how many events wait for theirs: what a socket wants to know besides."""


@cache
def entering(
    credential: Literal["session", "api_key"], within_workspace: str | None, more: tuple[str, ...] = ()
) -> str:
    """The statement that enters by a session or an API key, and if so into a workspace; `more` columns come last."""
    columns = [
        "c.id",
        "c.user_id",
        "c.expires_at <= now()",
        f"coalesce(c.last_used_at, '-infinity') < now() - {_TOUCHABLE}",
        "m.role",
        "t.owner_id = m.user_id",
        BARRED,
        CALLS_USED_UP,
        permissions_of("m.role"),
    ]
    source = "sessions c" if credential == "session" else "api_keys c LEFT JOIN agents a ON a.id = c.agent_id"
    member = "m.user_id = c.user_id AND m.team_id = %(team_id)s"
    if credential == "api_key":
        columns += ["c.permissions", "c.agent_id", permissions_of("a.role")]
        member += " AND m.team_id = c.team_id"
    workspace = ""
    if within_workspace:
        columns.append(f"CASE WHEN ({WORKSPACE_ROLE}) IS NOT NULL THEN {permissions_of('wm.role')} END")
        workspace = f"""
LEFT JOIN workspaces w ON w.team_id = m.team_id AND {within_workspace}
LEFT JOIN workspace_members wm ON wm.workspace_id = w.id AND wm.user_id = m.user_id"""
    return f"""SELECT {", ".join((*columns, *more))}
FROM {source}
LEFT JOIN (team_members m JOIN teams t ON t.id = m.team_id AND t.deleted_at IS NULL) ON {member}{workspace}
WHERE """  # noqa: S608  made of constants alone


STANDING = f"""
SELECT m.role, t.owner_id = m.user_id, {BARRED}, {permissions_of("m.role")}
FROM team_members m JOIN teams t ON t.id = m.team_id AND t.deleted_at IS NULL
WHERE m.team_id = %(team_id)s AND m.user_id = %(user_id)s
"""  # noqa: S608  made of constants alone


TOUCHED = "touched"
TOUCH = {
    table: text(f"""
UPDATE {table} SET last_used_at = now()
WHERE id = (SELECT id FROM {table} WHERE id = :id AND coalesce(last_used_at, '-infinity') < now() - {_TOUCHABLE}
            FOR UPDATE SKIP LOCKED)
""")  # noqa: S608  made of constants alone
    for table in ("sessions", "api_keys")
}


USE_TICKET = """
DELETE FROM tickets WHERE token_hash = %(token_hash)s AND team_id = %(team_id)s AND expires_at > now()
RETURNING session_id, api_key_id
"""


def enter(session: Session, credential: Credential) -> Actor:
    """The signed-in user behind the credential; raises Unauthenticated."""
    if credential.is_api_key:
        raise Unauthenticated("An API key acts within its team alone; sign in for this.")
    row = fetch_row(session, SIGN_IN, {"token_hash": credential.hash})
    session_id, user_id = _authenticated(session, "sessions", row)
    return Actor(user_id=user_id, session_id=session_id, origin=credential.origin)


def enter_team(
    session: Session,
    credential: Credential,
    team_id: UUID,
    permission: Permission | None = None,
    *,
    workspace_id: UUID | None = None,
    task_id: UUID | None = None,
    leaving: UUID | None = None,
) -> Access:
    """
    The caller's access to the team, or to one workspace of it (named by its id, or by that of a task in it), once it is
    proven to include `permission` (None: membership is enough).

    Raises Unauthenticated for a bad credential, NotFound for a team that is absent, deleted or not the caller's, and
    PermissionDenied, naming what is missing, inside one's own team. The user `leaving` enters though suspended, without any
    permission: to leave. A workspace that is absent or hidden makes no
    difference here: whoever reads it next finds nothing.
    """
    access = _enter(session, _presented(credential), Place(team_id, workspace_id, task_id), leaving)
    if permission is not None:
        access.require(permission)
    return access


def enter_to_listen(session: Session, credential: Credential, team_id: UUID) -> tuple[Access, Position]:
    """The access of whoever may hear the team's events, and where its log stands. Raises as `enter_team` does."""
    return _enter_to_listen(session, _presented(credential), team_id)


def enter_with_ticket(
    session: Session, ticket: str, team_id: UUID, origin: Origin
) -> tuple[Access, Position]:
    """
    `enter_to_listen` as whoever asked for the ticket, with the rights they have now; the ticket is used up, if this
    transaction commits.

    Raises as `enter_team` does; Unauthenticated for a ticket that is unknown, used, over or another team's.
    """
    presented = {"token_hash": Credential(ticket).hash, "team_id": team_id}
    row = fetch_row(session, USE_TICKET, presented)
    if row is None:
        raise Unauthenticated("The ticket is unknown, used or over; ask for another.")
    session_id, api_key_id = row
    return _enter_to_listen(session, _held(session_id, api_key_id, origin), team_id)


def reenter(
    session: Session,
    access: Access,
    permission: Permission | None = None,
    *,
    workspace_id: UUID | None = None,
    leaving: UUID | None = None,
) -> Access:
    """
    The same actor's access as it is now. Whoever holds the team's lock asks again before it decides on membership: the
    power that was read before the lock may be gone. Raises as `enter_team` does.
    """
    by = _held(access.session_id, access.api_key_id, access.origin)
    fresh = _enter(session, by, Place(access.team_id, workspace_id), leaving)
    if permission is not None:
        fresh.require(permission)
    return fresh


def enter_as_requested(
    session: Session,
    team_id: UUID,
    permission: Permission,
    *,
    session_id: UUID | None,
    api_key_id: UUID | None,
) -> Access:
    """
    The access that somebody has now who asked for something to be done later, by what they came with then. Raises as
    `enter_team` does.
    """
    access = _enter(session, _held(session_id, api_key_id, Origin()), Place(team_id))
    access.require(permission)
    return access


def enter_new_team(actor: Actor, team_id: UUID, role: str) -> Access:
    """The access of the owner who is just making (or restoring) the team: enough to record an event, and no permission."""
    return _without_permissions(actor, team_id, role, is_owner=True)


def enter_as_invited(actor: Actor, team_id: UUID, role: str) -> Access:
    """The access of someone who is just accepting an invitation: enough to record its event, and no permission."""
    return _without_permissions(actor, team_id, role, is_owner=False)


def enter_for_webhook(session: Session, team_id: UUID, user_id: UUID) -> Access | None:
    """
    The access of the person who answers for a webhook, as it is now, to read the log with and nothing else. None if they may
    not enter the team any more, not read its log, or not point a webhook somewhere.
    """
    row = fetch_row(session, STANDING, {"team_id": team_id, "user_id": user_id})
    if row is None:
        return None
    role, owns, barred, granted = row
    power = effective(granted)
    points = {Permission.webhooks_create.value, Permission.webhooks_update.value}
    if barred or Permission.activity_read not in power or not points & power:
        return None
    return Access(
        team_id=team_id,
        user_id=user_id,
        role=role,
        is_owner=False,
        permissions=frozenset({Permission.activity_read.value}),
        origin=Origin(),
        sees_all_workspaces=owns,
    )


def _without_permissions(actor: Actor, team_id: UUID, role: str, *, is_owner: bool) -> Access:
    return Access(
        team_id=team_id,
        user_id=actor.user_id,
        role=role,
        is_owner=is_owner,
        permissions=frozenset(),
        origin=actor.origin,
        session_id=actor.session_id,
    )


class Presented(NamedTuple):
    """What a caller comes with: a session or an API key, and the column and value by which it is found."""

    kind: Literal["session", "api_key"]
    column: str
    value: object
    origin: Origin


def _presented(credential: Credential) -> Presented:
    if credential.is_api_key:
        return Presented("api_key", "c.key_hash", credential.hash, credential.origin)
    return Presented("session", "c.token_hash", credential.hash, credential.origin)


def _held(session_id: UUID | None, api_key_id: UUID | None, origin: Origin) -> Presented:
    """What somebody came with before, by its id."""
    if session_id:
        return Presented("session", "c.id", session_id, origin)
    return Presented("api_key", "c.id", api_key_id, origin)


def _enter_to_listen(session: Session, by: Presented, team_id: UUID) -> tuple[Access, Position]:
    place = Place(team_id)
    *row, head, waiting = _row(session, by, place, LOG_POSITION) or (None, None)
    access = _access(session, by, place, row or None)
    access.require(Permission.realtime_read)
    return access, Position(head or 0, (head or 0) + (waiting or 0))


def _enter(session: Session, by: Presented, place: Place, leaving: UUID | None = None) -> Access:
    return _access(session, by, place, _row(session, by, place), leaving)


def _row(session: Session, by: Presented, place: Place, more: tuple[str, ...] = ()) -> tuple[Any, ...] | None:
    statement = f"{entering(by.kind, place.within_workspace, more)}{by.column} = %(presented)s"
    parameters = {
        "presented": by.value,
        "team_id": place.team_id,
        "workspace_id": place.workspace_id,
        "task_id": place.task_id,
    }
    return fetch_row(session, statement, parameters)


def _access(
    session: Session, by: Presented, place: Place, row: Sequence[Any] | None, leaving: UUID | None = None
) -> Access:
    credential_id, user_id = _authenticated(session, "sessions" if by.kind == "session" else "api_keys", row)
    _, _, _, _, role, owns, barred, calls_used_up, granted, *rest = row or ()
    if role is None:
        raise NotFound("team")
    in_workspace = rest.pop() if place.within_workspace else None
    if barred:
        if user_id != leaving:
            key = by.kind == "api_key"
            refused = Named(
                place.team_id, user_id, rest[1] if key else None, credential_id if key else None, by.origin
            )
            raise PermissionDenied(barred, REASON_BARRED[barred], by=refused)
        granted, owns = (), False
    if by.kind == "session":
        permissions = effective(granted, workspace=in_workspace)
        return Access(
            team_id=place.team_id,
            user_id=user_id,
            role=role,
            is_owner=owns,
            permissions=permissions,
            origin=by.origin,
            session_id=credential_id,
            sees_all_workspaces=owns,
            calls_used_up=calls_used_up,
        )
    scope, agent_id, agent_grants = rest
    agent = agent_grants if agent_id else None
    return Access(
        team_id=place.team_id,
        user_id=user_id,
        role=role,
        is_owner=False,
        permissions=effective(granted, workspace=in_workspace, agent=agent, key=scope),
        origin=by.origin,
        api_key_id=credential_id,
        agent_id=agent_id,
        sees_all_workspaces=owns,
        calls_used_up=calls_used_up,
    )


REASON_BARRED = {
    "membership": "Your membership in this team is suspended; an admin of the team can lift that.",
    "account": "This account is suspended; whoever runs this installation can lift that.",
    "team": "This team is suspended; whoever runs this installation can lift that.",
    "two_factor": "This team asks its members for a second factor; set one up under /me/two-factor.",
}


def _authenticated(session: Session, table: str, row: Sequence[Any] | None) -> tuple[UUID, UUID]:
    """The ids of the credential and its user; raises Unauthenticated for none, or one that has expired."""
    if row is None:
        raise Unauthenticated("The credential is unknown or has been revoked; sign in again.")
    credential_id, user_id, expired, touch, *_ = row
    if expired:
        raise Unauthenticated("The credential has expired; sign in again, or make a new key.")
    if touch:
        _touch_at_the_end(session, table, credential_id)
    return credential_id, user_id


def _touch_at_the_end(session: Session, table: str, credential_id: UUID) -> None:
    """
    Notes the use as the transaction's last statement. Were the row locked from the start, whoever removes a member with
    their keys, or ends a user's sessions, would wait for it with the lock in hand that this transaction is about to want.
    """
    noted: set[UUID] = session.info.setdefault(TOUCHED, set())
    if credential_id in noted:
        return
    noted.add(credential_id)

    def touch(session: Session) -> None:
        if not session.in_nested_transaction():
            session.connection().execute(TOUCH[table], {"id": credential_id})

    event.listen(session, "before_commit", touch)
