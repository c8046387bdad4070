"""Billing as an operator sees it, over all teams."""

from datetime import date
from typing import Any
from uuid import UUID

from sqlalchemy import String, cast, func, select
from sqlalchemy.orm import Session

from models.tables import (
    ArchivedInvoice,
    ChargeEstimate,
    Invoice,
    MonthClose,
    Payment,
    PaymentOrder,
    UsageDifference,
)
from models.tables.billing import FINAL, MISMATCH
from models.tables.payments import PAID, VOIDED

Rows = list[dict[str, Any]]


def differences(session: Session) -> Rows:
    """Days on which the last recount found the ledger and what was folded from it to differ."""
    columns = list(UsageDifference.__table__.c)
    return _rows(
        session,
        select(*columns).order_by(UsageDifference.date, UsageDifference.team_id, UsageDifference.metric),
    )


def mismatches(session: Session) -> Rows:
    """Months that can't be finalized, and why."""
    return _rows(
        session,
        select(MonthClose.team_id, MonthClose.month, MonthClose.due_at, MonthClose.problem)
        .where(MonthClose.state == MISMATCH)
        .order_by(MonthClose.month, MonthClose.team_id),
    )


def is_open(session: Session, team_id: UUID, month: date) -> bool:
    """Whether the month has ended and is not final."""
    close = session.get(MonthClose, (team_id, month))
    return close is not None and close.state != FINAL


def estimates(session: Session, month: date | None) -> Rows:
    """What the month has cost each team so far; the latest month that has estimates by default."""
    latest = select(func.max(ChargeEstimate.month)).scalar_subquery()
    return _rows(
        session,
        select(
            ChargeEstimate.month,
            ChargeEstimate.team_id,
            ChargeEstimate.as_of,
            ChargeEstimate.total,
            ChargeEstimate.currency,
        )
        .where(ChargeEstimate.month == (latest if month is None else month))
        .order_by(ChargeEstimate.total.desc(), ChargeEstimate.team_id),
    )


def unpaid(session: Session) -> Rows:
    """Final invoices that are neither paid nor void, and what their provider's orders came to."""
    return _rows(
        session,
        select(
            Invoice.number,
            Invoice.team_id,
            Invoice.total,
            Invoice.currency,
            Invoice.finalized_at,
            Payment.state,
            Payment.provider,
            Payment.reference,
            PaymentOrder.action,
            PaymentOrder.attempts,
            PaymentOrder.error,
            PaymentOrder.failed_at,
        )
        .join(Payment, Payment.invoice_id == Invoice.id)
        .outerjoin(PaymentOrder, PaymentOrder.invoice_id == Invoice.id)
        .where(Payment.state.not_in([PAID, VOIDED]) | PaymentOrder.id.is_not(None))
        .order_by(Invoice.number),
    )


def archived(session: Session, team_id: UUID | None) -> list[str]:
    """What is kept of the invoices of purged teams, each as the text of a JSON object (whose numbers are exact), by number."""
    document = cast(ArchivedInvoice.document, String)
    of_team = [] if team_id is None else [ArchivedInvoice.purged_team_id == team_id]
    return list(session.scalars(select(document).where(*of_team).order_by(ArchivedInvoice.number)))


def _rows(session: Session, statement: Any) -> Rows:
    return [dict(row) for row in session.execute(statement).mappings()]
