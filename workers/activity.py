"""Care of the activity log's table."""

from datetime import UTC, datetime

from models.database import transaction
from models.operations import activity, activity_counts
from workers.app import app

MONTHS_AHEAD = 4
FOLDED_AT_ONCE = 500
"""Rows of a team in one transaction."""


@app.task(name="activity.ensure_partitions")
def ensure_partitions() -> None:
    """Makes this month's partition and those of the next months, if they are not there."""
    with transaction() as session:
        activity.ensure_partitions(session, first=datetime.now(UTC).date(), months=MONTHS_AHEAD)


@app.task(name="activity.fold")
def fold() -> None:
    """Counts the log until all of it is counted. Facets and searches are exact without it; this keeps them fast."""
    while fold_batch():
        pass


def fold_batch() -> int:
    """How many rows one transaction counted."""
    with transaction() as session:
        return activity_counts.fold(session, limit=FOLDED_AT_ONCE)
