"""A month's usage day by day, apart for those who used the most: what a stacked chart shows."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from uuid import UUID

from sqlalchemy import case, func, null, select, union_all
from sqlalchemy.orm import Session

from models.access.entry import Access
from models.queries.usage_reports import NAMED, Group, source
from models.tables import UsageBreakdown, UsagePending
from models.tables.usage import Metric


@dataclass(frozen=True, slots=True)
class Share:
    """What one user, agent, key or workspace used of a metric on a day."""

    date: dt.date
    metric: Metric
    rank: int
    """By the metric's sum over all the days, from 1; 0 for the sum of those that are further down."""
    id: UUID | None
    """None: without one, or of rank 0."""
    name: str | None
    quantity: int


def shares(
    session: Session, access: Access, *, since: date, until: date, by: Group, most: int
) -> Sequence[Share]:
    """
    The usage from `since` to `until`, both included, by day, metric and `by`, which is one that has names: the `most` of each
    metric that used the most of it, and the rest in one. In one statement, and exact at once. Of storage it is the net change.
    """
    keys = ["date", "metric", by.column]
    sources = union_all(
        *(
            source(access, table, keys).where(table.date >= since, table.date <= until)
            for table in (UsageBreakdown, UsagePending)
        )
    ).subquery()
    key = sources.c[by.column]
    summed = (
        select(
            sources.c.date, sources.c.metric, key.label("id"), func.sum(sources.c.quantity).label("quantity")
        )
        .group_by(sources.c.date, sources.c.metric, key)
        .cte("summed")
    )
    ranked = (
        select(
            summed.c.metric,
            summed.c.id,
            func.row_number()
            .over(partition_by=summed.c.metric, order_by=[func.sum(summed.c.quantity).desc(), summed.c.id])
            .label("rank"),
        )
        .group_by(summed.c.metric, summed.c.id)
        .cte("ranked")
    )
    is_shown = ranked.c.rank <= most
    rank = case((is_shown, ranked.c.rank), else_=0).label("rank")
    shown_id = case((is_shown, summed.c.id), else_=null()).label("id")
    apart = (
        select(summed.c.date, summed.c.metric, rank, shown_id, func.sum(summed.c.quantity).label("quantity"))
        .join(
            ranked,
            (ranked.c.metric == summed.c.metric) & ranked.c.id.is_not_distinct_from(summed.c.id),
        )
        .group_by(summed.c.date, summed.c.metric, rank, shown_id)
        .subquery()
    )
    table = NAMED[by]
    rows = session.execute(
        select(apart, table.name)
        .outerjoin(table, table.id == apart.c.id)
        .order_by(apart.c.metric, apart.c.date, apart.c.rank)
    )
    return [
        Share(row.date, Metric(row.metric), row.rank, row.id, row.name, int(row.quantity)) for row in rows
    ]
