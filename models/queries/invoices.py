"""Invoices, as those see them who may read a team's billing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session, aliased

from models.access.entry import Access
from models.charges import Line
from models.errors import Invalid, NotFound
from models.queries.bills import compose
from models.queries.paging import Page, Slice, keyset
from models.tables import BillingDetails, Invoice, InvoiceLine, Payment, PlanPeriod
from models.tables.billing import VOID

Lines = Sequence[InvoiceLine | Line]


@dataclass(frozen=True, slots=True)
class InvoiceView:
    """An invoice or credit note, with what became of it since."""

    invoice: Invoice
    payment_state: str | None
    voided_by: str | None
    """The number of the credit note that voids it."""
    credits: str | None
    """Of a credit note: the number of the invoice that it voids."""
    lines: Lines = ()

    @property
    def state(self) -> str:
        return VOID if self.voided_by else self.invoice.state


def in_team(session: Session, access: Access, page: Page) -> Slice[InvoiceView]:
    """The team's invoices, drafts and credit notes, newest first, without their lines."""
    found = keyset(session, _views(access), page, Invoice.id, descending=True)
    return Slice([InvoiceView(*row) for row in found.items], found.next_key)


def get(session: Session, access: Access, invoice_id: UUID) -> InvoiceView:
    """One of them, with its lines; raises NotFound."""
    row = session.execute(_views(access).where(Invoice.id == invoice_id)).one_or_none()
    if row is None:
        raise NotFound("invoice")
    lines = session.scalars(
        select(InvoiceLine).where(InvoiceLine.invoice_id == invoice_id).order_by(InvoiceLine.position)
    ).all()
    invoice, payment_state, voided_by, credits_ = row
    return InvoiceView(invoice, payment_state, voided_by, credits_, lines)


@dataclass(frozen=True, slots=True)
class Preview:
    """What the invoice of a month would be now."""

    period_start: date
    period_end: date
    currency: str
    total: int
    lines: Sequence[Line]
    counted_at: datetime


def preview(session: Session, access: Access, month: date) -> Preview:
    """
    What the month's invoice would say now: the base of the whole month, the usage so far, and adjustments of earlier months.
    Raises Invalid for a month that has not begun, or in which the team was on no plan yet.
    """
    now = datetime.now(UTC).date()
    first = session.scalar(
        select(PlanPeriod.starts_at)
        .where(PlanPeriod.team_id == access.team_id)
        .order_by(PlanPeriod.starts_at)
        .limit(1)
    )
    if month > now or first is None or month < first.astimezone(UTC).date().replace(day=1):
        raise Invalid({"month": ["There is nothing to invoice for this month (yet)."]})
    bill = compose(session, access.team_id, month)
    return Preview(
        period_start=month,
        period_end=bill.period_end,
        currency=bill.currency,
        total=bill.total,
        lines=[*bill.lines, *bill.adjustments],
        counted_at=bill.recount.counted_at,
    )


NO_DETAILS: Mapping[str, Any] = {
    "name": None,
    "address": "",
    "tax_id": None,
    "email": None,
    "updated_at": None,
}


def billing_details(session: Session, access: Access) -> BillingDetails | Mapping[str, Any]:
    """Who the team's invoices are made out to; nameless, if that was never said."""
    return session.get(BillingDetails, access.team_id) or NO_DETAILS


def _views(access: Access) -> Any:
    voiding, voided = aliased(Invoice), aliased(Invoice)
    return (
        select(Invoice, Payment.state, voiding.number, voided.number)
        .outerjoin(Payment, Payment.invoice_id == Invoice.id)
        .outerjoin(voiding, voiding.credits == Invoice.id)
        .outerjoin(voided, voided.id == Invoice.credits)
        .where(Invoice.team_id == access.team_id)
    )
