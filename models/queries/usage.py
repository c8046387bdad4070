"""
Usage, read: what is folded into `usage_stats` plus what is still pending, in one statement and so in one snapshot.
Exact at once, whenever the fold last ran.
"""

import datetime as dt
from dataclasses import dataclass
from datetime import date

from sqlalchemy import text
from sqlalchemy.orm import Session

from models.access.entry import Access
from models.queries.paging import Page, Slice, bad_cursor
from models.tables.usage import Metric

_TOTALS = ", ".join(f"sum({metric})::numeric AS {metric}" for metric in Metric)
_PENDING = ", ".join(
    f"CASE WHEN metric = '{metric}' THEN quantity ELSE 0 END AS {metric}" for metric in Metric
)
_COLUMNS = ", ".join(Metric)
_BOTH = f"""
  SELECT date, {_COLUMNS} FROM usage_stats WHERE team_id = :team_id AND date <= :until
  UNION ALL
  SELECT date, {_PENDING} FROM usage_pending WHERE team_id = :team_id AND date <= :until
"""  # noqa: S608  made of constants alone
DAILY = text(f"""
SELECT * FROM (
  SELECT date, tasks_created, tasks_completed, llm_tokens_used, api_calls,
         sum(storage_bytes) OVER (ORDER BY date) AS storage_bytes
  FROM (SELECT date, {_TOTALS} FROM ({_BOTH}) AS both_sources GROUP BY date) AS days
) AS levels
WHERE date >= :since AND date > :after ORDER BY date LIMIT :limit
""")  # noqa: S608
MONTHLY = text(f"""
SELECT coalesce(sum(tasks_created) FILTER (WHERE date >= :since), 0) AS tasks_created,
       coalesce(sum(tasks_completed) FILTER (WHERE date >= :since), 0) AS tasks_completed,
       coalesce(sum(llm_tokens_used) FILTER (WHERE date >= :since), 0) AS llm_tokens_used,
       coalesce(sum(api_calls) FILTER (WHERE date >= :since), 0) AS api_calls,
       coalesce(sum(storage_bytes), 0) AS storage_bytes
FROM ({_BOTH}) AS both_sources
""")  # noqa: S608


@dataclass(frozen=True, slots=True)
class Counters:
    """The five counters of a day or a month. `storage_bytes` is the level at its close; the others are sums."""

    tasks_created: int
    tasks_completed: int
    llm_tokens_used: int
    api_calls: int
    storage_bytes: int


@dataclass(frozen=True, slots=True)
class Day(Counters):
    date: dt.date


def daily(session: Session, access: Access, *, since: date, until: date, page: Page) -> Slice[Day]:
    """The days with usage from `since` to `until`, both included, oldest first."""
    after = date.min
    if page.after is not None:
        try:
            (value,) = page.after
            after = date.fromisoformat(value)
        except ValueError as error:
            raise bad_cursor() from error
    rows = session.execute(
        DAILY,
        {"team_id": access.team_id, "since": since, "until": until, "after": after, "limit": page.limit + 1},
    ).all()
    days = [Day(date=row.date, **_counters(row)) for row in rows[: page.limit]]
    return Slice(days, (days[-1].date,) if len(rows) > page.limit else None)


def total(session: Session, access: Access, *, since: date, until: date) -> Counters:
    """The totals from `since` to `until`, both included; the storage level at the close of `until`."""
    row = session.execute(MONTHLY, {"team_id": access.team_id, "since": since, "until": until}).one()
    return Counters(**_counters(row))


def _counters(row: object) -> dict[str, int]:
    return {metric.value: int(getattr(row, metric)) for metric in Metric}
