"""Care of the activity log's table."""

import time
from datetime import UTC, datetime
from uuid import UUID

from models.database import transaction
from models.operations import activity, retention
from workers.app import app

MONTHS_AHEAD = 4
PURGED_AT_ONCE = 5_000
LONGEST_RUN_S = 60.0
"""A purge that takes longer makes way for other work; the next hour goes on."""


@app.task(name="activity.ensure_partitions")
def ensure_partitions() -> None:
    """Makes this month's partition and those of the next months, if they are not there."""
    with transaction() as session:
        activity.ensure_partitions(session, first=datetime.now(UTC).date(), months=MONTHS_AHEAD)


@app.task(name="activity.prune")
def prune() -> None:
    """Purges what the teams no longer keep, each part in a transaction of its own, and drops the months that hold nothing."""
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
    """Until nothing of the team is left to purge, or the time is over."""
    purged = 1
    while purged and time.monotonic() < give_up:
        with transaction() as session:
            purged = retention.prune(session, team_id, PURGED_AT_ONCE)
