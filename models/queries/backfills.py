"""Backfill sets, and what one changes: before it is applied, what it would."""

from dataclasses import dataclass
from datetime import date
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from models.access.entry import Access
from models.errors import NotFound
from models.queries.ledger import EXTERNAL
from models.queries.paging import Page, Slice, bad_cursor, keyset
from models.tables import UsageBackfill
from models.tables.usage import OPEN

NEW = f"""
SELECT e.* FROM usage_backfill_events e
WHERE e.team_id = :team_id AND e.backfill_id = :backfill_id
  AND NOT EXISTS (SELECT FROM usage_ledger l WHERE l.team_id = e.team_id AND l.key = '{EXTERNAL}' || e.external_id)
"""  # noqa: S608  made of constants alone
"""What of an open set the ledger does not know."""
COUNTED = """
SELECT l.* FROM usage_ledger l WHERE l.team_id = :team_id AND l.set_id = :backfill_id AND l.reverses IS NULL
"""
"""What a set that was applied has counted."""
CHANGES = """
WITH changes AS (
  SELECT (occurred_at AT TIME ZONE 'UTC')::date AS date, metric, count(*) AS events, sum(quantity) AS quantity
  FROM ({source}) AS events GROUP BY 1, 2
  HAVING ((occurred_at AT TIME ZONE 'UTC')::date, metric) > (CAST(:date AS date), CAST(:metric AS text))
  ORDER BY 1, 2 LIMIT :limit
)
SELECT c.*, (
  SELECT coalesce(sum(quantity), 0) FROM (
    SELECT quantity FROM usage_breakdowns b WHERE b.team_id = :team_id AND b.date = c.date AND b.metric = c.metric
    UNION ALL
    SELECT quantity FROM usage_pending p WHERE p.team_id = :team_id AND p.date = c.date AND p.metric = c.metric
  ) AS both_sources) AS counted
FROM changes c ORDER BY c.date, c.metric
"""
CHANGES_OF = {
    True: text(CHANGES.format(source=NEW)),
    False: text(CHANGES.format(source=COUNTED)),
}
SUMMARY = """
WITH events AS ({source}), months AS (
  SELECT DISTINCT date_trunc('month', occurred_at AT TIME ZONE 'UTC')::date AS begins FROM events
)
SELECT (SELECT count(*) FROM usage_backfill_events WHERE team_id = :team_id AND backfill_id = :backfill_id) AS events,
       (SELECT count(*) FROM events) AS counted,
       ARRAY(SELECT m.begins FROM months m WHERE EXISTS (
         SELECT FROM invoices i
         WHERE i.team_id = :team_id AND i.kind = 'invoice' AND i.state = 'final'
           AND i.period_start < m.begins + interval '1 month' AND i.period_end > m.begins
           AND NOT EXISTS (SELECT FROM invoices n WHERE n.credits = i.id AND n.state = 'final')
       ) ORDER BY m.begins) AS closed_months
"""
SUMMARY_OF = {
    True: text(SUMMARY.format(source=NEW)),
    False: text(SUMMARY.format(source=COUNTED)),
}
BY_DAY = "SELECT (occurred_at AT TIME ZONE 'UTC')::date, sum(quantity) FROM ({source}) AS events WHERE metric = 'storage_bytes' GROUP BY 1"
STORAGE_OF = {
    True: text(BY_DAY.format(source=NEW)),
    False: text(
        BY_DAY.format(source=COUNTED + "AND NOT EXISTS (SELECT FROM usage_ledger r WHERE r.reverses = l.id)")
    ),
}


@dataclass(frozen=True, slots=True)
class BackfillView:
    """A set and what is in it."""

    row: UsageBackfill
    events: int
    counted: int
    """Of the events: how many the ledger took from it, or would take now."""
    closed_months: list[date]
    """The first days of the months that it touches and that are invoiced: there it becomes adjustments."""

    @property
    def duplicates(self) -> int:
        return self.events - self.counted


@dataclass(frozen=True, slots=True)
class Change:
    """What a set changes of a day and metric."""

    date: date
    metric: str
    events: int
    quantity: int
    counted: int
    """What the day has now of the metric; of storage the day's net change."""


def in_team(session: Session, access: Access, page: Page) -> Slice[UsageBackfill]:
    """The team's sets, newest first."""
    statement = select(UsageBackfill).where(UsageBackfill.team_id == access.team_id)
    return keyset(session, statement, page, UsageBackfill.id, descending=True)


def get(session: Session, access: Access, backfill_id: UUID, *, for_update: bool = False) -> UsageBackfill:
    """One set; raises NotFound."""
    statement = select(UsageBackfill).where(
        UsageBackfill.team_id == access.team_id, UsageBackfill.id == backfill_id
    )
    if for_update:
        statement = statement.with_for_update(key_share=True).execution_options(populate_existing=True)
    backfill = session.scalar(statement)
    if backfill is None:
        raise NotFound("backfill")
    return backfill


def view(session: Session, backfill: UsageBackfill) -> BackfillView:
    """The set with what it would change, or has changed."""
    found = session.execute(SUMMARY_OF[backfill.state == OPEN], _of(backfill)).one()
    return BackfillView(backfill, found.events, found.counted, list(found.closed_months))


def changes(session: Session, backfill: UsageBackfill, page: Page) -> Slice[Change]:
    """By day and metric what it would change, or has changed before it was reverted; the oldest first."""
    after = (date.min.isoformat(), "") if page.after is None else page.after
    try:
        day, metric = after
        parameters = {**_of(backfill), "date": date.fromisoformat(day), "metric": metric}
    except ValueError as error:
        raise bad_cursor() from error
    rows = session.execute(CHANGES_OF[backfill.state == OPEN], {**parameters, "limit": page.limit + 1}).all()
    items = [
        Change(row.date, row.metric, row.events, int(row.quantity), int(row.counted))
        for row in rows[: page.limit]
    ]
    return Slice(items, (items[-1].date, items[-1].metric) if len(rows) > page.limit else None)


def storage_changes(session: Session, backfill: UsageBackfill) -> dict[date, int]:
    """By day, the bytes by which the level changes when an open set is applied; of an applied one, what it changed and still does."""
    rows = session.execute(STORAGE_OF[backfill.state == OPEN], _of(backfill))
    return {day: int(quantity) for day, quantity in rows}


def _of(backfill: UsageBackfill) -> dict[str, UUID]:
    return {"team_id": backfill.team_id, "backfill_id": backfill.id}
