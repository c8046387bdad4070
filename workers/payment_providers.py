"""
How an invoice is charged: by nobody, or by Stripe.

Stripe promises an Idempotency-Key for a day, and an order may be repeated later than that: so what a key made is looked up by
our mark on it (its metadata) before it is made again. https://docs.stripe.com/api/idempotent_requests
"""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import stripe

from models.operations.payments import Order
from models.settings import STRIPE, Settings
from models.tables.payments import OPEN, PAID, PAYMENT_FAILED, UNCOLLECTIBLE

T = TypeVar("T")

TIMEOUT_S = 10.0
"""For each call; an invoice of twenty lines has two dozen, well within a task's time limit when Stripe is well."""
DAYS_UNTIL_DUE = 14
"""For whoever has no payment method at Stripe, and pays by the page that it mails."""
DRAFTED, DELETED = "draft", "deleted"


class Refused(Exception):
    """The provider will never do this as it is; asking again is of no use."""


class Provider(Protocol):
    """
    Safe to repeat, whole or from wherever it stopped. `noted` is told the provider's ids as soon as they are known, and returns
    once they are kept.
    """

    name: str

    def charge(self, order: Order, noted: "Noted") -> tuple[str, str]:
        """Charges the invoice; the provider's id of it, and the state of the payment. Raises Refused, or whatever was in the way."""

    def cancel(self, order: Order) -> None:
        """Calls the invoice off, if it was ever made; raises as `charge` does."""

    def state_of(self, reference: str) -> str:
        """The state of the payment as it is now."""


class Noted(Protocol):
    def customer(self, reference: str) -> None: ...

    def invoice(self, reference: str) -> None: ...


class StripeProvider:
    """Stripe's invoices: one of theirs for each of ours, with its lines as items."""

    name = STRIPE

    def __init__(self, api_key: str, base: str) -> None:
        self._client = stripe.StripeClient(
            api_key,
            base_addresses={"api": base},
            max_network_retries=0,  # the order is tried again; a worker does not wait for it
            http_client=stripe.RequestsClient(timeout=TIMEOUT_S),
        ).v1

    def charge(self, order: Order, noted: Noted) -> tuple[str, str]:
        return _refusing(lambda: self._charge(order, noted))

    def cancel(self, order: Order) -> None:
        _refusing(lambda: self._cancel(order))

    def state_of(self, reference: str) -> str:
        return _state(self._client.invoices.retrieve(reference))

    def _charge(self, order: Order, noted: Noted) -> tuple[str, str]:
        customer = order.customer
        if customer is None:
            customer = self._make_customer(order)
            noted.customer(customer)
        # Not with the customer's making, whose parameters must be the same whenever it is repeated.
        who = self._client.customers.update(customer, {"name": order.name, "email": order.email or ""})
        invoice = self._found(order, customer) or self._make_invoice(order, customer)
        noted.invoice(invoice.id)
        if invoice.status == DRAFTED:
            self._add_items(order, customer, invoice.id)
            if who.invoice_settings and who.invoice_settings.default_payment_method:
                self._client.invoices.update(invoice.id, {"collection_method": "charge_automatically"})
            invoice = self._client.invoices.finalize_invoice(
                invoice.id, {"auto_advance": True}, _keyed("finalize", order.invoice_id)
            )
        return invoice.id, _state(invoice)

    def _cancel(self, order: Order) -> None:
        if order.customer is None:
            return  # it was never asked for anything
        invoice = self._found(order, order.customer)
        if invoice is None:
            return
        if invoice.status == DRAFTED:
            self._client.invoices.delete(invoice.id)
        elif invoice.status in {"open", "uncollectible"}:
            self._client.invoices.void_invoice(invoice.id, {}, _keyed("void", order.invoice_id))
        elif invoice.status == "paid":
            raise Refused("It was paid before it could be called off; refund it at Stripe.")

    def _make_customer(self, order: Order) -> str:
        made = self._client.customers.create(
            {"metadata": {"team_id": str(order.team_id)}}, _keyed("customer", order.team_id)
        )
        return made.id

    def _found(self, order: Order, customer: str) -> stripe.Invoice | None:
        """What an earlier try made of the order, whether or not its answer arrived."""
        if order.reference is not None:
            return self._client.invoices.retrieve(order.reference)
        if order.attempt == 1 and order.action == "charge":
            return None
        listed = self._client.invoices.list({"customer": customer, "limit": 100}).auto_paging_iter()
        return next((each for each in listed if _mark(each, "invoice_id") == str(order.invoice_id)), None)

    def _make_invoice(self, order: Order, customer: str) -> stripe.Invoice:
        return self._client.invoices.create(
            {
                "customer": customer,
                "currency": order.currency.lower(),
                "auto_advance": False,
                "collection_method": "send_invoice",
                "days_until_due": DAYS_UNTIL_DUE,
                "pending_invoice_items_behavior": "exclude",
                "description": f"Invoice {order.number}",
                "metadata": {"invoice_id": str(order.invoice_id), "number": order.number},
            },
            _keyed("invoice", order.invoice_id),
        )

    def _add_items(self, order: Order, customer: str, invoice: str) -> None:
        there: set[str | None] = set()
        if order.attempt > 1:
            listed = self._client.invoice_items.list({"invoice": invoice, "limit": 100}).auto_paging_iter()
            there = {_mark(each, "line_id") for each in listed}
        for item in order.items:
            if str(item.line_id) not in there:
                self._client.invoice_items.create(
                    {
                        "customer": customer,
                        "invoice": invoice,
                        "amount": item.amount,
                        "currency": order.currency.lower(),
                        "description": item.description,
                        "metadata": {"line_id": str(item.line_id)},
                    },
                    _keyed("item", item.line_id),
                )


def provider_for(configuration: Settings) -> Provider | None:
    """The provider that charges here; None where nobody does."""
    if configuration.payment_provider != STRIPE:
        return None
    return StripeProvider(configuration.stripe_api_key, configuration.stripe_api_base)


def _keyed(what: str, of: object) -> Any:
    """Derived, so that whoever repeats it says the same."""
    return {"idempotency_key": f"agenthq:{what}:{of}"}


def _mark(made: stripe.Invoice | stripe.InvoiceItem, name: str) -> str | None:
    """Ours, on what we made; None on what somebody else did."""
    mark: str | None = made.metadata.to_dict().get(name) if made.metadata else None
    return mark


def _state(invoice: stripe.Invoice) -> str:
    """Theirs in our words; what was voided at Stripe by hand is nothing that we expect to be paid."""
    if invoice.status == "paid":
        return PAID
    if invoice.status in {"uncollectible", "void"}:
        return UNCOLLECTIBLE
    return PAYMENT_FAILED if invoice.status == "open" and invoice.attempted else OPEN


def _refusing(call: Callable[[], T]) -> T:
    """A request that Stripe finds wrong in itself will be wrong tomorrow; everything else may pass."""
    try:
        return call()
    except stripe.InvalidRequestError as error:
        raise Refused(str(error.user_message or error)) from error
