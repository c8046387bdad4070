"""A team's month for its invoice: the plans that it was on, and its usage, recounted from the ledger in one snapshot."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from models.charges import Segment, bounds
from models.plans import Book, Plan, parse
from models.tables import PlanPeriod, PriceBook
from models.tables.usage import Metric

BYTES_PER_GB = 10**9
_UNPIVOTED = ", ".join(f"('{metric}', s.{metric})" for metric in Metric)
# One statement, and so one snapshot: what is compared was true at one moment. Usage belongs to the plan that was on when it
# occurred; what is dated before the team's first one of the month, or after its last, to the nearest.
RECOUNT = text(f"""
WITH ledger AS (
  SELECT metric, (occurred_at AT TIME ZONE 'UTC')::date AS date,
         greatest(width_bucket(occurred_at, CAST(:starts AS timestamptz[])), 1) AS segment,
         count(*) AS rows, sum(quantity) AS quantity
  FROM usage_ledger WHERE team_id = :team_id AND occurred_at >= :begins AND occurred_at < :ends GROUP BY 1, 2, 3
), waiting AS (
  SELECT metric, date, sum(quantity) AS quantity FROM usage_pending
  WHERE team_id = :team_id AND date >= :first AND date < :next GROUP BY 1, 2
), daily AS (
  SELECT metric, date, sum(quantity) AS quantity FROM (
    SELECT m.metric, s.date, m.quantity FROM usage_stats s, LATERAL (VALUES {_UNPIVOTED}) AS m (metric, quantity)
    WHERE s.team_id = :team_id AND s.date >= :first AND s.date < :next
    UNION ALL SELECT * FROM waiting
  ) AS both_sources GROUP BY 1, 2
), broken_down AS (
  SELECT metric, date, sum(quantity) AS quantity FROM (
    SELECT metric, date, quantity FROM usage_breakdowns WHERE team_id = :team_id AND date >= :first AND date < :next
    UNION ALL SELECT * FROM waiting
  ) AS both_sources GROUP BY 1, 2
), compared AS (
  SELECT metric, date, coalesce(l.quantity, 0) AS ledger, coalesce(d.quantity, 0) AS daily,
         coalesce(b.quantity, 0) AS broken_down
  FROM (SELECT metric, date, sum(quantity) AS quantity FROM ledger GROUP BY 1, 2) AS l
  FULL JOIN daily d USING (metric, date) FULL JOIN broken_down b USING (metric, date)
), opening AS (
  SELECT coalesce(sum(quantity), 0) AS bytes FROM (
    SELECT storage_bytes AS quantity FROM usage_stats WHERE team_id = :team_id AND date < :first
    UNION ALL
    SELECT quantity FROM usage_pending WHERE team_id = :team_id AND date < :first AND metric = 'storage_bytes'
  ) AS before
), segments AS (
  SELECT * FROM unnest(CAST(:starts AS timestamptz[]), CAST(:counted AS timestamptz[]))
  WITH ORDINALITY AS s (starts_at, ends_at, number)
), stored AS (
  SELECT s.number, opening.bytes * extract(epoch FROM s.ends_at - s.starts_at) + coalesce((
    SELECT sum(l.quantity * extract(epoch FROM s.ends_at - greatest(l.occurred_at, s.starts_at))) FROM usage_ledger l
    WHERE l.team_id = :team_id AND l.metric = 'storage_bytes' AND l.occurred_at >= :begins AND l.occurred_at < s.ends_at
  ), 0) AS byte_seconds
  FROM segments s, opening
)
SELECT (SELECT coalesce(sum(rows), 0)::bigint FROM ledger) AS rows,
       (SELECT bytes::text FROM opening) AS opening,
       (SELECT coalesce(jsonb_agg(jsonb_build_array(segment, metric, quantity::text)), '[]') FROM (
          SELECT segment, metric, sum(quantity) AS quantity FROM ledger WHERE metric <> 'storage_bytes' GROUP BY 1, 2
        ) AS summed) AS used,
       (SELECT coalesce(jsonb_agg(jsonb_build_array(number, byte_seconds::text)), '[]') FROM stored) AS stored,
       (SELECT coalesce(jsonb_agg(jsonb_build_object('date', date, 'metric', metric, 'ledger', ledger::text,
                 'daily', daily::text, 'broken_down', broken_down::text) ORDER BY date, metric), '[]')
        FROM compared WHERE ledger <> daily OR ledger <> broken_down) AS differences,
       now() AS counted_at
""")  # noqa: S608  made of constants alone


@dataclass(frozen=True, slots=True)
class PlanInMonth:
    """A plan that a team was on within a month, at the prices of a book."""

    plan: Plan
    book: Book
    starts_at: datetime
    ends_at: datetime


@dataclass(frozen=True, slots=True)
class Recount:
    """What a team used in a month by the ledger, and where that differs from what was folded from it."""

    segments: Sequence[Segment]
    differences: Sequence[Mapping[str, str]]
    basis: Mapping[str, Any]
    """What it was counted from. The ledger only grows: the same basis has to give the same counts."""
    counted_at: datetime


def plans_in(session: Session, team_id: UUID, month: date) -> list[PlanInMonth]:
    """The plans of the month in their order; the one that is still on until the month's end."""
    begins, ends = bounds(month)
    periods = session.scalars(
        select(PlanPeriod)
        .where(PlanPeriod.team_id == team_id, PlanPeriod.starts_at < ends)
        .where(PlanPeriod.ends_at.is_(None) | (PlanPeriod.ends_at > begins))
        .order_by(PlanPeriod.starts_at)
    ).all()
    books = _books(session, {period.price_book for period in periods})
    return [
        PlanInMonth(
            plan=books[period.price_book].plans[period.plan],
            book=books[period.price_book],
            starts_at=max(period.starts_at, begins),
            ends_at=min(period.ends_at or ends, ends),
        )
        for period in periods
        if period.ends_at is None or period.ends_at > period.starts_at
    ]


def recount(session: Session, team_id: UUID, month: date, plans: Sequence[PlanInMonth]) -> Recount:
    """The month's usage by plan, from the ledger; of storage until now, if the month has not ended."""
    begins, ends = bounds(month)
    now: datetime = session.execute(text("SELECT now()")).scalar_one()
    row = session.execute(
        RECOUNT,
        {
            "team_id": team_id,
            "begins": begins,
            "ends": ends,
            "first": begins.date(),
            "next": ends.date(),
            "starts": [each.starts_at for each in plans],
            "counted": [max(each.starts_at, min(each.ends_at, now)) for each in plans],
        },
    ).one()
    usage: list[dict[str, Fraction]] = [{} for _ in plans]
    if plans:
        for number, metric, quantity in row.used:
            usage[number - 1][metric] = Fraction(quantity)
    month_seconds = int((ends - begins).total_seconds())
    for number, byte_seconds in row.stored:
        usage[number - 1][Metric.storage_bytes] = Fraction(byte_seconds) / BYTES_PER_GB / month_seconds
    return Recount(
        segments=[
            Segment(each.plan, each.starts_at, each.ends_at, used)
            for each, used in zip(plans, usage, strict=True)
        ],
        differences=row.differences,
        basis={
            "rows": row.rows,
            "opening": str(Decimal(row.opening)),
            "plans": [
                [each.plan.name, each.book.version, each.starts_at.isoformat(), each.ends_at.isoformat()]
                for each in plans
            ],
        },
        counted_at=row.counted_at,
    )


_PARSED: dict[str, Book] = {}
"""By SHA-256; a book never changes, and parsing one costs more than reading it."""


def _books(session: Session, versions: set[int]) -> dict[int, Book]:
    rows = session.scalars(select(PriceBook).where(PriceBook.version.in_(versions))).all()
    for row in rows:
        if row.sha256 not in _PARSED:
            _PARSED[row.sha256] = parse(row.body)
    return {row.version: _PARSED[row.sha256] for row in rows}
