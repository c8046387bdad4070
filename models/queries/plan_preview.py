"""What a change of plan would cost this month, beside staying: the charges of the month if usage goes on as it went so far."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from fractions import Fraction

from sqlalchemy.orm import Session

from models.access.entry import Access
from models.charges import MICROSECOND, Line, Segment, lines_of
from models.errors import Invalid
from models.plans import Plan
from models.queries import members, plans
from models.queries.month_usage import plans_in, recount
from models.tables.usage import Metric


@dataclass(frozen=True, slots=True)
class Outcome:
    """The lines of the month's invoice, and their sum in minor units."""

    lines: Sequence[Line]

    @property
    def total(self) -> int:
        return sum(line.amount for line in self.lines)


SHORTEST_PAST = timedelta(days=1)
"""What was used within a minute says nothing of the month."""


@dataclass(frozen=True, slots=True)
class Preview:
    month: date
    current: Plan
    wanted: Plan
    currency: str
    at: datetime
    """When the plan would change: now."""
    seats_taken: int
    staying: Outcome
    changing: Outcome


def preview(session: Session, access: Access, plan: str) -> Preview:
    """
    What the team pays for this month if it stays, and if it changes to the plan now. Every metric goes on at its average pace
    since the month began (or the team's first plan in it), which counts as a day at least; raises Invalid for a plan that the
    newest book does not have.
    """
    book = plans.current_book(session)
    if plan not in book.plans:
        raise Invalid({"plan": [f"There is no such plan at present; there are {', '.join(book.plans)}."]})
    month = session.execute(plans.THIS_MONTH).scalar_one()
    counted = recount(session, access.team_id, month, plans_in(session, access.team_id, month))
    *before, current = counted.segments
    now = max(counted.counted_at, current.starts_at)
    rest = _rest(counted.segments, now)
    wanted = current.plan if plan == current.plan.name else book.plans[plan]
    stayed = Segment(current.plan, current.starts_at, now, current.usage)
    staying = [*before, _and_on(stayed, current.ends_at, rest)]
    changing = [*before, stayed, Segment(wanted, now, current.ends_at, rest)]
    return Preview(
        month=month,
        current=current.plan,
        wanted=wanted,
        currency=book.currency,
        at=now,
        seats_taken=members.seats_taken(session, access.team_id),
        staying=Outcome(lines_of(month, staying, book.currency)),
        changing=Outcome(lines_of(month, staying if wanted is current.plan else changing, book.currency)),
    )


def _rest(segments: Sequence[Segment], now: datetime) -> dict[str, Fraction]:
    """What will be used until the month's end, by metric."""
    elapsed = max(now - segments[0].starts_at, SHORTEST_PAST) // MICROSECOND
    ahead = (segments[-1].ends_at - now) // MICROSECOND
    return {
        metric.value: sum((Fraction(segment.usage.get(metric, 0)) for segment in segments), Fraction(0))
        * Fraction(ahead, elapsed)
        for metric in Metric
    }


def _and_on(segment: Segment, until: datetime, rest: dict[str, Fraction]) -> Segment:
    usage = {metric.value: Fraction(segment.usage.get(metric, 0)) + rest.get(metric, 0) for metric in Metric}
    return Segment(segment.plan, segment.starts_at, until, usage)
