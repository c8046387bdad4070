"""What waits, over all teams: for operators alone."""

from dataclasses import dataclass, fields

from sqlalchemy import text
from sqlalchemy.orm import Session

# Ages by the rows' own clock. Each table holds what is not done yet and little else, or has an index of that, so counting it is
# cheap while all is well.
BACKLOG = text("""
SELECT (SELECT count(*) FROM outbox) AS outbox_events,
       (SELECT extract(epoch FROM now() - min(created_at)) FROM outbox) AS outbox_seconds,
       (SELECT count(*) FROM usage_pending) AS usage_rows,
       (SELECT extract(epoch FROM now() - min(l.recorded_at)) FROM usage_pending p JOIN usage_ledger l ON l.id = p.ledger_id)
         AS usage_seconds,
       (SELECT count(*) FROM mails WHERE failed_at IS NULL) AS mails,
       (SELECT extract(epoch FROM now() - min(due_at)) FROM mails WHERE failed_at IS NULL AND due_at < now()) AS mails_seconds,
       (SELECT count(*) FROM mails WHERE failed_at IS NOT NULL) AS mails_failed,
       (SELECT count(*) FROM tasks WHERE lease_id IS NOT NULL AND lease_expires_at < now()) AS tasks_expired,
       behind.webhooks, behind.webhooks_seconds,
       (SELECT count(*) FROM webhook_deliveries WHERE state = 'dead') AS deliveries_dead,
       (SELECT count(*) FROM activity_exports WHERE state IN ('pending', 'running')) AS exports,
       (SELECT extract(epoch FROM now() - min(due_at)) FROM activity_exports
        WHERE state IN ('pending', 'running') AND due_at < now()) AS exports_seconds,
       (SELECT count(*) FROM payment_orders WHERE failed_at IS NULL) AS payments,
       (SELECT count(*) FROM payment_orders WHERE failed_at IS NOT NULL) AS payments_failed,
       (SELECT count(*) FROM month_closes WHERE state = 'mismatch') AS closes_mismatched,
       (SELECT count(*) FROM usage_differences) AS usage_differences
FROM (
  SELECT count(*) AS webhooks, extract(epoch FROM now() - min(w.due_at)) AS webhooks_seconds
  FROM webhooks w JOIN activity_heads h ON h.team_id = w.team_id
  JOIN teams t ON t.id = w.team_id AND t.deleted_at IS NULL AND t.suspended_at IS NULL
  WHERE w.enabled AND w.due_at < now() AND w.delivered_seq < h.seq
) AS behind
""")
# By the key's order, not the time's: one row, however many wait.
OLDEST_EVENT = text("SELECT extract(epoch FROM now() - created_at) FROM outbox ORDER BY id LIMIT 1")


@dataclass(frozen=True, slots=True)
class Backlog:
    """Counts, and the age in seconds of the oldest; 0 where nothing waits."""

    outbox_events: int
    outbox_seconds: float
    usage_rows: int
    usage_seconds: float
    mails: int
    mails_seconds: float
    mails_failed: int
    tasks_expired: int
    webhooks: int
    webhooks_seconds: float
    deliveries_dead: int
    exports: int
    exports_seconds: float
    payments: int
    payments_failed: int
    closes_mismatched: int
    usage_differences: int


def backlog(session: Session) -> Backlog:
    row = session.execute(BACKLOG).one()._asdict()
    return Backlog(
        **{each.name: float(row[each.name] or 0) for each in fields(Backlog)}  # type: ignore[arg-type]
    )


def oldest_event_s(session: Session) -> float:
    """For how many seconds the first event of the outbox has waited; 0 where none does."""
    return float(session.scalar(OLDEST_EVENT) or 0)
