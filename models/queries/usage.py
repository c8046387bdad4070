"""
Usage, read: what is folded into `usage_stats` plus what is still pending, in one statement and so in one snapshot.
Exact at once, whenever the fold last ran.
"""

import datetime as dt
import math
from calendar import monthrange
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal, localcontext
from fractions import Fraction
from uuid import UUID

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
""")  # noqa: S608  made of constants alone
MONTHLY = text(f"""
SELECT coalesce(sum(tasks_created) FILTER (WHERE date >= :since), 0) AS tasks_created,
       coalesce(sum(tasks_completed) FILTER (WHERE date >= :since), 0) AS tasks_completed,
       coalesce(sum(llm_tokens_used) FILTER (WHERE date >= :since), 0) AS llm_tokens_used,
       coalesce(sum(api_calls) FILTER (WHERE date >= :since), 0) AS api_calls,
       coalesce(sum(storage_bytes), 0) AS storage_bytes
FROM ({_BOTH}) AS both_sources
""")  # noqa: S608  made of constants alone

# The level after each change and at each day's beginning, and until when it lasts. Of two at one moment the change comes first.
STORAGE = text("""
WITH before AS (
  SELECT coalesce(sum(quantity), 0) AS level FROM usage_ledger
  WHERE team_id = :team_id AND metric = 'storage_bytes' AND occurred_at < :since AND recorded_at <= :recorded_until
), points AS (
  SELECT greatest(day, CAST(:since AS timestamptz)) AS at, 1 AS kind, 0 AS quantity, day FROM generate_series(
    date_trunc('day', CAST(:since AS timestamptz)), CAST(:until AS timestamptz) - interval '1 microsecond', interval '1 day'
  ) AS day
  UNION ALL
  SELECT occurred_at, 0, sum(quantity), date_trunc('day', occurred_at) FROM usage_ledger
  WHERE team_id = :team_id AND metric = 'storage_bytes' AND occurred_at >= :since AND occurred_at < :until
    AND recorded_at <= :recorded_until
  GROUP BY occurred_at
), levels AS (
  SELECT day, at, kind, (SELECT level FROM before) + sum(quantity) OVER (ORDER BY at, kind ROWS UNBOUNDED PRECEDING) AS level,
         least(coalesce(lead(at) OVER (ORDER BY at, kind), CAST(:until AS timestamptz)), now()) AS until
  FROM points
)
SELECT (day AT TIME ZONE 'UTC')::date AS date, (array_agg(level ORDER BY at DESC, kind DESC))[1] AS close,
       max(level) AS peak, sum(level * extract(epoch FROM until - least(at, now()))) AS byte_seconds
FROM levels GROUP BY day ORDER BY day
""")
FIRST_STORED = text(
    "SELECT min(occurred_at) FROM usage_ledger WHERE team_id = :team_id AND metric = 'storage_bytes'"
)
GIGABYTE = 10**9
EVER_RECORDED = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class StorageDay:
    """A day's storage: the level in bytes at its close, the highest one, and each level by the seconds that it lasted, summed."""

    date: dt.date
    close: int
    peak: int
    exact_byte_seconds: Decimal

    @property
    def byte_seconds(self) -> int:
        """To the whole one, as times have microseconds."""
        return round_half_up(self.exact_byte_seconds)


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
    after = _after(page)
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


def storage(session: Session, access: Access, *, since: date, until: date, page: Page) -> Slice[StorageDay]:
    """
    The storage day by day from `since` to `until`, both included, from the ledger's rows: every day from the team's first
    change on, and none after today, of which it is the part so far. The oldest first.
    """
    after, today = _after(page), datetime.now(UTC).date()
    first = session.scalar(FIRST_STORED, {"team_id": access.team_id})
    if first is None:
        return Slice([], None)
    since = max(since, first.astimezone(UTC).date(), min(after, today) + timedelta(days=1))
    until = min(until, today)
    if since > until:
        return Slice([], None)
    last = min(until, since + timedelta(days=page.limit - 1))
    days = _storage(session, access.team_id, _midnight(since), _midnight(last + timedelta(days=1)))
    return Slice(days, (last,) if last < until else None)


def storage_gb_months(
    session: Session,
    team_id: UUID,
    since: datetime,
    until: datetime,
    *,
    recorded_until: datetime = EVER_RECORDED,
) -> Decimal:
    """
    The storage from `since` to before `until`, within one calendar month (UTC), in GB-months: 10⁹ bytes for the whole of that
    month are 1, whatever its length. What lies ahead of now counts nothing. Of the ledger as it was recorded until
    `recorded_until`. Raises ValueError for times in different months.
    """
    since, until = since.astimezone(UTC), until.astimezone(UTC)
    if since >= until:
        return Decimal(0)
    month = _midnight(since.date().replace(day=1))
    seconds = monthrange(month.year, month.month)[1] * 86_400
    if until > month + timedelta(seconds=seconds):
        raise ValueError("the time spans more than one month")
    days = _storage(session, team_id, since, until, recorded_until)
    with localcontext(prec=60):
        return sum((day.exact_byte_seconds for day in days), Decimal(0)) / (GIGABYTE * seconds)


def _storage(
    session: Session,
    team_id: UUID,
    since: datetime,
    until: datetime,
    recorded_until: datetime = EVER_RECORDED,
) -> list[StorageDay]:
    rows = session.execute(
        STORAGE, {"team_id": team_id, "since": since, "until": until, "recorded_until": recorded_until}
    )
    return [StorageDay(row.date, int(row.close), int(row.peak), row.byte_seconds) for row in rows]


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def _after(page: Page) -> date:
    """The last day of the page before."""
    if page.after is None:
        return date.min
    try:
        (value,) = page.after
        return date.fromisoformat(value)
    except ValueError as error:
        raise bad_cursor() from error


def round_half_up(value: Decimal | Fraction) -> int:
    return math.floor(Fraction(value) + Fraction(1, 2))


def _counters(row: object) -> dict[str, int]:
    return {metric.value: int(getattr(row, metric)) for metric in Metric}
