"""What waits, over all teams: for operators alone."""

from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.orm import Session

# Ages by the rows' own clock. Each table holds what is not done yet and little else, so counting it is cheap while all is well.
BACKLOG = text("""
SELECT (SELECT count(*) FROM outbox) AS outbox_events,
       (SELECT extract(epoch FROM now() - min(created_at)) FROM outbox) AS outbox_seconds,
       (SELECT count(*) FROM usage_pending) AS usage_rows,
       (SELECT extract(epoch FROM now() - min(l.recorded_at)) FROM usage_pending p JOIN usage_ledger l ON l.id = p.ledger_id)
         AS usage_seconds,
       (SELECT count(*) FROM mails WHERE failed_at IS NULL) AS mails,
       (SELECT count(*) FROM mails WHERE failed_at IS NOT NULL) AS mails_failed,
       (SELECT count(*) FROM tasks WHERE lease_id IS NOT NULL AND lease_expires_at < now()) AS tasks_expired
""")


@dataclass(frozen=True, slots=True)
class Backlog:
    """Counts, and the age in seconds of the oldest; 0 where nothing waits."""

    outbox_events: int
    outbox_seconds: float
    usage_rows: int
    usage_seconds: float
    mails: int
    mails_failed: int
    tasks_expired: int


def backlog(session: Session) -> Backlog:
    row = session.execute(BACKLOG).one()
    return Backlog(
        outbox_events=row.outbox_events,
        outbox_seconds=float(row.outbox_seconds or 0),
        usage_rows=row.usage_rows,
        usage_seconds=float(row.usage_seconds or 0),
        mails=row.mails,
        mails_failed=row.mails_failed,
        tasks_expired=row.tasks_expired,
    )
