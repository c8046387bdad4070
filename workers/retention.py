"""Purging what the teams no longer keep of their logs (models/operations/retention.py)."""

import time
from uuid import UUID

import structlog

from models.database import transaction
from models.errors import DomainError
from models.operations import retention
from models.operations.checkpoints import Unverifiable
from workers.app import app

log = structlog.get_logger("workers.retention")

ROWS_AT_ONCE = 5_000
LONGEST_RUN_S = 60.0
"""A purge that takes longer makes way for other work; the next hour goes on."""


@app.task(name="activity.prune")
def prune() -> None:
    """Purges what has expired, each part in a transaction of its own, and drops the months that hold nothing any more."""
    give_up = time.monotonic() + LONGEST_RUN_S
    after: UUID | None = UUID(int=0)
    while after is not None and time.monotonic() < give_up:
        with transaction() as session:
            due = retention.due(session, after)
        for team_id in due.team_ids:
            prune_team(team_id, give_up)
        after = due.last
    with transaction() as session:
        retention.drop_empty_partitions(session)


def prune_team(team_id: UUID, give_up: float) -> None:
    """Until nothing of the team is left to purge, or the time is over; whatever is wrong with it, the next has its turn."""
    purged = 1
    try:
        while purged and time.monotonic() < give_up:
            with transaction() as session:
                purged = retention.prune(session, team_id, ROWS_AT_ONCE)
    except Unverifiable as error:
        log.error(  # noqa: TRY400  where it was raised says nothing
            "a log that does not verify is not purged",
            team_id=str(team_id),
            seq=error.seq,
            problem=error.problem,
        )
    except DomainError as error:  # the team is locked for long, or the database away
        log.warning("log not purged", team_id=str(team_id), error=error.detail)
