"""
Payment as two queues. Out: an order says which invoice the provider is to charge, or to call off. In: a notice says which of
its invoices to ask the provider about.

Either is three steps, for nothing leaves the process inside a transaction: claim and commit, ask the provider, note what it
said. A crash between them repeats the asking, under keys and marks by which the provider knows it (workers/payment_providers.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import delete, exists, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, aliased

from models.access.actor import System
from models.errors import Conflict
from models.events.catalogue import InvoicePaid, InvoicePaymentFailed
from models.events.record import record
from models.operations.invoices import number_of
from models.settings import NO_PROVIDER
from models.tables import Invoice, InvoiceLine, Payment, PaymentCustomer, PaymentNotice, PaymentOrder
from models.tables.payments import CHARGE, PAID, PAYMENT_FAILED, UNCOLLECTIBLE, VOIDED

FIRST_DELAY, LONGEST_DELAY = timedelta(minutes=5), timedelta(hours=6)
"""The first is longer than a try can take (a task's time limit), so that nobody claims an order that is just being carried out."""
MAXIMUM_ATTEMPTS = 24
"""With the delays between them over four days. Stripe repeats its answer to a key, a 500 too, for a day or more."""
LONGEST_ERROR = 500


@dataclass(frozen=True, slots=True)
class Item:
    line_id: UUID
    description: str
    amount: int
    """Minor units."""


@dataclass(frozen=True, slots=True)
class Order:
    """What the provider is to do now."""

    id: UUID
    action: str
    provider: str
    attempt: int
    """The first is 1; from the second on, earlier ones may have done part of it."""
    team_id: UUID
    invoice_id: UUID
    number: str
    currency: str
    items: Sequence[Item]
    name: str
    """The buyer's."""
    email: str | None
    customer: str | None
    """The provider's, if it is known."""
    reference: str | None
    """The provider's invoice, if it is known."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """An order that was due; None when there is nothing (more) to ask."""

    order: Order | None


def claim(session: Session) -> Claimed | None:
    """
    The order that is due the longest, for the caller to commit and then carry out; None when none is due. It is due again later:
    `done` ends it, and whoever dies before leaves it to others. What is called off waits until it is charged no more.
    """
    charging = aliased(PaymentOrder)
    row = session.scalar(
        select(PaymentOrder)
        .where(PaymentOrder.failed_at.is_(None), PaymentOrder.due_at <= func.now())
        .where(
            (PaymentOrder.action == CHARGE)
            | ~exists().where(
                charging.invoice_id == PaymentOrder.invoice_id,
                charging.action == CHARGE,
                charging.failed_at.is_(None),
            )
        )
        .order_by(PaymentOrder.due_at, PaymentOrder.id)
        .limit(1)
        .with_for_update(skip_locked=True, of=PaymentOrder)
    )
    if row is None:
        return None
    payment = session.get_one(Payment, row.invoice_id)
    if row.action == CHARGE and payment.state == VOIDED:
        session.delete(row)
        return Claimed(None)
    if row.attempts >= MAXIMUM_ATTEMPTS:  # whoever made the last try died of it
        row.failed_at = func.now()
        return Claimed(None)
    row.attempts += 1
    row.due_at = func.now() + delay_after(row.attempts)
    return Claimed(_order(session, row, payment))


def delay_after(attempts: int) -> timedelta:
    """How long after the given number of tries the next one comes."""
    return min(LONGEST_DELAY, FIRST_DELAY * (1 << min(attempts - 1, 10)))


def note_customer(session: Session, order: Order, reference: str) -> None:
    """Who the team is to the provider, for ever."""
    values = {"team_id": order.team_id, "provider": order.provider, "reference": reference}
    session.execute(insert(PaymentCustomer).values(values).on_conflict_do_nothing())


def note_reference(session: Session, order: Order, reference: str) -> None:
    """Which of the provider's invoices is ours."""
    session.get_one(Payment, order.invoice_id, with_for_update=True).reference = reference


def done(session: Session, order: Order) -> None:
    session.execute(delete(PaymentOrder).where(PaymentOrder.id == order.id))


def failed(session: Session, order: Order, error: str, *, for_good: bool = False) -> None:
    """Notes why a try failed. It is tried again (`claim` has put it off), unless for good or for the last time."""
    row = session.get(PaymentOrder, order.id, with_for_update=True)
    if row is None:
        return
    row.error = error[:LONGEST_ERROR].replace("\x00", "")
    if for_good or row.attempts >= MAXIMUM_ATTEMPTS:
        row.failed_at = func.now()


def receive(session: Session, notice_id: str, *, type_: str, reference: str | None) -> None:
    """Takes in what the provider tells; what it told before, or what is about no invoice, asks for nothing."""
    session.execute(
        insert(PaymentNotice)
        .values(id=notice_id, type=type_, reference=reference, handled_at=None if reference else func.now())
        .on_conflict_do_nothing()
    )


@dataclass(frozen=True, slots=True)
class Notice:
    id: str
    reference: str


def claim_notice(session: Session) -> Notice | None:
    """The notice that waits the longest, as `claim` does; None when none is due."""
    row = session.scalar(
        select(PaymentNotice)
        .where(PaymentNotice.handled_at.is_(None), PaymentNotice.due_at <= func.now())
        .order_by(PaymentNotice.due_at, PaymentNotice.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    if row is None or row.reference is None:
        return None
    row.attempts += 1
    row.due_at = func.now() + delay_after(row.attempts)
    return Notice(row.id, row.reference)


def handled(session: Session, notice: Notice) -> None:
    row = session.get(PaymentNotice, notice.id, with_for_update=True)
    if row is not None:
        row.handled_at = func.now()


def settle(session: Session, provider: str, reference: str, state: str) -> None:
    """
    What the provider says of its invoice, noted with an event if it is news. Answers can overtake one another: paid stays paid,
    and what was voided stays so.
    """
    payment = session.scalar(
        select(Payment)
        .where(Payment.provider == provider, Payment.reference == reference)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    if payment is None or payment.state in {PAID, VOIDED, state}:
        return
    if state not in {PAID, PAYMENT_FAILED, UNCOLLECTIBLE}:
        return  # open again, it is no news
    _settle(session, payment, state)


def mark_paid(session: Session, invoice: Invoice) -> None:
    """An operator's word that an invoice was paid without a provider; raises Conflict for any other."""
    payment = session.get(Payment, invoice.id, with_for_update=True, populate_existing=True)
    if payment is None or payment.provider != NO_PROVIDER:
        raise Conflict("Only a final invoice that no payment provider charges is marked by hand.")
    if payment.state in {PAID, VOIDED}:
        raise Conflict(f"It is {payment.state} already.")
    _settle(session, payment, PAID)


def _settle(session: Session, payment: Payment, state: str) -> None:
    payment.state = state
    session.flush()  # before the event
    invoice = session.get_one(Invoice, payment.invoice_id)
    number = number_of(invoice)
    event = (
        InvoicePaid(invoice_id=invoice.id, name=number)
        if state == PAID
        else InvoicePaymentFailed(invoice_id=invoice.id, name=number, state=state)
    )
    record(session, System(payment.team_id), event)


def _order(session: Session, row: PaymentOrder, payment: Payment) -> Order:
    invoice = session.get_one(Invoice, row.invoice_id)
    lines = session.scalars(
        select(InvoiceLine).where(InvoiceLine.invoice_id == invoice.id).order_by(InvoiceLine.position)
    )
    customer = session.get(PaymentCustomer, (row.team_id, payment.provider))
    buyer = invoice.buyer or {}
    return Order(
        id=row.id,
        action=row.action,
        provider=payment.provider,
        attempt=row.attempts,
        team_id=row.team_id,
        invoice_id=invoice.id,
        number=number_of(invoice),
        currency=invoice.currency,
        items=[Item(line.id, line.description, line.amount) for line in lines if line.amount],
        name=buyer["name"],
        email=buyer["email"],
        customer=customer.reference if customer else None,
        reference=payment.reference,
    )
