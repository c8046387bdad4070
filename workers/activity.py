"""Care of the activity log's table."""

from datetime import UTC, datetime

from models.database import transaction
from models.operations import activity, activity_reads
from workers.app import app

MONTHS_AHEAD = 4


@app.task(name="activity.ensure_partitions")
def ensure_partitions() -> None:
    """Makes this month's partition and those of the next months, if they are not there."""
    with transaction() as session:
        activity.ensure_partitions(session, first=datetime.now(UTC).date(), months=MONTHS_AHEAD)


@app.task(name="activity.expire_reads")
def expire_reads() -> None:
    with transaction() as session:
        activity_reads.expire(session)
