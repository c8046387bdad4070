"""Work that waits for longer than it should, and work that was given up: over all teams, for operators alone."""

from datetime import timedelta
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

# A row each, of the same columns. What waits by design (a retry that is not due yet, a suspended team's webhooks) is not stuck.
_STUCK = """
SELECT 'outbox' AS kind, team_id::text AS id, team_id, min(created_at) AS since, 0 AS attempts,
       count(*) || ' events wait for the log' AS problem
FROM outbox GROUP BY team_id
UNION ALL
SELECT 'usage', p.team_id::text, p.team_id, min(l.recorded_at), 0, count(*) || ' rows of the ledger wait for the fold'
FROM usage_pending p JOIN usage_ledger l ON l.id = p.ledger_id GROUP BY p.team_id
UNION ALL
SELECT 'mail', id::text, NULL, due_at, attempts, coalesce(error, kind) FROM mails WHERE failed_at IS NULL
UNION ALL
SELECT 'export', id::text, team_id, due_at, attempts, coalesce(error, state)
FROM activity_exports WHERE state IN ('pending', 'running')
UNION ALL
SELECT 'webhook', w.id::text, w.team_id, w.due_at, 0,
       coalesce(w.last_error, (h.seq - w.delivered_seq) || ' rows of the log are not sent')
FROM webhooks w JOIN activity_heads h ON h.team_id = w.team_id
JOIN teams t ON t.id = w.team_id AND t.deleted_at IS NULL AND t.suspended_at IS NULL
WHERE w.enabled AND w.delivered_seq < h.seq AND coalesce(w.lease_expires_at, '-infinity') < now()
UNION ALL
SELECT 'payment', id::text, team_id, due_at, attempts, coalesce(error, action) FROM payment_orders WHERE failed_at IS NULL
UNION ALL
SELECT 'notice', id, NULL, due_at, attempts, type FROM payment_notices WHERE handled_at IS NULL
UNION ALL
SELECT 'close', team_id || '/' || to_char(month, 'YYYY-MM'), team_id, due_at, 0, state FROM month_closes WHERE state = 'draft'
UNION ALL
SELECT 'erasure', user_id::text, NULL, due_at, 0, 'the logs of the person''s teams' FROM erasures WHERE finished_at IS NULL
UNION ALL
SELECT 'task', id::text, team_id, lease_expires_at, attempts, 'its lease ran out'
FROM tasks WHERE lease_id IS NOT NULL AND lease_expires_at < now()
"""
STUCK = text(f"SELECT * FROM ({_STUCK}) AS stuck WHERE since < now() - :longer ORDER BY since LIMIT :limit")  # noqa: S608

_DEAD = """
SELECT 'mail' AS kind, id::text AS id, NULL::uuid AS team_id, failed_at AS since, attempts, error AS problem
FROM mails WHERE failed_at IS NOT NULL
UNION ALL
SELECT 'payment', id::text, team_id, failed_at, attempts, error FROM payment_orders WHERE failed_at IS NOT NULL
UNION ALL
SELECT 'export', id::text, team_id, completed_at, attempts, error FROM activity_exports WHERE state = 'failed'
UNION ALL
SELECT 'delivery', d.id::text, d.team_id, d.attempted_at, d.attempts,
       coalesce(d.last_error, d.last_status::text) || ' at webhook ' || d.webhook_id
FROM webhook_deliveries d WHERE d.state = 'dead' AND d.last_error IS DISTINCT FROM 'withheld'
UNION ALL
SELECT 'webhook', id::text, team_id, disabled_at, 0, 'disabled: ' || disabled_reason
FROM webhooks WHERE NOT enabled AND disabled_reason IS NOT NULL
UNION ALL
SELECT 'close', team_id || '/' || to_char(month, 'YYYY-MM'), team_id, due_at, 0, problem::text
FROM month_closes WHERE state = 'mismatch'
"""
DEAD = text(f"SELECT * FROM ({_DEAD}) AS dead ORDER BY since LIMIT :limit")  # noqa: S608


def stuck(session: Session, *, longer: timedelta, limit: int) -> list[dict[str, Any]]:
    """What has been due for `longer`, those first that have been the longest: kind, id, team_id, since, attempts, problem."""
    return [dict(row) for row in session.execute(STUCK, {"longer": longer, "limit": limit}).mappings()]


def dead(session: Session, *, limit: int) -> list[dict[str, Any]]:
    """What was given up, those first that were the longest ago; as `stuck` has it."""
    return [dict(row) for row in session.execute(DEAD, {"limit": limit}).mappings()]
