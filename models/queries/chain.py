"""The hash chain of a team's activity log, checked in SQL: row against row, a stretch at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

STRETCH = 20_000
"""Rows that one statement checks: a fifth of a second, and flat memory."""
SUSPECTS = 100
"""Numbers that one statement names at the most."""


def digest_of(row: str, seq: str) -> str:
    """SQL: the digest of the row of this alias, as it would be with that number."""
    columns = (
        "id", "created_at", "user_id", "agent_id", "api_key_id", "action", "schema_version", "outcome", "resource_type",
        "resource_id", "resource_name", "workspace_id", "metadata", "request_id", "origin_hash",
    )  # fmt: skip
    return f"activity_digest({row}.team_id, {seq}, {', '.join(f'{row}.{column}' for column in columns)})"


DIGEST = digest_of("l", "l.seq")
ORIGIN_PROVEN = """CASE WHEN l.origin_salt IS NULL THEN l.ip_address IS NULL AND l.user_agent IS NULL
  ELSE l.origin_hash IS NOT DISTINCT FROM activity_origin_digest(l.origin_salt, l.ip_address, l.user_agent) END"""
HEAD = """
SELECT seq, coalesce(hash, activity_genesis(team_id)) AS hash, purged_seq,
       coalesce(purged_hash, activity_genesis(team_id)) AS purged_hash, now() AS read_at
FROM activity_heads WHERE team_id = :team_id
"""
# Each row against what is stored in the row before it, so that a bad row does not make all that follow it look bad. Where
# the log was purged meanwhile, it begins there: head and rows are of one snapshot.
CHECK = text(f"""
WITH start AS (
  SELECT greatest(:seq, h.purged_seq) AS seq,
         CASE WHEN h.purged_seq > :seq THEN h.purged_hash ELSE :hash END AS hash
  FROM activity_heads h WHERE h.team_id = :team_id
), taken AS (
  SELECT l.* FROM activity_logs l
  WHERE l.team_id = :team_id AND l.seq > (SELECT seq FROM start) AND l.seq <= :up_to
  ORDER BY l.seq FETCH FIRST {STRETCH} ROWS WITH TIES  -- a number that was given twice is not cut in two
), linked AS (
  SELECT l.seq, l.hash, {DIGEST} AS digest, {ORIGIN_PROVEN} AS origin_proven,
         lag(l.seq, 1, s.seq) OVER chain AS previous_seq, lag(l.hash, 1, s.hash) OVER chain AS previous_hash
  FROM taken l, start s WINDOW chain AS (ORDER BY l.seq, l.created_at)
), checked AS (
  SELECT max(seq) AS seq,
         array_agg(seq ORDER BY seq) FILTER (
           WHERE seq <> previous_seq + 1 OR hash IS DISTINCT FROM sha256(previous_hash || digest)
         ) AS unchained,
         array_agg(seq ORDER BY seq) FILTER (WHERE NOT origin_proven) AS unproven
  FROM linked
)
SELECT s.seq AS begun_after, s.hash AS begun_with, coalesce(c.seq, s.seq) AS seq,
       CASE WHEN c.seq IS NULL THEN s.hash ELSE (
         SELECT l.hash FROM activity_logs l WHERE l.team_id = :team_id AND l.seq = c.seq ORDER BY l.created_at DESC LIMIT 1
       ) END AS hash,
       coalesce(c.unchained[1:{SUSPECTS}], '{{}}') AS unchained, coalesce(c.unproven[1:{SUSPECTS}], '{{}}') AS unproven
FROM start s, checked c
""")  # noqa: S608  made of constants alone


HASH_BEFORE = text("""
SELECT coalesce(
  (SELECT hash FROM activity_logs WHERE team_id = :team_id AND seq = :seq - 1),
  (SELECT purged_hash FROM activity_heads WHERE team_id = :team_id AND purged_seq = :seq - 1),
  CASE WHEN :seq = 1 THEN activity_genesis(:team_id) END
)
""")


@dataclass(frozen=True, slots=True)
class Head:
    """Both ends of a team's chain; where there is no row, the hash that the chain begins with."""

    seq: int
    hash: bytes
    purged_seq: int
    purged_hash: bytes
    read_at: Any


@dataclass(frozen=True, slots=True)
class Stretch:
    """Rows that were checked: those after `begun_after`, whose hash is `begun_with`, up to `seq`, whose hash is `hash`."""

    begun_after: int
    begun_with: bytes
    seq: int
    hash: bytes
    unchained: Sequence[int]
    """Numbers of rows that don't follow from the row before: at most SUSPECTS."""
    unproven: Sequence[int]
    """Numbers of rows whose address and user agent are not those that the chain commits to: at most SUSPECTS."""


def head(session: Session, team_id: UUID, *, for_update: bool = False) -> Head | None:
    """None for a team that has no log (any more). `for_update` keeps drain and purge away until the commit."""
    statement = text(HEAD + (" FOR UPDATE" if for_update else ""))
    row = session.execute(statement, {"team_id": team_id}).one_or_none()
    return None if row is None else Head(*row)


def hash_before(session: Session, team_id: UUID, seq: int) -> bytes | None:
    """What the row of this number chains to; None if the log does not have it."""
    found: bytes | None = session.scalar(HASH_BEFORE, {"team_id": team_id, "seq": seq})
    return found


def check(session: Session, team_id: UUID, *, seq: int, hash_: bytes, up_to: int) -> Stretch | None:
    """
    Checks the rows after `seq`, whose hash is given, up to the number `up_to`, STRETCH of them; where there are none (left), it
    ends where it began. What has been purged is passed over. None for a team that has no log (any more).
    """
    parameters = {"team_id": team_id, "seq": seq, "hash": hash_, "up_to": up_to}
    row = session.execute(CHECK, parameters).one_or_none()
    return None if row is None else Stretch(*row)
