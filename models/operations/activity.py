"""The drain's work: numbering committed events, chaining them and appending them to the activity log, each exactly once."""

from datetime import date, datetime
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from models.tracing import tracing

# One drainer a team at a time: whoever holds the team's head numbers its events. Teams that another drainer holds are
# passed over. The recursive part walks the index from team to team, so a long backlog of one costs no more than one row.
CLAIM = text("""
WITH RECURSIVE waiting AS (
  (SELECT team_id, id FROM outbox ORDER BY team_id, id LIMIT 1)
  UNION ALL
  SELECT next.team_id, next.id FROM waiting w, LATERAL (
    SELECT team_id, id FROM outbox o WHERE o.team_id > w.team_id ORDER BY team_id, id LIMIT 1
  ) AS next
)
SELECT h.team_id FROM activity_heads h JOIN waiting w ON w.team_id = h.team_id
ORDER BY w.id LIMIT :teams FOR UPDATE OF h SKIP LOCKED
""")
# Its own statement, and so its own snapshot, taken after the heads are locked.
_PROJECT = """
WITH taken AS (
  DELETE FROM outbox WHERE id IN (
    SELECT id FROM outbox WHERE team_id = ANY(CAST(:team_ids AS uuid[])) ORDER BY id LIMIT :limit
  ) RETURNING *
), numbered AS (
  SELECT t.*, h.seq + row_number() OVER (PARTITION BY t.team_id ORDER BY t.id) AS seq,
         coalesce(h.hash, activity_genesis(h.team_id)) AS head,
         CASE WHEN t.ip_address IS NOT NULL OR t.user_agent IS NOT NULL THEN uuid_send(gen_random_uuid()) END AS origin_salt
  FROM taken t JOIN activity_heads h ON h.team_id = t.team_id
), committed AS (
  SELECT *, CASE WHEN origin_salt IS NOT NULL THEN activity_origin_digest(origin_salt, ip_address, user_agent) END
            AS origin_hash
  FROM numbered
), chained AS (
  SELECT *, activity_chain(head, activity_digest(
              team_id, seq, event_id, created_at, user_id, agent_id, api_key_id, action, schema_version, outcome,
              resource_type, resource_id, resource_name, workspace_id, details, request_id, origin_hash
            )) OVER (PARTITION BY team_id ORDER BY seq) AS hash
  FROM committed
), heads AS (
  UPDATE activity_heads h SET seq = last.seq, hash = last.hash
  FROM (SELECT DISTINCT ON (team_id) team_id, seq, hash FROM chained ORDER BY team_id, seq DESC) AS last
  WHERE last.team_id = h.team_id
), appended AS (
  INSERT INTO activity_logs (team_id, seq, created_at, id, user_id, agent_id, api_key_id, action, resource_type,
                             resource_id, resource_name, workspace_id, metadata, request_id, ip_address, user_agent,
                             schema_version, outcome, origin_salt, origin_hash, hash, words, mentions)
  SELECT team_id, seq, created_at, event_id, user_id, agent_id, api_key_id, action, resource_type,
         resource_id, resource_name, workspace_id, details, request_id, ip_address, user_agent,
         schema_version, outcome, origin_salt, origin_hash, hash, told.words, told.mentions
  FROM chained CROSS JOIN LATERAL activity_words(resource_name, action, details) AS told ORDER BY team_id, seq
  RETURNING team_id, seq, id, action, user_id, agent_id, workspace_id, metadata AS details, created_at
)
SELECT * FROM appended ORDER BY team_id, seq
"""
PROJECT = text(_PROJECT)
# With each event's place in the trace of its request, which the log does not keep.
PROJECT_TRACED = text(
    _PROJECT.replace(
        "SELECT * FROM appended ORDER BY",
        "SELECT a.*, c.traceparent FROM appended a JOIN chained c USING (team_id, seq) ORDER BY",
    )
)
PURGE = text("SELECT purge_activity(:team_id, :up_to, :at_most)")
ENSURE_PARTITIONS = text("SELECT ensure_activity_partitions(CAST(:first AS date), :months)")


class Projected(NamedTuple):
    """An event that is in the log now; what a socket shows of it."""

    team_id: UUID
    seq: int
    id: UUID
    action: str
    user_id: UUID | None
    agent_id: UUID | None
    workspace_id: UUID | None
    details: dict[str, object]
    created_at: datetime
    traceparent: str | None = None


def project(session: Session, *, limit: int, teams: int = 200) -> list[Projected]:
    """
    Moves up to `limit` events from the outbox to the log, in the outbox's order within each team, numbered without gaps.

    Safe to run in any number of workers at once, and to kill anywhere: it all commits or none of it does.
    """
    team_ids = list(session.scalars(CLAIM, {"teams": teams}))
    if not team_ids:
        return []
    rows = session.execute(PROJECT_TRACED if tracing.on else PROJECT, {"team_ids": team_ids, "limit": limit})
    return [Projected(*row) for row in rows]


def ensure_partitions(session: Session, *, first: date, months: int) -> None:
    """Makes the log's partitions for `months` months from the month of `first`; those that exist stay as they are."""
    session.execute(ENSURE_PARTITIONS, {"first": first, "months": months})


def purge(session: Session, team_id: UUID, *, up_to: int = 2**63 - 1, at_most: int) -> int:
    """
    Erases the team's rows from the log's beginning up to the number `up_to`, at most so many of them; how many it erased.
    The caller has locked the team's head, which keeps the hash that the first row left chains to.
    """
    return session.scalar(PURGE, {"team_id": team_id, "up_to": up_to, "at_most": at_most}) or 0
