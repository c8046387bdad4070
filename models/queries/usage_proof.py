"""Whether the ledger, what was folded from it and what was invoiced say the same."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session, aliased

from models.queries import usage
from models.queries.ledger import within
from models.tables import Invoice, InvoiceLine, UsageLedger
from models.tables.billing import CREDIT_NOTE, FINAL, INVOICE
from models.tables.usage import Metric

_UNPIVOTED = ", ".join(f"('{metric}', s.{metric})" for metric in Metric)
# One statement, and so one snapshot: what is compared was true at one moment.
COUNTS = text(f"""
WITH pending AS (
  SELECT date, metric, sum(quantity) AS quantity FROM usage_pending
  WHERE team_id = :team_id AND date BETWEEN :since AND :until GROUP BY 1, 2
)
SELECT date, metric, coalesce(sum(quantity) FILTER (WHERE source = 'ledger'), 0) AS ledger,
       coalesce(sum(quantity) FILTER (WHERE source IN ('breakdown', 'pending')), 0) AS breakdown,
       coalesce(sum(quantity) FILTER (WHERE source IN ('daily', 'pending')), 0) AS daily
FROM (
  SELECT 'ledger' AS source, (occurred_at AT TIME ZONE 'UTC')::date AS date, metric, sum(quantity) AS quantity
  FROM usage_ledger
  WHERE team_id = :team_id AND occurred_at >= CAST(:since AS date)::timestamp AT TIME ZONE 'UTC'
    AND occurred_at < (CAST(:until AS date) + 1)::timestamp AT TIME ZONE 'UTC'
  GROUP BY 2, 3
  UNION ALL SELECT 'pending', date, metric, quantity FROM pending
  UNION ALL SELECT 'breakdown', date, metric, quantity FROM usage_breakdowns
  WHERE team_id = :team_id AND date BETWEEN :since AND :until
  UNION ALL SELECT 'daily', s.date, m.metric, m.quantity
  FROM usage_stats s, LATERAL (VALUES {_UNPIVOTED}) AS m (metric, quantity)
  WHERE s.team_id = :team_id AND s.date BETWEEN :since AND :until
) AS counted GROUP BY 1, 2 ORDER BY 1, 2
""")  # noqa: S608  made of constants alone
DECIMAL_PLACES = Decimal("1e-18")
"""To which quantities of storage, which are fractions cut off in an invoice's lines, are compared."""


@dataclass(frozen=True, slots=True)
class Counted:
    """A quantity, counted in three ways; of storage the net change."""

    ledger: int
    breakdown: int
    daily: int

    @property
    def valid(self) -> bool:
        return self.ledger == self.breakdown == self.daily


@dataclass(frozen=True, slots=True)
class Invoiced:
    """What an invoice's lines charge for a metric, and what the ledger had of it when the invoice was counted."""

    number: str
    metric: str
    lines: Decimal
    ledger: Decimal

    @property
    def valid(self) -> bool:
        return abs(self.lines - self.ledger) < DECIMAL_PLACES


def counts(
    session: Session, team_id: UUID, *, since: date, until: date
) -> dict[tuple[date, Metric], Counted]:
    """By day and metric, from `since` to `until`, both included: every one that any of the three has."""
    rows = session.execute(COUNTS, {"team_id": team_id, "since": since, "until": until})
    return {
        (row.date, Metric(row.metric)): Counted(int(row.ledger), int(row.breakdown), int(row.daily))
        for row in rows
    }


def by_metric(counted: Mapping[tuple[date, Metric], Counted]) -> dict[Metric, Counted]:
    """The sums of all days."""
    sums = {metric: [0, 0, 0] for metric in Metric}
    for (_, metric), each in counted.items():
        for index, quantity in enumerate((each.ledger, each.breakdown, each.daily)):
            sums[metric][index] += quantity
    return {metric: Counted(*quantities) for metric, quantities in sums.items()}


def recount(rows: Iterable[Mapping[str, Any]]) -> dict[tuple[date, Metric], int]:
    """By day (UTC) and metric what exported rows of the ledger come to; times as text, or as such."""
    found: dict[tuple[date, Metric], int] = defaultdict(int)
    for row in rows:
        at = row["occurred_at"]
        moment = at if isinstance(at, datetime) else datetime.fromisoformat(at)
        found[moment.astimezone(UTC).date(), Metric(row["metric"])] += int(row["quantity"])
    return dict(found)


def invoiced(session: Session, team_id: UUID, *, since: date, until: date) -> list[Invoiced]:
    """Of each invoice that stands for these days: by metric what it charges and what the ledger had; none without one."""
    credit = aliased(Invoice)
    credited = select(credit.id).where(
        credit.credits == Invoice.id, credit.kind == CREDIT_NOTE, credit.state == FINAL
    )
    statement = select(Invoice).where(
        Invoice.team_id == team_id,
        Invoice.kind == INVOICE,
        Invoice.state == FINAL,
        Invoice.period_start <= until,
        Invoice.period_end > since,
        ~credited.exists(),
    )
    return [
        each
        for invoice in session.scalars(statement.order_by(Invoice.number))
        for each in _of_invoice(session, invoice)
    ]


def _of_invoice(session: Session, invoice: Invoice) -> Sequence[Invoiced]:
    lines = (
        select(InvoiceLine.metric, func.sum(InvoiceLine.quantity))
        .where(InvoiceLine.invoice_id == invoice.id, InvoiceLine.kind == "usage")
        .group_by(InvoiceLine.metric)
    )
    charged = {row[0]: row[1] for row in session.execute(lines)}
    last = invoice.period_end - timedelta(days=1)
    used: dict[str, Decimal] = {
        metric: Decimal(quantity)
        for metric, quantity in session.execute(
            select(UsageLedger.metric, func.sum(UsageLedger.quantity))
            .where(
                UsageLedger.team_id == invoice.team_id,
                UsageLedger.recorded_at <= invoice.counted_at,
                *within(invoice.period_start, last),
            )
            .group_by(UsageLedger.metric)
        )
    }
    used[Metric.storage_bytes] = usage.storage_gb_months(
        session,
        invoice.team_id,
        datetime.combine(invoice.period_start, time(), UTC),
        datetime.combine(invoice.period_end, time(), UTC),
        recorded_until=invoice.counted_at,
    )
    number = invoice.number or ""
    return [
        Invoiced(number, metric, charged.get(metric, Decimal(0)), used.get(metric, Decimal(0)))
        for metric in Metric
    ]
