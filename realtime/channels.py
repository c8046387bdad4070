"""Channels: their names, who may join and publish, and who may go on listening."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from models.access.entry import BARRED, Access, permissions_of
from models.access.permissions import Permission
from models.access.power import effective

JOIN = Permission.realtime_read
PUBLISH = Permission.realtime_publish

TEAM_PREFIX = b"team:"
PRESENCE_PREFIX, PROCESS_PREFIX = "presence:team:", "presence:process:"

# What entering by a session or an API key asks (models/access/entry.py), of all entries at once: the bearers of one role,
# agent's role and scope share a row, so what these grant is looked up and brought once, however many sockets there are.
STANDING = text(f"""
WITH entered AS (
  SELECT * FROM unnest(
    CAST(string_to_array(:team_ids, ',') AS uuid[]), CAST(string_to_array(:session_ids, ',', '') AS uuid[]),
    CAST(string_to_array(:api_key_ids, ',', '') AS uuid[])) WITH ORDINALITY AS entered(team_id, session_id, api_key_id, number)
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


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """By what a socket came into its team: a session or an API key."""

    team_id: UUID
    as_text: tuple[str, str, str]
    """The team, the session, and the API key, one of which is empty: made once, as it is asked about again and again."""

    @classmethod
    def of(cls, access: Access) -> "Entry":
        session, api_key = (str(id_) if id_ else "" for id_ in (access.session_id, access.api_key_id))
        return cls(access.team_id, (str(access.team_id), session, api_key))


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


def standing(session: Session, entries: Sequence[Entry]) -> list[frozenset[str] | None]:
    """The permissions that each entry carries now, in their order and in one statement; None for who may not listen any more."""
    teams, sessions, api_keys = map(",".join, zip(*(entry.as_text for entry in entries), strict=True))
    given = {"team_ids": teams, "session_ids": sessions, "api_key_ids": api_keys}
    found: list[frozenset[str] | None] = [None] * len(entries)
    for numbers, granted, agent, scope in session.execute(STANDING, given):
        permissions = effective(granted, agent=agent, key=scope)
        if JOIN in permissions:
            for number in numbers:
                found[number - 1] = permissions
    return found
