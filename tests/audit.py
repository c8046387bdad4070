"""What the tests of the chain share: a log of some length, its owner's hand in it, and a recomputed chain."""

from typing import Any
from uuid import UUID

from sqlalchemy import text
from uuid_utils.compat import uuid7

from models.database import transaction
from models.events.catalogue import WorkspaceCreated
from models.events.record import record
from models.operations import checkpoints
from models.queries.chain import DIGEST
from models.tables import Checkpoint
from tests.factories import TeamSetting, drain, fetch

RECHAIN = f"""
WITH chained AS (
  SELECT l.seq, activity_chain(
    (SELECT p.hash FROM activity_logs p WHERE p.team_id = :team AND p.seq = :first - 1), {DIGEST}
  ) OVER (ORDER BY l.seq) AS hash
  FROM activity_logs l WHERE l.team_id = :team AND l.seq >= :first
)
UPDATE activity_logs l SET hash = c.hash FROM chained c WHERE l.team_id = :team AND l.seq = c.seq
"""


def make_log(team: TeamSetting, rows: int) -> int:
    """So many rows more, with origins; the log's last number then."""
    with transaction() as session:
        access = team.owner.enter(session, team.id)
        for _ in range(rows):
            record(session, access, WorkspaceCreated(workspace_id=uuid7(), name="Rösearch"))
    drain()
    return int(fetch("SELECT seq FROM activity_heads WHERE team_id = :id", id=team.id)[0].seq)


def tamper(statement: str, **parameters: Any) -> None:
    """What the database's owner could do: a statement past the triggers."""
    with transaction() as session:
        for table in ("activity_logs", "checkpoints"):
            session.execute(text(f"ALTER TABLE {table} DISABLE TRIGGER append_only"))
        changed = session.execute(text(statement), parameters)
        assert changed.rowcount  # type: ignore[attr-defined]  # a statement's result has it
        for table in ("activity_logs", "checkpoints"):
            session.execute(text(f"ALTER TABLE {table} ENABLE TRIGGER append_only"))


def rechain(team_id: UUID, first: int) -> None:
    """Recomputes the chain from this row on, and the head, as one would who knows what the product does."""
    tamper(RECHAIN, team=team_id, first=first)
    tamper(
        "UPDATE activity_heads h SET hash = l.hash, seq = l.seq FROM activity_logs l"
        " WHERE h.team_id = :team AND l.team_id = :team"
        " AND l.seq = (SELECT max(seq) FROM activity_logs WHERE team_id = :team)",
        team=team_id,
    )


def sign(team_id: UUID) -> Checkpoint | None:
    with transaction() as session:
        return checkpoints.sign(session, team_id)
