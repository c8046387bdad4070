"""Issuing invoices under gapless numbers, and voiding them by credit notes. What they say comes from models/queries/bills.py."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session
from uuid_utils.compat import uuid7

from models.access.actor import System
from models.access.entry import Access, reenter
from models.access.permissions import Permission
from models.access.power import OWNER
from models.errors import Conflict, NotFound, PermissionDenied
from models.events.catalogue import InvoiceVoided
from models.events.record import record
from models.settings import NO_PROVIDER, Settings
from models.tables import (
    BillingDetails,
    Charge,
    Invoice,
    InvoiceLine,
    MonthClose,
    Payment,
    PaymentOrder,
    Team,
)
from models.tables.billing import CREDIT_NOTE, DRAFT, FINAL, INVOICE
from models.tables.payments import CANCEL, CHARGE, OPEN, PAID, VOIDED

# The row is the lock: whoever takes the next number waits for the last one to be committed, or given back by a rollback.
NEXT_NUMBER = text("""
INSERT INTO invoice_numbers (year, last) VALUES (extract(year FROM clock_timestamp() AT TIME ZONE 'UTC'), 1)
ON CONFLICT (year) DO UPDATE SET last = invoice_numbers.last + 1
RETURNING year, last, clock_timestamp() AS given_at
""")
REVERSE_CHARGES = text("""
INSERT INTO charges (team_id, month, kind, plan, metric, quantity, unrounded, amount, invoice_id)
SELECT team_id, month, kind, plan, metric, -quantity, -unrounded, -amount, :note FROM charges WHERE invoice_id = :invoice
""")
ARCHIVE = text("""
INSERT INTO archived_invoices (number, purged_team_id, team_name, finalized_at, document)
SELECT i.number, i.team_id, t.name, i.finalized_at,
       to_jsonb(i) || jsonb_build_object(
         'lines', (SELECT jsonb_agg(to_jsonb(l) ORDER BY l.position) FROM invoice_lines l WHERE l.invoice_id = i.id),
         'payment', (SELECT to_jsonb(p) FROM payments p WHERE p.invoice_id = i.id))
FROM invoices i JOIN teams t ON t.id = i.team_id WHERE i.team_id = :team_id AND i.state = 'final'
""")
LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended('billing:' || :team_id, 0))")
"""One close or void of a team at a time; those that try do not wait (closing.finalize)."""


@dataclass(frozen=True, slots=True)
class Issuer:
    """Who issues invoices, and how they are paid."""

    seller: Mapping[str, str]
    """Name, address, tax_id and the note on tax, as they stand on the invoice from then on."""
    provider: str
    """The payment provider that is asked to charge; `null` for none."""
    grace: timedelta
    """How long a month stays open for late usage once it has ended."""


def issuer_of(configuration: Settings) -> Issuer:
    """Who issues here, as the settings say."""
    return Issuer(
        seller={
            "name": configuration.seller_name,
            "address": configuration.seller_address,
            "tax_id": configuration.seller_tax_id,
            "tax_note": configuration.invoice_tax_note,
        },
        provider=configuration.payment_provider,
        grace=timedelta(hours=configuration.billing_grace_hours),
    )


def issue(session: Session, invoice: Invoice, *, issuer: Issuer) -> None:
    """
    Finalizes a draft whose lines are written: it gets the next number, and never changes again. What is to be paid is handed
    to the payment provider's outbox. The last thing that a transaction does, as all others wait for its number.
    """
    invoice.seller = dict(issuer.seller)
    invoice.buyer = buyer(session, invoice.team_id)
    if invoice.kind == INVOICE:
        session.add(
            Payment(
                team_id=invoice.team_id,
                invoice_id=invoice.id,
                provider=issuer.provider,
                state=OPEN if invoice.total else PAID,
            )
        )
        if invoice.total and issuer.provider != NO_PROVIDER:
            session.add(PaymentOrder(team_id=invoice.team_id, invoice_id=invoice.id, action=CHARGE))
    session.flush()  # before the number, which others wait for
    year, last, given_at = session.execute(NEXT_NUMBER).one()
    invoice.number = f"{year}-{last:06d}"
    invoice.state, invoice.finalized_at = FINAL, given_at
    session.flush()  # violated constraints speak up here


def buyer(session: Session, team_id: UUID) -> dict[str, Any]:
    """Who an invoice of now is made out to."""
    details = session.get(BillingDetails, team_id)
    if details is None:
        return {"name": session.get_one(Team, team_id).name, "address": "", "tax_id": None, "email": None}
    return {name: getattr(details, name) for name in ("name", "address", "tax_id", "email")}


def void(session: Session, access: Access, invoice_id: UUID, *, reason: str, issuer: Issuer) -> Invoice:
    """
    The credit note by which the team's owner voids an invoice. Raises NotFound, PermissionDenied for anyone else, and Conflict
    for what can't be voided; where a payment provider charges, that is all of them: whoever owes it does not call it off.
    """
    access = reenter(session, access, Permission.billing_update)
    invoice = session.scalar(
        select(Invoice).where(Invoice.id == invoice_id, Invoice.team_id == access.team_id)
    )
    if invoice is None:
        raise NotFound("invoice")
    if not access.is_owner:
        raise PermissionDenied(OWNER, "Only the team's owner may do this.")
    if issuer.provider != NO_PROVIDER:
        raise Conflict("Invoices are charged by a payment provider here; ask the operator to void this one.")
    return credit(session, access, invoice, reason=reason, issuer=issuer)


def credit(
    session: Session, actor: Access | System, invoice: Invoice, *, reason: str, issuer: Issuer
) -> Invoice:
    """
    Voids a final invoice by a credit note of its own number. Its months were charged nothing then: its own is open again, to be
    invoiced anew under the next revision, and those that it adjusted are looked at by the next close.
    """
    session.execute(LOCK, {"team_id": str(invoice.team_id)})
    if invoice.kind != INVOICE or invoice.state != FINAL:
        raise Conflict("Only a final invoice can be voided; a draft changes until then.")
    if session.scalar(select(Invoice.id).where(Invoice.credits == invoice.id)) is not None:
        raise Conflict("It is voided already.")
    _cancel_payment(session, invoice)
    note = Invoice(
        id=uuid7(),
        team_id=invoice.team_id,
        kind=CREDIT_NOTE,
        credits=invoice.id,
        revision=invoice.revision,
        period_start=invoice.period_start,
        period_end=invoice.period_end,
        currency=invoice.currency,
        total=-invoice.total,
        counted_at=invoice.counted_at,
        reason=reason,
    )
    session.add(note)
    session.flush()  # its lines refer to it
    _reverse(session, invoice, note)
    _open_again(session, invoice, grace=issuer.grace)
    issue(session, note, issuer=issuer)
    record(
        session,
        actor,
        InvoiceVoided(
            invoice_id=invoice.id,
            name=number_of(invoice),
            credit_note_id=note.id,
            credit_note=number_of(note),
            reason=reason,
        ),
    )
    return note


def number_of(invoice: Invoice) -> str:
    """The number of an invoice that is final."""
    if invoice.number is None:
        raise ValueError("a draft has no number")
    return invoice.number


def _cancel_payment(session: Session, invoice: Invoice) -> None:
    payment = session.get_one(Payment, invoice.id, with_for_update=True, populate_existing=True)
    if payment.provider == NO_PROVIDER:
        payment.state = VOIDED
        return
    if payment.state == PAID and invoice.total > 0:
        raise Conflict("It is paid; refund it at the payment provider first.")
    if payment.state != PAID:
        payment.state = VOIDED
        session.add(PaymentOrder(team_id=invoice.team_id, invoice_id=invoice.id, action=CANCEL))


def _reverse(session: Session, invoice: Invoice, note: Invoice) -> None:
    """The credit note's lines, and all that the invoice charged, taken back."""
    lines = session.scalars(
        select(InvoiceLine).where(InvoiceLine.invoice_id == invoice.id).order_by(InvoiceLine.position)
    )
    session.add_all(
        InvoiceLine(
            team_id=line.team_id,
            invoice_id=note.id,
            position=line.position,
            kind="credit",
            description=f"Credit: {line.description}"[:500],
            plan=line.plan,
            metric=line.metric,
            quantity=-line.quantity,
            unit=line.unit,
            starts_on=line.starts_on,
            ends_on=line.ends_on,
            unrounded=-line.unrounded,
            amount=-line.amount,
            details={"currency": invoice.currency, "credits": invoice.number},
        )
        for line in lines
    )
    session.execute(REVERSE_CHARGES, {"note": note.id, "invoice": invoice.id})


def _open_again(session: Session, invoice: Invoice, *, grace: timedelta) -> None:
    """The months that the invoice charged: its own gets a new close, and the others are looked at by the next one."""
    closes = session.scalars(
        select(MonthClose)
        .where(MonthClose.team_id == invoice.team_id)
        .where(MonthClose.month.in_(select(Charge.month).where(Charge.invoice_id == invoice.id)))
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )
    for close in closes:
        if close.month != invoice.period_start:
            close.recheck = True
            continue
        close.state, close.invoice_id, close.basis, close.counted_at = DRAFT, None, None, None
        close.due_at = func.now() + grace
    session.flush()


def archive(session: Session, team_id: UUID) -> None:
    """Keeps what was invoiced of a team that is about to be purged: its final invoices and credit notes, whole."""
    session.execute(ARCHIVE, {"team_id": team_id})
