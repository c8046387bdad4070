"""API keys: credentials of one team that act for whoever made them. A revoked key's row is gone."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import func
from sqlalchemy.orm import Session

from models.access.credentials import KEY_PREFIX, VISIBLE_LENGTH, hash_secret, new_token
from models.access.entry import Access
from models.access.power import refuse_above
from models.errors import Invalid, PermissionDenied
from models.events.catalogue import ApiKeyCreated, ApiKeyRevoked
from models.events.record import record
from models.tables import Agent, ApiKey

VALID_FOR = timedelta(days=90)
"""Unless another time is asked for. Every key expires."""


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key's row and the key, which is not kept and can't be shown again."""

    row: ApiKey
    key: str


def create(
    session: Session,
    access: Access,
    *,
    name: str,
    permissions: Collection[str],
    expires_at: datetime | None = None,
    agent: Agent | None = None,
) -> NewKey:
    """
    A key that may do what is in `permissions`, as long as its maker may: for programs, or for an agent that acts for the maker.

    Raises PermissionDenied for permissions that the maker lacks, and for a maker who came with a key: what a leaked key made
    would outlive it. Invalid for a time that is over.
    """
    if access.session_id is None:
        raise PermissionDenied("session", "An API key can't make keys; sign in for this.")
    refuse_above(access.permissions, permissions, "The key")
    if expires_at is not None and expires_at <= datetime.now(UTC):
        raise Invalid({"expires_at": ["This time is over."]})
    key = new_token(KEY_PREFIX)
    row = ApiKey(
        team_id=access.team_id,
        user_id=access.user_id,
        agent_id=agent.id if agent else None,
        name=name,
        prefix=key[:VISIBLE_LENGTH],
        key_hash=hash_secret(key),
        permissions=sorted(set(permissions)),
        expires_at=expires_at or func.now() + VALID_FOR,
    )
    session.add(row)
    session.flush()  # the event names its id
    record(
        session,
        access,
        ApiKeyCreated(**_said_of(row), permissions=row.permissions, expires_at=row.expires_at),
    )
    return NewKey(row, key)


def revoke(session: Session, access: Access, row: ApiKey) -> None:
    """Ends the key; it is refused on its next request. The caller has locked the row."""
    session.delete(row)
    session.flush()  # in the lock's order, before the event
    record(session, access, ApiKeyRevoked(**_said_of(row)))


def _said_of(row: ApiKey) -> dict[str, Any]:
    return {"api_key_id": row.id, "name": row.name, "agent_id": row.agent_id, "user_id": row.user_id}
