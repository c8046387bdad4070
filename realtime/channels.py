"""Channels: their names, who may join and publish, and where a fresh socket begins to listen."""

from collections.abc import Collection
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from models.access.entry import BARRED, Access, permissions_of
from models.access.permissions import Permission
from models.access.power import effective
from models.database import fetch_row

JOIN = Permission.realtime_read
PUBLISH = Permission.realtime_publish

TEAM_PREFIX = b"team:"
PRESENCE_PREFIX, PROCESS_PREFIX = "presence:team:", "presence:process:"

# What entering by a session or an API key asks (models/access/entry.py), of all entries at once: the bearers of one role,
# agent's role and scope share a row, so what these grant is looked up and brought once, however many sockets there are.
STANDING = text(f"""
WITH entered AS (
  SELECT * FROM unnest(CAST(:team_ids AS uuid[]), CAST(:session_ids AS uuid[]), CAST(:api_key_ids AS uuid[]))
    WITH ORDINALITY AS entered(team_id, session_id, api_key_id, number)
), presented AS (
  SELECT e.number, e.team_id, c.user_id, NULL AS agent_role, NULL AS scope
  FROM entered e JOIN sessions c ON c.id = e.session_id
  WHERE c.expires_at > now()
  UNION ALL
  SELECT e.number, e.team_id, c.user_id, a.role, c.permissions
  FROM entered e JOIN api_keys c ON c.id = e.api_key_id AND c.team_id = e.team_id LEFT JOIN agents a ON a.id = c.agent_id
  WHERE c.expires_at > now()
)
SELECT m.numbers, {permissions_of("m.role")} AS granted,
       CASE WHEN m.agent_role IS NOT NULL THEN {permissions_of("m.agent_role")} END AS agent, m.scope
FROM (
  SELECT m.team_id, m.role, c.agent_role, c.scope, array_agg(c.number) AS numbers
  FROM presented c
  JOIN team_members m ON m.user_id = c.user_id AND m.team_id = c.team_id
  JOIN teams t ON t.id = m.team_id AND t.deleted_at IS NULL
  WHERE ({BARRED}) IS NULL
  GROUP BY m.team_id, m.role, c.agent_role, c.scope
) AS m
""")  # noqa: S608  made of constants alone

# Asked past SQLAlchemy, as entering is: to build and compile it was half of what a socket's entry cost.
POSITION = """
SELECT seq, seq + (SELECT count(*) FROM outbox WHERE team_id = %(team_id)s)
FROM activity_heads WHERE team_id = %(team_id)s
"""


class Entry(NamedTuple):
    """By what a socket came into its team: a session or an API key."""

    team_id: UUID
    session_id: UUID | None
    api_key_id: UUID | None

    @classmethod
    def of(cls, access: Access) -> "Entry":
        return cls(access.team_id, access.session_id, access.api_key_id)


class Position(NamedTuple):
    """Where a team's log stands: its last number, and the one it reaches once all that waits in the outbox is drained."""

    head: int
    committed: int


def team_channel(team_id: UUID) -> bytes:
    """The channel of a team's events and messages."""
    return TEAM_PREFIX + str(team_id).encode()


def presence_key(team_id: UUID) -> str:
    """The hash of who is online in a team: a field for each process and person."""
    return f"{PRESENCE_PREFIX}{team_id}"


def process_key(process: str) -> str:
    """A web process's lease: while it holds, what the process says of its people counts."""
    return f"{PROCESS_PREFIX}{process}"


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
    row = fetch_row(session, POSITION, {"team_id": access.team_id})
    return Position(*row) if row else Position(0, 0)


def standing(session: Session, entries: Collection[Entry]) -> dict[Entry, frozenset[str]]:
    """The permissions that each entry carries now, in one statement; who may not listen any more is missing."""
    numbered = list(entries)
    columns = {
        "team_ids": [entry.team_id for entry in numbered],
        "session_ids": [entry.session_id for entry in numbered],
        "api_key_ids": [entry.api_key_id for entry in numbered],
    }
    found: dict[Entry, frozenset[str]] = {}
    for numbers, granted, agent, scope in session.execute(STANDING, columns):
        permissions = effective(granted, agent=agent, key=scope)
        if JOIN in permissions:
            found.update(dict.fromkeys((numbered[number - 1] for number in numbers), permissions))
    return found
