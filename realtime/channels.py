"""Channels: their names, who may join and publish, and where a fresh socket begins to listen."""

from collections.abc import Collection
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from models.access.entry import Access
from models.access.permissions import Permission
from models.tables import ActivityHead, OutboxEvent

JOIN = Permission.realtime_read
PUBLISH = Permission.realtime_publish

TEAM_PREFIX = b"team:"

STANDING = text("""
SELECT s.id AS session_id, m.team_id,
       (SELECT string_agg(p.resource || ':' || p.action, ' ') FROM permissions p
        WHERE p.role = m.role AND p.allowed AND p.resource = 'realtime'
          AND (p.team_id IS NULL OR p.team_id = m.team_id)) AS permissions
FROM unnest(CAST(:session_ids AS uuid[]), CAST(:team_ids AS uuid[])) AS entered(session_id, team_id)
JOIN sessions s ON s.id = entered.session_id AND s.expires_at > now()
JOIN teams t ON t.id = entered.team_id AND t.deleted_at IS NULL
JOIN team_members m ON m.team_id = t.id AND m.user_id = s.user_id
""")


class Entry(NamedTuple):
    """By what a socket came into its team."""

    session_id: UUID
    team_id: UUID

    @classmethod
    def of(cls, access: Access) -> "Entry":
        return cls(access.session_id, access.team_id)


class Position(NamedTuple):
    """Where a team's log stands: its last number, and the one it reaches once all that waits in the outbox is drained."""

    head: int
    committed: int


def team_channel(team_id: UUID) -> bytes:
    """The channel of a team's events and messages."""
    return TEAM_PREFIX + str(team_id).encode()


def team_of(channel: bytes) -> UUID:
    """The team of a channel; raises ValueError for a channel of no team."""
    if not channel.startswith(TEAM_PREFIX):
        raise ValueError(f"{channel!r} is not a team's channel.")
    return UUID(channel.removeprefix(TEAM_PREFIX).decode())


def position(session: Session, access: Access) -> Position:
    """
    Where the team's log stands now. What was committed before a socket came is no news to it, though the drain may
    number it later: a client's first frame is of what happened since it connected.
    """
    waiting = (
        select(func.count()).where(OutboxEvent.team_id == access.team_id).correlate(None).scalar_subquery()
    )
    statement = select(ActivityHead.seq, ActivityHead.seq + waiting).where(
        ActivityHead.team_id == access.team_id
    )
    row = session.execute(statement).one_or_none()
    return Position(*row) if row else Position(0, 0)


def standing(session: Session, entries: Collection[Entry]) -> dict[Entry, frozenset[str]]:
    """The real-time permissions that each entry carries now, in one statement; who may not enter any more is missing."""
    rows = session.execute(
        STANDING,
        {
            "session_ids": [entry.session_id for entry in entries],
            "team_ids": [entry.team_id for entry in entries],
        },
    )
    found = {Entry(row.session_id, row.team_id): frozenset((row.permissions or "").split()) for row in rows}
    return {entry: permissions for entry, permissions in found.items() if JOIN in permissions}
