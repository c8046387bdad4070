"""Asking the payment provider, and hearing from it (models/operations/payments.py)."""

import time
from functools import cache

import structlog

from models.database import transaction
from models.metrics import PAYMENTS
from models.operations import payments
from models.operations.payments import Notice, Order
from models.settings import settings
from models.tables.payments import CHARGE
from workers.app import app
from workers.payment_providers import Provider, Refused, provider_for

log = structlog.get_logger("workers.payments")

LONGEST_RUN_S = 30.0
"""A run that finds ever more makes way for other work; the next tick goes on."""


@cache
def provider() -> Provider | None:
    return provider_for(settings())


@app.task(name="billing.pay")
def pay() -> None:
    """Carries out the orders that are due."""
    by = provider()
    if by is not None:
        carry_out_due(by)


@app.task(name="billing.hear")
def hear() -> None:
    """Asks about the invoices that the provider has told something of."""
    by = provider()
    if by is not None:
        ask_due(by)


def carry_out_due(by: Provider) -> int:
    """How many orders were carried out."""
    started, count = time.monotonic(), 0
    while time.monotonic() - started < LONGEST_RUN_S:
        with transaction() as session:
            claimed = payments.claim(session)
        if claimed is None:
            break
        if claimed.order is not None:
            count += carry_out(by, claimed.order)
    return count


def carry_out(by: Provider, order: Order) -> bool:
    """Whether it is done. No transaction is open while the provider is asked; whatever goes wrong is noted, and tried again later."""
    try:
        if order.action == CHARGE:
            reference, state = by.charge(order, Notes(order))
        else:
            by.cancel(order)
    except Exception as error:  # noqa: BLE001  one order must not hold up the others
        log.warning(
            "payment order failed", invoice_id=str(order.invoice_id), action=order.action, error=repr(error)
        )
        PAYMENTS.labels("refused" if isinstance(error, Refused) else "failed").inc()
        with transaction() as session:
            payments.failed(session, order, repr(error), for_good=isinstance(error, Refused))
        return False
    with transaction() as session:
        if order.action == CHARGE:
            payments.settle(session, order.provider, reference, state)
        payments.done(session, order)
    PAYMENTS.labels("done").inc()
    return True


class Notes:
    """Keeps the provider's ids, each in a transaction of its own: what was learnt stays so, whatever becomes of the next call."""

    def __init__(self, order: Order) -> None:
        self._order = order

    def customer(self, reference: str) -> None:
        with transaction() as session:
            payments.note_customer(session, self._order, reference)

    def invoice(self, reference: str) -> None:
        with transaction() as session:
            payments.note_reference(session, self._order, reference)


def ask_due(by: Provider) -> int:
    """How many notices were handled."""
    started, count = time.monotonic(), 0
    while time.monotonic() - started < LONGEST_RUN_S:
        with transaction() as session:
            notice = payments.claim_notice(session)
        if notice is None:
            break
        count += ask(by, notice)
    return count


def ask(by: Provider, notice: Notice) -> bool:
    """The object is asked for anew: events come in any order, and what it is now is all that counts."""
    try:
        state = by.state_of(notice.reference)
    except Exception as error:  # noqa: BLE001  one notice must not hold up the others
        log.warning("payment notice not handled", notice=notice.id, error=repr(error))
        return False
    with transaction() as session:
        payments.settle(session, by.name, notice.reference, state)
        payments.handled(session, notice)
    return True
