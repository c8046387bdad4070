"""
What a month costs: each plan that a team was on, for its share of the month, and what was used beyond what that includes.

Pure and exact: numbers are fractions until a line's amount is rounded, half up and once.
"""

import calendar
import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

from models.money import Exact, round_half_up, shown, truncated
from models.plans import PackagePrice, Part, Plan, Price, Terms
from models.tables.usage import Metric

UNITS: Mapping[str, str] = {
    Metric.tasks_created: "tasks",
    Metric.tasks_completed: "tasks",
    Metric.llm_tokens_used: "tokens",
    Metric.api_calls: "calls",
    Metric.storage_bytes: "GB-months",
}
NAMES: Mapping[str, str] = {
    Metric.tasks_created: "tasks created",
    Metric.tasks_completed: "tasks completed",
    Metric.llm_tokens_used: "LLM tokens",
    Metric.api_calls: "API calls",
    Metric.storage_bytes: "storage",
}
MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Segment:
    """A plan from `starts_at` until `ends_at` within a month, and what was used meanwhile; of storage GB-months of that month."""

    plan: Plan
    starts_at: datetime
    ends_at: datetime
    usage: Mapping[str, Exact]


@dataclass(frozen=True, slots=True)
class Line:
    """One charge. `quantity` and `unrounded` are cut off after 20 decimal places (models/money.py), which no rounding notices."""

    kind: str
    description: str
    plan: str
    metric: str | None
    quantity: Decimal
    unit: str
    starts_on: dt.date
    ends_on: dt.date
    """The days that the segment touches: [`starts_on`, `ends_on`)."""
    unrounded: Decimal
    amount: int
    """Minor units."""
    details: dict[str, Any]


def lines_of(month_start: date, segments: Sequence[Segment], currency: str) -> list[Line]:
    """
    The lines of the month that begins on `month_start` (UTC): of each segment its plan, and each metric that was used. A plan
    that costs nothing and was not used is left out beside another, such as the free one that each team begins on.

    A plan costs, and includes, the segment's share of the month by exact time. What was used beyond is priced in its own
    segment, with the tiers and packages of the book as they are: a share of them is nothing that a customer could check.
    Raises ValueError for segments that leave the month, overlap or are out of order.
    """
    begins, ends = bounds(month_start)
    before = begins
    lines: list[Line] = []
    alone = len(segments) == 1
    for segment in segments:
        if not before <= segment.starts_at <= segment.ends_at <= ends:
            raise ValueError("segments must follow each other within the month")
        before = segment.ends_at
        share = Fraction((segment.ends_at - segment.starts_at) // MICROSECOND, (ends - begins) // MICROSECOND)
        if alone or segment.plan.base or any(segment.usage.values()):
            lines += _lines(segment, share, currency)
    return lines


def bounds(month_start: date) -> tuple[datetime, datetime]:
    """When the month begins and when the next one does, UTC; raises ValueError for a date that begins no month."""
    if month_start.day != 1:
        raise ValueError("a month begins on its first day")
    begins = datetime.combine(month_start, dt.time(), UTC)
    return begins, begins + timedelta(days=calendar.monthrange(month_start.year, month_start.month)[1])


def _lines(segment: Segment, share: Fraction, currency: str) -> Iterator[Line]:
    common = {
        "currency": currency,
        "starts_at": segment.starts_at.isoformat(),
        "ends_at": segment.ends_at.isoformat(),
        "share_of_month": f"{share.numerator}/{share.denominator}",
    }
    if share:
        yield _line(
            segment,
            kind="base",
            quantity=share,
            unit="months",
            cost=Fraction(segment.plan.base) * share,
            details=common | {"price": shown(segment.plan.base)},
        )
    for metric in Metric:
        used = Fraction(segment.usage.get(metric, 0))
        if used:
            cost, details = _beyond(segment.plan.metrics.get(metric), share, used)
            yield _line(
                segment,
                kind="usage",
                metric=metric,
                quantity=used,
                unit=UNITS[metric],
                cost=cost,
                details=common | details,
            )


def _beyond(terms: Terms | None, share: Fraction, used: Fraction) -> tuple[Fraction, dict[str, Any]]:
    """What the usage costs, and how that comes about; nothing for a metric that the plan does not name."""
    if terms is None:
        return Fraction(0), {"included": None, "charged": "0", "price": None}
    included = terms.included * share
    over = max(used - included, Fraction(0))
    parts = terms.price.parts(over) if terms.price else []
    details = {
        "included": shown(included),
        "charged": shown(over) if parts else "0",
        "price": _described(terms.price, parts) if terms.price else None,
    }
    return sum((part.amount for part in parts), Fraction(0)), details


def _described(price: Price, parts: Sequence[Part]) -> dict[str, Any]:
    """The price model, and the parts that it charged."""
    size = {"size": price.size} if isinstance(price, PackagePrice) else {}
    charged = [
        {
            "quantity": shown(part.quantity),
            "unit_amount": shown(part.unit_amount),
            "flat_amount": shown(part.flat_amount),
            "amount": shown(part.amount),
        }
        for part in parts
    ]
    return {"model": price.model, **size, "parts": charged}


def _line(
    segment: Segment,
    *,
    kind: str,
    quantity: Fraction,
    unit: str,
    cost: Fraction,
    details: dict[str, Any],
    metric: Metric | None = None,
) -> Line:
    name = f"{segment.plan.name.capitalize()} plan"
    starts_on = segment.starts_at.astimezone(UTC).date()
    last_day = (segment.ends_at.astimezone(UTC) - MICROSECOND).date()
    return Line(
        kind=kind,
        description=f"{name}: {NAMES[metric]}" if metric else name,
        plan=segment.plan.name,
        metric=metric.value if metric else None,
        quantity=truncated(quantity),
        unit=unit,
        starts_on=starts_on,
        ends_on=max(starts_on, last_day) + timedelta(days=1),
        unrounded=truncated(cost),
        amount=round_half_up(cost),
        details=details,
    )
