"""What a month costs a team as of now, and what that changes of the months before: the content of an invoice."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from models.charges import NAMES, UNITS, Line, bounds, lines_of
from models.queries.month_usage import PlanInMonth, Recount, plans_in, recount
from models.tables import Charge

ADJUSTMENT = "adjustment"
# Months with usage that was recorded since the last close. A row's time is that of its transaction's beginning, so one that
# took long to commit is older than the count that missed it: hence the hour, longer than any transaction of ours may last.
# A change of the storage level goes on in every later month.
CHANGED = text("""
WITH late AS (
  SELECT date_trunc('month', occurred_at AT TIME ZONE 'UTC')::date AS month, bool_or(metric = 'storage_bytes') AS of_storage
  FROM usage_ledger WHERE team_id = :team_id AND recorded_at >= (
    SELECT max(counted_at) - interval '1 hour' FROM month_closes WHERE team_id = :team_id AND state = 'final'
  ) GROUP BY 1
)
SELECT c.month FROM month_closes c
WHERE c.team_id = :team_id AND c.state = 'final' AND c.month <> :month AND (
  c.recheck
  OR EXISTS (SELECT FROM late WHERE late.month = c.month OR (late.of_storage AND late.month < c.month))
  OR EXISTS (SELECT FROM plan_periods p WHERE p.team_id = :team_id AND p.starts_at > c.counted_at
             AND p.starts_at < ((c.month + interval '1 month') AT TIME ZONE 'UTC'))
) ORDER BY c.month
""")


class ChargeKey(NamedTuple):
    kind: str
    plan: str
    metric: str | None


@dataclass(frozen=True, slots=True)
class Charged:
    quantity: Decimal = Decimal(0)
    unrounded: Decimal = Decimal(0)
    amount: int = 0

    def plus(self, other: "Charged | Line") -> "Charged":
        return Charged(
            self.quantity + other.quantity, self.unrounded + other.unrounded, self.amount + other.amount
        )

    def minus(self, other: "Charged") -> "Charged":
        return Charged(
            self.quantity - other.quantity, self.unrounded - other.unrounded, self.amount - other.amount
        )


NOTHING = Charged()
ByKey = Mapping[ChargeKey, Charged]


@dataclass(frozen=True, slots=True)
class Bill:
    """What an invoice of the month would say now."""

    month: date
    currency: str
    lines: Sequence[Line]
    """Of the month itself."""
    adjustments: Sequence[Line]
    """Of months that were closed before, and cost something else by now."""
    changes: Mapping[date, ByKey]
    """By month, what this adds to what was charged: the lines and the adjustments, by plan and metric."""
    recount: Recount
    charged_before: ByKey
    """What the month itself was charged already: nothing, unless something is wrong."""
    other_currencies: Sequence[date]
    """Months whose price book has another currency; their adjustments can't stand on this invoice."""

    @property
    def period_end(self) -> date:
        return bounds(self.month)[1].date()

    @property
    def charges(self) -> bool:
        """Whether anything on it has a price; an invoice of nothing is not issued."""
        return any(line.amount for line in (*self.lines, *self.adjustments))

    @property
    def total(self) -> int:
        """Minor units."""
        return sum(line.amount for line in (*self.lines, *self.adjustments))


def compose(session: Session, team_id: UUID, month: date) -> Bill:
    """The month as it is now, whether it has ended or not, and the adjustments of earlier closes that wait for an invoice."""
    plans = plans_in(session, team_id, month)
    counted = recount(session, team_id, month, plans)
    currency = _currency(plans)
    lines = lines_of(month, counted.segments, currency)
    changes: dict[date, ByKey] = {month: by_key(lines)}
    adjustments: list[Line] = []
    other = [month] if any(each.book.currency != currency for each in plans) else []
    for changed in session.scalars(CHANGED, {"team_id": team_id, "month": month}):
        plans = plans_in(session, team_id, changed)
        if any(each.book.currency != currency for each in plans):
            other.append(changed)
            continue
        now = lines_of(changed, recount(session, team_id, changed, plans).segments, currency)
        difference = _difference(by_key(now), charged(session, team_id, changed))
        changes[changed] = difference
        adjustments += [_adjustment(changed, key, each, currency) for key, each in difference.items()]
    return Bill(
        month=month,
        currency=currency,
        lines=lines,
        adjustments=adjustments,
        changes=changes,
        recount=counted,
        charged_before={key: each for key, each in charged(session, team_id, month).items() if each.amount},
        other_currencies=other,
    )


def charged(session: Session, team_id: UUID, month: date) -> ByKey:
    """What the month was charged by all invoices and credit notes together; what came to nothing is left out."""
    rows = session.execute(
        select(
            Charge.kind,
            Charge.plan,
            Charge.metric,
            func.sum(Charge.quantity),
            func.sum(Charge.unrounded),
            func.sum(Charge.amount),
        )
        .where(Charge.team_id == team_id, Charge.month == month)
        .group_by(Charge.kind, Charge.plan, Charge.metric)
    )
    sums = {
        ChargeKey(kind, plan, metric): Charged(quantity, unrounded, int(amount))
        for kind, plan, metric, quantity, unrounded, amount in rows
    }
    return {key: each for key, each in sums.items() if each != NOTHING}


def by_key(lines: Iterable[Line]) -> dict[ChargeKey, Charged]:
    """Lines of one plan and metric, added up: a plan that was left and taken up again has several."""
    sums: dict[ChargeKey, Charged] = defaultdict(Charged)
    for line in lines:
        key = ChargeKey(line.kind, line.plan, line.metric)
        sums[key] = sums[key].plus(line)
    return dict(sums)


def _currency(plans: Sequence[PlanInMonth]) -> str:
    return plans[-1].book.currency if plans else "USD"


def _difference(now: ByKey, before: ByKey) -> dict[ChargeKey, Charged]:
    keys = [*now, *(key for key in before if key not in now)]
    differences = {key: now.get(key, NOTHING).minus(before.get(key, NOTHING)) for key in keys}
    return {key: each for key, each in differences.items() if each != NOTHING}


def _adjustment(month: date, key: ChargeKey, by: Charged, currency: str) -> Line:
    """
    Its amount is what the month costs now less what it was charged, each rounded as an invoice rounds it: so the month's
    invoices add up to what a single one would have said.
    """
    what = f": {NAMES[key.metric]}" if key.metric else ""
    _, ends = bounds(month)
    details: dict[str, Any] = {"currency": currency, "month": f"{month:%Y-%m}", "kind": key.kind}
    return Line(
        kind=ADJUSTMENT,
        description=f"Adjustment of {month:%B %Y}: {key.plan.capitalize()} plan{what}",
        plan=key.plan,
        metric=key.metric,
        quantity=by.quantity,
        unit=UNITS[key.metric] if key.metric else "months",
        starts_on=month,
        ends_on=ends.date(),
        unrounded=by.unrounded,
        amount=by.amount,
        details=details,
    )
