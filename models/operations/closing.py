"""
The close of a month: a draft when it has ended, and an invoice when the grace for late usage is over and the usage, counted
anew from the ledger, is what was folded from it and what the draft says.

Each step is a transaction of its own for one team's month: run twice, by two workers at once, or killed anywhere, it is
done once.
"""

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, select, text
from sqlalchemy.orm import Session

from models.access.actor import System
from models.charges import Line
from models.currencies import shown
from models.events.catalogue import InvoiceFinalized
from models.events.record import record
from models.operations import invoices
from models.operations.invoices import Issuer
from models.queries.bills import Bill, compose
from models.tables import Charge, Invoice, InvoiceLine, MonthClose
from models.tables.billing import DRAFT, FINAL, INVOICE, MISMATCH

RETRY_MISMATCH_AFTER = timedelta(hours=1)
# A month ends for a deleted team when the team does. A team's months are closed in their order, so what is open is what
# comes after its last; a month in which it was on no plan is none of them.
ENDED = text("""
SELECT DISTINCT p.team_id, m.month::date AS month
FROM plan_periods p
JOIN teams t ON t.id = p.team_id
LEFT JOIN LATERAL (SELECT max(c.month) AS month FROM month_closes c WHERE c.team_id = p.team_id) AS last ON true
CROSS JOIN LATERAL generate_series(
  greatest(date_trunc('month', p.starts_at AT TIME ZONE 'UTC'), last.month + interval '1 month'),
  least(p.ends_at, now()) AT TIME ZONE 'UTC', interval '1 month'
) AS m (month)
WHERE p.ends_at IS DISTINCT FROM p.starts_at
  AND (t.deleted_at IS NOT NULL OR (m.month + interval '1 month') AT TIME ZONE 'UTC' <= now())
  AND (p.ends_at IS NULL OR p.ends_at AT TIME ZONE 'UTC' > m.month)
ORDER BY month, p.team_id LIMIT :limit
""")
DUE = (
    select(MonthClose.team_id, MonthClose.month)
    .where(MonthClose.state != FINAL, MonthClose.due_at <= func.now())
    .order_by(MonthClose.month, MonthClose.team_id)
)
REOPENED = (
    select(MonthClose.team_id, MonthClose.month)
    .where(MonthClose.state == DRAFT, MonthClose.counted_at.is_(None))
    .order_by(MonthClose.month, MonthClose.team_id)
)
CLAIM = text("""
INSERT INTO month_closes (team_id, month, due_at)
SELECT t.id, CAST(:month AS date), least((CAST(:month AS date) + interval '1 month') AT TIME ZONE 'UTC', t.deleted_at) + :grace
FROM teams t WHERE t.id = :team_id
ON CONFLICT DO NOTHING RETURNING month
""")
HAS_ENDED = text("""
SELECT t.deleted_at IS NOT NULL OR (CAST(:month AS date) + interval '1 month') AT TIME ZONE 'UTC' <= now()
FROM teams t WHERE t.id = :team_id
""")
RETRY = text("""
UPDATE month_closes SET due_at = least(due_at, now())
WHERE team_id = :team_id AND month = :month AND state = 'mismatch'
""")
TRY_LOCK = text("SELECT pg_try_advisory_xact_lock(hashtextextended('billing:' || :team_id, 0))")
LONGER = text("SET LOCAL statement_timeout = '100s'")
"""A recount reads a whole month of the ledger; less than the time limit of a task."""


@dataclass(frozen=True, slots=True)
class TeamMonth:
    team_id: UUID
    month: date
    """Its first day."""


def ended(session: Session, *, limit: int) -> list[TeamMonth]:
    """Months that have ended and are not drafted yet, the oldest first."""
    return [TeamMonth(*row) for row in session.execute(ENDED, {"limit": limit})]


def reopened(session: Session, *, limit: int) -> list[TeamMonth]:
    """Months whose invoice was voided, and that have no new draft yet."""
    return [TeamMonth(*row) for row in session.execute(REOPENED.limit(limit))]


def due(session: Session, *, limit: int) -> list[TeamMonth]:
    """Closes whose grace is over, the oldest month first."""
    return [TeamMonth(*row) for row in session.execute(DUE.limit(limit))]


def draft(session: Session, of: TeamMonth, *, grace: timedelta) -> bool:
    """Begins the close of a month that has ended, with a draft of its invoice; whether this transaction is the one to do it."""
    parameters = {"team_id": of.team_id, "month": of.month, "grace": grace}
    if session.execute(CLAIM, parameters).scalar() is None:
        return False
    redraft(session, of)
    return True


def redraft(session: Session, of: TeamMonth) -> None:
    """
    Counts the month and writes its draft, or none where nothing is charged; for a close that is not final. A mismatch counts
    as looked into, and is compared anew when it is finalized.
    """
    session.execute(invoices.LOCK, {"team_id": str(of.team_id)})
    session.execute(LONGER)
    close = session.get_one(
        MonthClose, (of.team_id, of.month), with_for_update={"key_share": True}, populate_existing=True
    )
    if close.state == FINAL:
        return
    close.state, close.problem = DRAFT, None
    _write(session, close, compose(session, of.team_id, of.month))


def retry(session: Session, of: TeamMonth) -> None:
    """Has the close tried again as soon as its grace is over, and not only when a mismatch would be."""
    session.execute(RETRY, {"team_id": of.team_id, "month": of.month})


def finalize(session: Session, of: TeamMonth, *, issuer: Issuer) -> MonthClose | None:
    """
    Finalizes the close, and issues the invoice if anything is charged; the close, whose state is `mismatch` where sums that
    have to agree don't. None when there is nothing to do now, or another worker is at it.
    """
    if not session.execute(TRY_LOCK, {"team_id": str(of.team_id)}).scalar():
        return None
    session.execute(LONGER)
    close = session.scalar(
        select(MonthClose)
        .where(MonthClose.team_id == of.team_id, MonthClose.month == of.month)
        .where(MonthClose.state != FINAL, MonthClose.due_at <= func.now())
        .with_for_update(key_share=True)
    )
    if close is None:
        return None
    if not session.execute(HAS_ENDED, {"team_id": of.team_id, "month": of.month}).scalar():
        _reopen(session, close)
        return None
    bill = compose(session, of.team_id, of.month)
    if problem := _problem(session, close, bill):
        close.state, close.problem = MISMATCH, problem
        close.due_at = func.now() + RETRY_MISMATCH_AFTER
        session.flush()
        return close
    invoice = _write(session, close, bill)
    close.state, close.problem = FINAL, None
    _account(session, bill, close)
    if invoice is not None:
        invoices.issue(session, invoice, issuer=issuer)
        record(
            session,
            System(of.team_id),
            InvoiceFinalized(
                invoice_id=invoice.id,
                name=invoices.number_of(invoice),
                period_start=invoice.period_start,
                period_end=invoice.period_end,
                total=invoice.total,
                currency=invoice.currency,
                amount=shown(invoice.total, invoice.currency),
            ),
        )
    return close


def _reopen(session: Session, close: MonthClose) -> None:
    """The team was deleted and came back: the month goes on."""
    invoice_id = close.invoice_id
    session.delete(close)
    session.flush()  # before what it refers to
    session.execute(delete(Invoice).where(Invoice.id == invoice_id, Invoice.state == DRAFT))


def _problem(session: Session, close: MonthClose, bill: Bill) -> dict[str, Any] | None:
    """Why the month can't be finalized; None if ledger, daily sums, breakdowns and draft all say the same."""
    if bill.recount.differences:
        return {"kind": "recount", "differences": list(bill.recount.differences)}
    if bill.charged_before:
        return {"kind": "charged_before", "charges": [list(key) for key in bill.charged_before]}
    if bill.other_currencies:
        return {"kind": "currencies", "months": [str(month) for month in bill.other_currencies]}
    if (
        close.basis != bill.recount.basis
    ):  # usage came late, or a plan changed: the draft was right when it was made
        return None
    drafted = session.scalars(
        select(InvoiceLine)
        .where(InvoiceLine.invoice_id == close.invoice_id, InvoiceLine.kind != "adjustment")
        .order_by(InvoiceLine.position)
    ).all()
    before, now = [_shown(line) for line in drafted], [_shown(line) for line in bill.lines]
    if close.invoice_id is None:
        now = [] if not any(line.amount for line in bill.lines) else now
    return {"kind": "draft", "drafted": before, "counted": now} if before != now else None


def _shown(line: Line | InvoiceLine) -> list[str | None]:
    """What has to be the same of a line that is counted twice."""
    return [
        line.kind,
        line.plan,
        line.metric,
        f"{line.quantity.normalize():f}",
        f"{line.unrounded.normalize():f}",
        str(line.amount),
        str(line.starts_on),
        str(line.ends_on),
    ]


def _write(session: Session, close: MonthClose, bill: Bill) -> Invoice | None:
    """Makes the draft what the bill says; no draft where that charges nothing."""
    close.basis, close.counted_at = dict(bill.recount.basis), bill.recount.counted_at
    invoice = session.get(Invoice, close.invoice_id) if close.invoice_id else None
    if not bill.charges:
        close.invoice_id = None
        session.flush()  # before what it refers to goes
        if invoice is not None:
            session.delete(invoice)
            session.flush()  # its lines go with it
        return None
    if invoice is None:
        invoice = _new_invoice(session, close, bill)
    else:
        session.execute(delete(InvoiceLine).where(InvoiceLine.invoice_id == invoice.id))
        invoice.total, invoice.currency, invoice.counted_at = bill.total, bill.currency, close.counted_at
    session.flush()  # the lines refer to it
    lines = [*bill.lines, *bill.adjustments]
    session.add_all(
        InvoiceLine(
            team_id=close.team_id,
            invoice_id=invoice.id,
            position=position,
            **{name: getattr(line, name) for name in Line.__slots__},
        )
        for position, line in enumerate(lines, start=1)
    )
    close.invoice_id = invoice.id
    session.flush()  # violated constraints speak up here
    return invoice


def _new_invoice(session: Session, close: MonthClose, bill: Bill) -> Invoice:
    latest = session.scalar(
        select(func.max(Invoice.revision)).where(
            Invoice.team_id == close.team_id, Invoice.kind == INVOICE, Invoice.period_start == close.month
        )
    )
    invoice = Invoice(
        team_id=close.team_id,
        kind=INVOICE,
        revision=(latest or 0) + 1,
        period_start=close.month,
        period_end=bill.period_end,
        currency=bill.currency,
        total=bill.total,
        counted_at=close.counted_at,
    )
    session.add(invoice)
    return invoice


def _account(session: Session, bill: Bill, close: MonthClose) -> None:
    """Notes what is charged from now on, month by month, whether it is issued or came to nothing."""
    session.add_all(
        Charge(
            team_id=close.team_id,
            month=month,
            kind=key.kind,
            plan=key.plan,
            metric=key.metric,
            quantity=each.quantity,
            unrounded=each.unrounded,
            amount=each.amount,
            invoice_id=close.invoice_id,
        )
        for month, changes in bill.changes.items()
        for key, each in changes.items()
    )
    rechecked = select(MonthClose).where(
        MonthClose.team_id == close.team_id, MonthClose.month.in_(bill.changes), MonthClose.recheck
    )
    for other in session.scalars(rechecked):
        other.recheck = False
    session.flush()
