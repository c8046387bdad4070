"""
Entering: from a credential to a proven Actor or Access, in one statement of the request's own transaction.

Only this module builds an Access, so an operation that takes one can't be reached without authorization. Nothing is
cached: a revoked session, member or permission is refused on the next request (design.md, invariant 5).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from models.access.actor import Actor, Origin
from models.access.credentials import Credential
from models.access.permissions import OWNER_ONLY, Permission
from models.database import fetch_row
from models.errors import NotFound, PermissionDenied, Unauthenticated

LAST_USED_RESOLUTION = timedelta(minutes=5)
"""How exact `last_used_at` is: finer would turn every read into a write."""


@dataclass(frozen=True, slots=True)
class Access:
    """An actor proven into one team, with the role's permissions as they were in this transaction."""

    team_id: UUID
    user_id: UUID
    role: str
    is_owner: bool
    permissions: frozenset[str]
    session_id: UUID
    origin: Origin

    def require(self, permission: Permission) -> None:
        """Raises PermissionDenied naming what is missing: the permission, or `owner` for what only the owner may do."""
        if permission in OWNER_ONLY and not self.is_owner:
            raise PermissionDenied("owner", "Only the team's owner may do this.")
        if permission not in self.permissions:
            raise PermissionDenied(permission.value)


class Entry(NamedTuple):
    """What the statements below answer. The later fields are a team's; `role` is None for a team that is not theirs."""

    session_id: UUID
    user_id: UUID
    expired: bool
    touch: bool
    role: str | None = None
    is_owner: bool | None = None
    permissions: Sequence[str] = ()


# Each column and each layer costs a time that counts here (benchmarks/permission_check.py), so comparisons are
# PostgreSQL's, and SQLAlchemy is passed by (models.database.fetch_row).
_TOUCHABLE = f"last_used_at < now() - interval '{LAST_USED_RESOLUTION.total_seconds()} s'"
_SESSION = f"s.id, s.user_id, s.expires_at <= now(), s.{_TOUCHABLE}"
SIGN_IN = f"SELECT {_SESSION} FROM sessions s WHERE s.token_hash = %(token_hash)s"  # noqa: S608  made of constants alone
ENTER_TEAM = f"""
SELECT {_SESSION}, m.role, t.owner_id = s.user_id,
       ARRAY(SELECT p.resource || ':' || p.action FROM permissions p
             WHERE p.role = m.role AND p.allowed AND (p.team_id IS NULL OR p.team_id = m.team_id))
FROM sessions s
LEFT JOIN (team_members m JOIN teams t ON t.id = m.team_id AND t.deleted_at IS NULL)
  ON m.user_id = s.user_id AND m.team_id = %(team_id)s
WHERE s.token_hash = %(token_hash)s
"""  # noqa: S608
TOUCH_SESSION = text(f"""
UPDATE sessions SET last_used_at = now()
WHERE id = (SELECT id FROM sessions WHERE id = :session_id AND {_TOUCHABLE} FOR UPDATE SKIP LOCKED)
""")  # noqa: S608


def enter(session: Session, credential: Credential) -> Actor:
    """The signed-in user behind the credential; raises Unauthenticated."""
    entry = _authenticated(session, SIGN_IN, credential)
    return Actor(user_id=entry.user_id, session_id=entry.session_id, origin=credential.origin)


def enter_team(
    session: Session, credential: Credential, team_id: UUID, permission: Permission | None = None
) -> Access:
    """
    The caller's access to the team, once it is proven to include `permission` (None: membership is enough).

    Raises Unauthenticated for a bad credential, NotFound for a team that is absent, deleted or not the caller's, and
    PermissionDenied, naming what is missing, inside one's own team.
    """
    entry = _authenticated(session, ENTER_TEAM, credential, team_id=team_id)
    if entry.role is None:
        raise NotFound("team")
    access = Access(
        team_id=team_id,
        user_id=entry.user_id,
        role=entry.role,
        is_owner=bool(entry.is_owner),
        permissions=frozenset(entry.permissions),
        session_id=entry.session_id,
        origin=credential.origin,
    )
    if permission is not None:
        access.require(permission)
    return access


def enter_new_team(actor: Actor, team_id: UUID, role: str) -> Access:
    """The access of the owner who is just making the team: enough to record its first event, and no permission."""
    return Access(
        team_id=team_id,
        user_id=actor.user_id,
        role=role,
        is_owner=True,
        permissions=frozenset(),
        session_id=actor.session_id,
        origin=actor.origin,
    )


def _authenticated(session: Session, statement: str, credential: Credential, **parameters: UUID) -> Entry:
    row = fetch_row(session, statement, {"token_hash": credential.hash, **parameters})
    if row is None:
        raise Unauthenticated("The credential is unknown or has been revoked; sign in again.")
    entry = Entry(*row)
    if entry.expired:
        raise Unauthenticated("The session has expired; sign in again.")
    if entry.touch:
        session.connection().execute(TOUCH_SESSION, {"session_id": entry.session_id})
    return entry
