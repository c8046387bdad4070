"""How much happened when: the log's rows counted in equal steps of time, as a histogram shows them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from sqlalchemy import Interval, cast, func, select
from sqlalchemy.orm import Session

from models.access.entry import Access
from models.queries.activity_filters import ActivityFilter, narrowed, visible
from models.tables import ActivityDay, ActivityLog

MOST_STEPS = 60
COUNTED = 100_000
"""Rows that are counted one by one; beyond, a day's numbers in the log tell how many there are."""
ORIGIN = datetime(2001, 1, 1, tzinfo=UTC)
"""A Monday; steps begin at whole multiples from here."""
DAY = timedelta(days=1)
STEPS = (
    timedelta(minutes=1), timedelta(minutes=5), timedelta(minutes=15), timedelta(hours=1), timedelta(hours=6),
    DAY, timedelta(days=7), timedelta(days=28), timedelta(days=140), timedelta(days=700),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Bar:
    since: datetime
    until: datetime
    count: int


@dataclass(frozen=True, slots=True)
class Density:
    bars: Sequence[Bar]
    """Oldest first, without gaps."""
    exact: bool
    """Else it is about the whole log by days (UTC), whatever the filter: there were too many rows to count."""

    @property
    def total(self) -> int:
        return sum(bar.count for bar in self.bars)


def count(
    session: Session, access: Access, wanted: ActivityFilter, *, since: datetime, until: datetime
) -> Density:
    """
    How many rows match the filter, but for its text, from `since` on and before `until`, in at most MOST_STEPS steps that begin
    at or before `since`; `since` is before `until`.
    """
    step = _step(since, until)
    counts = _counted(session, access, replace(wanted, q=None, since=since, until=until), step)
    if counts is not None:
        return Density(_bars(counts, since, until, step), exact=True)
    return Density(_bars(_by_day(session, access, since, until), since, until, max(step, DAY)), exact=False)


def _step(since: datetime, until: datetime) -> timedelta:
    """The smallest that makes few enough, one more included as the first may begin earlier."""
    return next((step for step in STEPS if (until - since) / step <= MOST_STEPS - 1), STEPS[-1])


def _floor(time: datetime, step: timedelta) -> datetime:
    return ORIGIN + (time - ORIGIN) // step * step


def _bars(counts: dict[datetime, int], since: datetime, until: datetime, step: timedelta) -> list[Bar]:
    by_bar: dict[datetime, int] = {}
    for time, number in counts.items():
        begin = _floor(time, step)
        by_bar[begin] = by_bar.get(begin, 0) + number
    begin = _floor(since, step)
    begins = [begin + step * number for number in range(-((begin - until) // step))]
    return [Bar(each, each + step, by_bar.get(each, 0)) for each in begins]


def _counted(
    session: Session, access: Access, wanted: ActivityFilter, step: timedelta
) -> dict[datetime, int] | None:
    """By the beginnings of their steps; None for more than COUNTED rows."""
    rows = (
        select(ActivityLog.created_at)
        .where(*visible(access), *narrowed(wanted))
        .limit(COUNTED + 1)
        .subquery()
    )
    begin = func.date_bin(cast(step, Interval), rows.c.created_at, ORIGIN)
    found = session.execute(select(begin, func.count()).group_by(begin))
    counts = {time.astimezone(UTC): number for time, number in found}
    return counts if sum(counts.values()) <= COUNTED else None


def _by_day(session: Session, access: Access, since: datetime, until: datetime) -> dict[datetime, int]:
    """How many numbers each day has, as far as its log is folded (models.operations.activity_counts)."""
    days = session.execute(
        select(ActivityDay.day, ActivityDay.last_seq - ActivityDay.first_seq + 1).where(
            ActivityDay.team_id == access.team_id, ActivityDay.day.between(since.date(), until.date())
        )
    )
    return {datetime(day.year, day.month, day.day, tzinfo=UTC): number for day, number in days}
