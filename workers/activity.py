"""Care of the activity log: its table, and the checkpoints that prove it."""

import time
from datetime import UTC, datetime
from uuid import UUID

import structlog

from models.database import transaction
from models.errors import DomainError
from models.operations import activity, activity_counts, activity_reads, checkpoints
from models.signing import keyring
from workers.app import app

log = structlog.get_logger("workers.activity")

MONTHS_AHEAD = 4
TEAMS_AT_ONCE = 500
ROWS_AT_ONCE = 50_000
"""What one transaction checks before it signs: the team's drain waits for half a second at the most."""
LONGEST_RUN_S = 90.0
"""A run that finds ever more makes way for other work; the next tick goes on."""
FOLDED_AT_ONCE = 500
"""Rows of a team in one transaction."""


@app.task(name="activity.ensure_partitions")
def ensure_partitions() -> None:
    """Makes this month's partition and those of the next months, if they are not there."""
    with transaction() as session:
        activity.ensure_partitions(session, first=datetime.now(UTC).date(), months=MONTHS_AHEAD)


@app.task(name="activity.sign_checkpoints")
def sign_checkpoints() -> None:
    """
    Signs a checkpoint for every team whose log went on since its last one, an hour ago; each in a transaction of its own. Any
    number may run at once: the lock of a team's head lets one of them sign it, and the others find it signed.
    """
    if keyring().signer is None:
        log.warning("no checkpoints are signed: SIGNING_KEY is not set")
        return
    with transaction() as session:
        checkpoints.register_key(session)
    started, after = time.monotonic(), None
    while True:
        with transaction() as session:
            due = checkpoints.due(session, after=after, limit=TEAMS_AT_ONCE)
        for team_id in due:
            if time.monotonic() - started > LONGEST_RUN_S:
                return
            sign_all_of(team_id)
        if len(due) < TEAMS_AT_ONCE:
            return
        after = due[-1]


def sign_all_of(team_id: UUID) -> int:
    """How many checkpoints it took to sign the team's log to its head; a log that does not verify is reported, and not signed."""
    signed = 0
    try:
        while True:
            with transaction() as session:
                if checkpoints.sign(session, team_id, at_most=ROWS_AT_ONCE) is None:
                    return signed
            signed += 1
    except checkpoints.Unverifiable as error:
        log.error(  # noqa: TRY400  where it was raised says nothing
            "the activity log does not verify", team_id=str(team_id), seq=error.seq, problem=error.problem
        )
    except (
        DomainError
    ) as error:  # the head is locked for long, or the database away: the next tick tries again
        log.warning("no checkpoint signed", team_id=str(team_id), error=error.detail)
    return signed


@app.task(name="activity.expire_reads")
def expire_reads() -> None:
    with transaction() as session:
        activity_reads.expire(session)


@app.task(name="activity.fold")
def fold() -> None:
    """Counts the log until all of it is counted. Facets and searches are exact without it; this keeps them fast."""
    while fold_batch():
        pass


def fold_batch() -> int:
    """How many rows one transaction counted."""
    with transaction() as session:
        return activity_counts.fold(session, limit=FOLDED_AT_ONCE)
