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
    """So many rows more, each of its own moment and with an origin; the log's last number then."""
    for _ in range(rows):
        with transaction() as session:
            access = team.owner.enter(session, team.id)
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


SWAP = """
UPDATE activity_logs SET seq = CASE seq WHEN {a} THEN {b} ELSE {a} END WHERE team_id = :id AND seq IN ({a}, {b})
"""
# The contents of two rows change places, and their numbers and hashes stay.
SWAP_CONTENTS = """
UPDATE activity_logs l SET (id, created_at, resource_id, metadata, workspace_id, origin_salt, origin_hash) = (
  SELECT o.id, o.created_at, o.resource_id, o.metadata, o.workspace_id, o.origin_salt, o.origin_hash FROM activity_logs o
  WHERE o.team_id = l.team_id AND o.seq = CASE l.seq WHEN {a} THEN {b} ELSE {a} END
) WHERE team_id = :id AND seq IN ({a}, {b})
"""
COPY_ROW = """
INSERT INTO activity_logs SELECT (jsonb_populate_record(l, jsonb_build_object(
  'seq', {to}, 'id', uuid7(), 'created_at', l.created_at + interval '{later}'))).*
FROM activity_logs l WHERE team_id = :id AND seq = {of}
"""
CHANGE = "UPDATE activity_logs SET resource_name = 'else' WHERE team_id = :id AND seq = {seq}"
LAST = 23
"""The last number of the log that SCENARIOS tamper with."""
Named = set[tuple[int, str]]
SCENARIOS: dict[str, tuple[tuple[str, ...], Named]] = {
    "a changed name": ((CHANGE.format(seq=9),), {(9, "changed")}),
    "changed metadata": (
        (
            'UPDATE activity_logs SET metadata = metadata || \'{"name": "x"}\' WHERE team_id = :id AND seq = 9',
        ),
        {(9, "changed")},
    ),
    "a changed first row": ((CHANGE.format(seq=1),), {(1, "changed")}),
    "a changed last row": ((CHANGE.format(seq=LAST),), {(LAST, "changed")}),
    "a changed time": (
        (
            "UPDATE activity_logs SET created_at = created_at + interval '1 us' WHERE team_id = :id AND seq = 9",
        ),
        {(9, "changed")},
    ),
    "two neighbours changed": (
        (CHANGE.format(seq=9), CHANGE.format(seq=10)),
        {(9, "changed"), (10, "changed")},
    ),
    "a changed hash": (
        ("UPDATE activity_logs SET hash = sha256('x') WHERE team_id = :id AND seq = 9",),
        {(9, "changed")},
    ),
    "a changed last hash": (
        (f"UPDATE activity_logs SET hash = sha256('x') WHERE team_id = :id AND seq = {LAST}",),
        {(LAST, "changed")},
    ),
    "a removed row": (("DELETE FROM activity_logs WHERE team_id = :id AND seq = 9",), {(9, "missing")}),
    "several removed rows": (
        ("DELETE FROM activity_logs WHERE team_id = :id AND seq IN (9, 10, 11, 15)",),
        {(9, "missing"), (15, "missing")},
    ),
    "a removed first row": (("DELETE FROM activity_logs WHERE team_id = :id AND seq = 1",), {(1, "missing")}),
    "a removed last row": (
        (f"DELETE FROM activity_logs WHERE team_id = :id AND seq = {LAST}",),
        {(LAST, "missing")},
    ),
    "all removed": (("DELETE FROM activity_logs WHERE team_id = :id",), {(1, "missing")}),
    "swapped rows": ((SWAP.format(a=7, b=14),), {(7, "swapped"), (14, "swapped")}),
    "swapped neighbours": ((SWAP.format(a=7, b=8),), {(7, "swapped"), (8, "swapped")}),
    "swapped with one between": ((SWAP.format(a=7, b=9),), {(7, "swapped"), (9, "swapped")}),
    "swapped contents": ((SWAP_CONTENTS.format(a=7, b=14),), {(7, "swapped"), (14, "swapped")}),
    "swapped contents of neighbours": ((SWAP_CONTENTS.format(a=7, b=8),), {(7, "swapped"), (8, "swapped")}),
    "swapped, and another changed": (
        (SWAP.format(a=7, b=14), CHANGE.format(seq=20)),
        {(7, "swapped"), (14, "swapped"), (20, "changed")},
    ),
    "a row inserted after its namesake": (
        (COPY_ROW.format(of=9, to=9, later="1 second"),),
        {(9, "inserted")},
    ),
    "a row inserted before its namesake": (
        (COPY_ROW.format(of=9, to=9, later="-1 second"),),
        {(9, "inserted")},
    ),
    "another address": (
        ("UPDATE activity_logs SET ip_address = '203.0.113.9' WHERE team_id = :id AND seq = 9",),
        {(9, "origin")},
    ),
    "another salt": (
        ("UPDATE activity_logs SET origin_salt = sha256('x') WHERE team_id = :id AND seq = 9",),
        {(9, "origin")},
    ),
    "an address without its salt": (
        ("UPDATE activity_logs SET origin_salt = NULL WHERE team_id = :id AND seq = 9",),
        {(9, "origin")},
    ),
}
"""How a log is tampered with, and what is then named, by the interface and by docs/verify.py."""
