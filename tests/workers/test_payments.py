"""Payment by Stripe, against a stand-in of its API: each invoice charged once, whatever dies or goes unheard when."""

import multiprocessing
import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask

from models.access.actor import System
from models.database import transaction
from models.errors import Conflict
from models.operations import invoices, payments
from models.operations.invoices import Issuer
from models.operations.payments import MAXIMUM_ATTEMPTS, Order
from models.settings import settings
from models.tables import Invoice
from tests import billing
from tests.factories import TeamSetting, execute, fetch, make_team
from tests.models.concurrency import raised, together
from tests.stripe_stand_in import KEY, Stripe, stand_in
from workers import payments as jobs
from workers.payment_providers import StripeProvider, provider_for

ISSUER = replace(billing.ISSUER, provider="stripe")


@pytest.fixture
def stripe() -> Iterator[Stripe]:
    execute("DELETE FROM payment_orders")  # of other tests, whose stand-ins are gone
    execute("DELETE FROM payment_notices")
    with stand_in() as made:
        yield made


@pytest.fixture
def provider(stripe: Stripe) -> StripeProvider:
    return StripeProvider(KEY, stripe.url)


@pytest.fixture
def setting(app: Flask) -> TeamSetting:
    return make_team(app, roles=())


def owed(setting: TeamSetting, *, months: int = 1) -> list[Any]:
    """The team's invoices of so many months on the pro plan, with usage to pay for, just finalized."""
    ends = f"2025-{1 + months:02d}-01"
    billing.on_plans(setting, ("pro", "2025-01-01", ends))
    billing.used(setting, "llm_tokens_used", 60_000_000, "2025-01-07")
    billing.used(setting, "storage_bytes", 60 * 10**9, "2025-01-01")
    billing.close(setting, issuer=ISSUER)
    return billing.invoices(setting)


def due_again() -> None:
    execute("UPDATE payment_orders SET due_at = now() WHERE failed_at IS NULL")
    execute("UPDATE payment_notices SET due_at = now() WHERE handled_at IS NULL")


def state_of(invoice: Any) -> str:
    ((state,),) = fetch("SELECT state FROM payments WHERE invoice_id = :id", id=invoice.id)
    return str(state)


def orders() -> list[Any]:
    return fetch("SELECT * FROM payment_orders")


def assert_charged_once(stripe: Stripe, invoice: Any, *, status: str = "open") -> str:
    """Stripe's id of the one invoice that it has of ours, over all of it."""
    (theirs,) = [
        each for each in stripe.invoices.values() if each["metadata"]["invoice_id"] == str(invoice.id)
    ]
    assert (theirs["status"], stripe.amount(theirs["id"])) == (status, invoice.total)
    assert theirs["currency"] == "usd"
    assert theirs["metadata"]["number"] == invoice.number
    found = fetch("SELECT reference FROM payments WHERE invoice_id = :id", id=invoice.id)
    assert [row.reference for row in found] == [theirs["id"]]
    return str(theirs["id"])


def test_an_invoice_is_charged_with_its_lines(
    stripe: Stripe, provider: StripeProvider, setting: TeamSetting
) -> None:
    (invoice,) = owed(setting)
    assert [(order.action, order.attempts) for order in orders()] == [("charge", 0)]
    assert jobs.carry_out_due(provider) == 1
    theirs = assert_charged_once(stripe, invoice)
    lines = {(line.description, line.amount) for line in billing.lines(invoice.id) if line.amount}
    assert {(each["description"], each["amount"]) for each in stripe.items.values()} == lines
    assert len(lines) == 3
    (customer,) = stripe.customers.values()
    assert (customer["metadata"], customer["name"]) == ({"team_id": str(setting.id)}, "Design")
    assert (orders(), state_of(invoice)) == ([], "open")
    assert jobs.carry_out_due(provider) == 0
    assert stripe.invoices[theirs]["collection_method"] == "send_invoice"


def test_a_team_is_one_customer(stripe: Stripe, provider: StripeProvider, setting: TeamSetting) -> None:
    both = owed(setting, months=2)
    assert jobs.carry_out_due(provider) == 2
    assert len(stripe.customers) == 1
    for invoice in both:
        assert_charged_once(stripe, invoice)


def test_one_with_a_payment_method_is_charged_by_it(
    stripe: Stripe, provider: StripeProvider, setting: TeamSetting
) -> None:
    first, second = owed(setting, months=2)
    execute(
        "UPDATE payment_orders SET due_at = now() + interval '1 day' WHERE invoice_id = :id", id=second.id
    )
    jobs.carry_out_due(provider)
    (customer,) = stripe.customers.values()
    customer["invoice_settings"] = {"default_payment_method": "pm_1"}
    due_again()
    jobs.carry_out_due(provider)
    methods = {each["metadata"]["invoice_id"]: each["collection_method"] for each in stripe.invoices.values()}
    assert methods == {str(first.id): "send_invoice", str(second.id): "charge_automatically"}


CALLS = 7
"""A customer made and named, an invoice made, three items, and the invoice finalized."""


@pytest.mark.parametrize("later", [False, True], ids=["at once", "days later"])
@pytest.mark.parametrize("fault", ["lost", "unheard"])
@pytest.mark.parametrize("at", range(1, CALLS + 1))
def test_a_call_that_fails_is_made_good(
    stripe: Stripe, provider: StripeProvider, setting: TeamSetting, at: int, fault: str, later: bool
) -> None:
    """`unheard`: Stripe did it, and its answer was lost. `later`: Stripe has forgotten the key by then."""
    (invoice,) = owed(setting)
    stripe.fault = lambda number, _: fault if number == at else None
    assert jobs.carry_out_due(provider) == 0
    assert len(stripe.calls) == at
    ((attempts, error, failed_at),) = fetch("SELECT attempts, error, failed_at FROM payment_orders")
    assert (attempts, bool(error), failed_at) == (1, True, None)
    assert jobs.carry_out_due(provider) == 0  # not yet
    if later:
        stripe.forget_keys()
    due_again()
    assert jobs.carry_out_due(provider) == 1
    assert_charged_once(stripe, invoice)
    assert orders() == []
    # A customer that was made unheard is made again, if its key is forgotten: nothing is charged to it.
    assert len(stripe.customers) == (2 if (at, fault, later) == (1, "unheard", True) else 1)


def test_a_500_is_repeated_by_stripe_until_it_forgets_the_key(
    stripe: Stripe, provider: StripeProvider, setting: TeamSetting
) -> None:
    (invoice,) = owed(setting)
    stripe.fault = lambda _, call: "500" if call == "POST /v1/invoices" and len(stripe.calls) < 5 else None
    jobs.carry_out_due(provider)
    due_again()
    jobs.carry_out_due(provider)
    assert_charged_once(stripe, invoice)  # the 500 came after it was made, and our mark on it is found


class FellOver(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("step", ["note_customer", "note_reference", "settle", "done"])
def test_a_worker_that_dies_between_two_steps_charges_once(
    stripe: Stripe,
    provider: StripeProvider,
    setting: TeamSetting,
    step: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (invoice,) = owed(setting)

    def die(*_: object) -> None:
        raise FellOver

    with monkeypatch.context() as patched:
        patched.setattr(payments, step, die)
        with pytest.raises(FellOver):
            jobs.carry_out_due(provider)
    assert len(orders()) == 1
    stripe.forget_keys()
    due_again()
    assert jobs.carry_out_due(provider) == 1
    assert_charged_once(stripe, invoice)


def carry_out(url: str) -> None:
    """A worker's process."""
    jobs.carry_out_due(StripeProvider(KEY, url))


@pytest.mark.timeout(300)
def test_kill_9_at_any_moment_charges_once(stripe: Stripe, setting: TeamSetting) -> None:
    """Processes, each killed after a random time and followed by another at once, until the last one may finish."""
    both = owed(setting, months=2)
    stripe.delay_s = 0.03
    chance = random.Random(7)
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload([__name__])
    killed = 0
    for patience in [*(chance.uniform(0.05, 0.6) for _ in range(15)), 60]:
        due_again()
        worker = processes.Process(target=carry_out, args=(stripe.url,))
        worker.start()
        worker.join(patience)
        if worker.is_alive():
            worker.kill()
            worker.join(30)
            killed += 1
        worker.close()
    assert orders() == []
    assert killed >= 5
    assert len(stripe.customers) == 1
    for invoice in both:
        assert_charged_once(stripe, invoice)


def test_two_workers_at_once_charge_once(
    stripe: Stripe, provider: StripeProvider, setting: TeamSetting
) -> None:
    both = owed(setting, months=2)
    stripe.delay_s = 0.02
    assert raised(together(*[lambda: jobs.carry_out_due(provider)] * 4)) == []
    due_again()
    jobs.carry_out_due(provider)
    for invoice in both:
        assert_charged_once(stripe, invoice)


def test_what_stripe_refuses_is_left_to_the_operator_and_holds_up_no_other(
    stripe: Stripe, provider: StripeProvider, app: Flask, setting: TeamSetting
) -> None:
    (refused,) = owed(setting)
    (other,) = owed(make_team(app, roles=()))
    execute(
        "INSERT INTO payment_customers (team_id, provider, reference) VALUES (:id, 'stripe', 'cus_gone')",
        id=setting.id,
    )
    assert jobs.carry_out_due(provider) == 1
    assert_charged_once(stripe, other)
    (left,) = orders()
    assert (left.invoice_id, left.failed_at is not None) == (refused.id, True)
    assert "No such object" in left.error
    due_again()
    assert jobs.carry_out_due(provider) == 0


def test_a_wrong_key_is_tried_again(stripe: Stripe, setting: TeamSetting) -> None:
    (invoice,) = owed(setting)
    assert jobs.carry_out_due(StripeProvider("sk_wrong", stripe.url)) == 0
    due_again()
    assert jobs.carry_out_due(StripeProvider(KEY, stripe.url)) == 1
    assert_charged_once(stripe, invoice)


@pytest.mark.parametrize(("attempts", "given_up"), [(MAXIMUM_ATTEMPTS - 1, False), (MAXIMUM_ATTEMPTS, True)])
def test_an_order_is_given_up_after_the_last_attempt(
    stripe: Stripe, provider: StripeProvider, setting: TeamSetting, attempts: int, given_up: bool
) -> None:
    owed(setting)
    execute("UPDATE payment_orders SET attempts = :attempts", attempts=attempts)
    assert jobs.carry_out_due(provider) == (0 if given_up else 1)
    assert [order.failed_at is not None for order in orders()] == ([True] if given_up else [])


def test_a_failed_order_waits_longer_each_time() -> None:
    waits = [payments.delay_after(attempts) for attempts in range(1, MAXIMUM_ATTEMPTS + 1)]
    assert waits[:3] == [timedelta(minutes=5), timedelta(minutes=10), timedelta(minutes=20)]
    assert sum(waits, timedelta()) > timedelta(days=3)


def void(setting: TeamSetting, invoice: Any) -> None:
    with transaction() as session:
        row = session.get_one(Invoice, invoice.id)
        invoices.credit(session, System(setting.id), row, reason="wrong", issuer=ISSUER)


def test_one_voided_before_it_is_charged_is_never_charged(
    stripe: Stripe, provider: StripeProvider, setting: TeamSetting
) -> None:
    (invoice,) = owed(setting)
    void(setting, invoice)
    jobs.carry_out_due(provider)
    assert (stripe.invoices, orders(), state_of(invoice)) == ({}, [], "void")


def test_one_voided_after_it_is_charged_is_called_off(
    stripe: Stripe, provider: StripeProvider, setting: TeamSetting
) -> None:
    (invoice,) = owed(setting)
    jobs.carry_out_due(provider)
    void(setting, invoice)
    for fault in ("lost", "unheard"):
        stripe.fault = lambda _, call, fault=fault: fault if call.endswith("/void") else None  # type: ignore[misc]
        jobs.carry_out_due(provider)
        due_again()
    stripe.fault = lambda *_: None
    jobs.carry_out_due(provider)
    assert_charged_once(stripe, invoice, status="void")
    assert (orders(), state_of(invoice)) == ([], "void")


def test_one_voided_while_its_charge_is_stuck_is_called_off_after(
    stripe: Stripe, provider: StripeProvider, setting: TeamSetting
) -> None:
    (invoice,) = owed(setting)
    stripe.fault = lambda _, call: "lost" if call == "POST /v1/invoiceitems" else None
    jobs.carry_out_due(provider)
    assert [each["status"] for each in stripe.invoices.values()] == ["draft"]
    void(setting, invoice)
    jobs.carry_out_due(provider)
    assert [order.action for order in orders()] == ["charge", "cancel"]  # the charge may still be at it
    due_again()
    jobs.carry_out_due(provider)
    assert (stripe.invoices, orders()) == ({}, [])


def test_one_that_is_paid_is_not_voided(
    stripe: Stripe, provider: StripeProvider, setting: TeamSetting
) -> None:
    (invoice,) = owed(setting)
    jobs.carry_out_due(provider)
    theirs = assert_charged_once(stripe, invoice)
    stripe.pay(theirs)
    with transaction() as session:
        payments.settle(session, "stripe", theirs, "paid")
    with pytest.raises(Conflict):
        void(setting, invoice)
    assert len(billing.invoices(setting)) == 1


def test_an_answer_that_was_overtaken_changes_nothing(
    stripe: Stripe, provider: StripeProvider, setting: TeamSetting
) -> None:
    (invoice,) = owed(setting)
    jobs.carry_out_due(provider)
    theirs = assert_charged_once(stripe, invoice)
    for state, after in (
        ("open", "open"),
        ("failed", "failed"),
        ("failed", "failed"),
        ("open", "failed"),
        ("uncollectible", "uncollectible"),
        ("paid", "paid"),
        ("failed", "paid"),
        ("paid", "paid"),
    ):
        with transaction() as session:
            payments.settle(session, "stripe", theirs, state)
        assert state_of(invoice) == after
    assert len(billing.events(setting, "invoice_paid")) == 1
    assert [each["state"] for each in billing.events(setting, "invoice_payment_failed")] == [
        "failed",
        "uncollectible",
    ]


def receive(notice_id: str, reference: str | None, type_: str = "invoice.updated") -> None:
    with transaction() as session:
        payments.receive(session, notice_id, type_=type_, reference=reference)


def test_a_notice_has_its_invoice_asked_about_once(
    stripe: Stripe, provider: StripeProvider, setting: TeamSetting
) -> None:
    (invoice,) = owed(setting)
    jobs.carry_out_due(provider)
    theirs = assert_charged_once(stripe, invoice)
    stripe.pay(theirs)
    # A failure that is told after the payment: what counts is what the invoice is.
    for notice in ("evt_paid", "evt_paid", "evt_failed_before"):
        receive(notice, theirs)
    before = len(stripe.calls)
    assert jobs.ask_due(provider) == 2
    assert len(stripe.calls) == before + 2
    receive("evt_paid", theirs)
    assert jobs.ask_due(provider) == 0
    assert state_of(invoice) == "paid"
    assert len(billing.events(setting, "invoice_paid")) == 1
    assert billing.events(setting, "invoice_payment_failed") == []


def test_a_notice_waits_while_stripe_is_away_or_its_worker_dies(
    stripe: Stripe, provider: StripeProvider, setting: TeamSetting, monkeypatch: pytest.MonkeyPatch
) -> None:
    (invoice,) = owed(setting)
    jobs.carry_out_due(provider)
    theirs = assert_charged_once(stripe, invoice)
    stripe.fail(theirs)
    receive("evt_1", theirs)
    stripe.fault = lambda *_: "lost"
    assert jobs.ask_due(provider) == 0
    stripe.fault = lambda *_: None
    due_again()

    def die(*_: object) -> None:
        raise FellOver

    with monkeypatch.context() as patched:
        patched.setattr(payments, "handled", die)
        with pytest.raises(FellOver):
            jobs.ask_due(provider)
    assert (state_of(invoice), billing.events(setting, "invoice_payment_failed")) == ("open", [])
    due_again()
    assert jobs.ask_due(provider) == 1
    assert state_of(invoice) == "failed"
    assert len(billing.events(setting, "invoice_payment_failed")) == 1


def test_notices_of_others_invoices_change_nothing(stripe: Stripe, provider: StripeProvider) -> None:
    stripe.invoices["in_theirs"] = {
        "id": "in_theirs",
        "object": "invoice",
        "status": "paid",
        "attempted": True,
    }
    receive("evt_theirs", "in_theirs")
    receive("evt_customer", None, "customer.updated")
    assert jobs.ask_due(provider) == 1
    assert jobs.ask_due(provider) == 0


def test_a_credit_is_theirs_to_settle_and_nothing_is_charged_for_zero(
    stripe: Stripe, provider: StripeProvider, setting: TeamSetting
) -> None:
    """January was charged for usage that is taken back in February, when the team was on the free plan."""
    billing.on_plans(setting, ("pro", "2025-01-01", "2025-02-01"))
    billing.used(setting, "llm_tokens_used", 60_000_000, "2025-01-07")
    billing.close(setting, issuer=ISSUER)
    ((row,),) = fetch(
        "SELECT id FROM usage_ledger WHERE team_id = :id AND metric = 'llm_tokens_used'", id=setting.id
    )
    billing.reverse(setting, row)
    execute(
        "INSERT INTO plan_periods (team_id, plan, price_book, starts_at, ends_at) VALUES (:id, 'free', 1, '2025-02-01', '2025-03-01')",
        id=setting.id,
    )
    billing.close(setting, issuer=ISSUER)
    january, february = billing.invoices(setting)
    assert (january.total, february.total) == (5_300, -400)
    jobs.carry_out_due(provider)
    assert_charged_once(stripe, january)
    assert_charged_once(stripe, february, status="paid")
    assert (state_of(january), state_of(february)) == ("open", "paid")


def test_without_a_provider_nothing_is_asked(
    stripe: Stripe, setting: TeamSetting, monkeypatch: pytest.MonkeyPatch
) -> None:
    billing.on_plans(setting, ("pro", "2025-01-01", "2025-02-01"))
    billing.close(setting)
    assert orders() == []
    owed(setting)
    jobs.provider.cache_clear()
    assert jobs.provider() is None
    jobs.pay()
    jobs.hear()
    assert stripe.calls == []
    on = replace(
        settings(),
        payment_provider="stripe",
        stripe_api_key=KEY,
        stripe_webhook_secret="s",
        stripe_api_base=stripe.url,
    )
    made = provider_for(on)
    assert isinstance(made, StripeProvider)
    monkeypatch.setattr(jobs, "provider", lambda: made)
    billing.on_plans(setting, ("pro", "2025-03-01", "2025-04-01"))
    billing.close(setting, issuer=Issuer(seller=ISSUER.seller, provider="stripe", grace=ISSUER.grace))
    jobs.pay()
    jobs.hear()
    assert len(stripe.invoices) == 1


def test_an_order_names_what_it_needs(setting: TeamSetting, stripe: Stripe) -> None:
    (invoice,) = owed(setting)
    with transaction() as session:
        claimed = payments.claim(session)
    assert claimed is not None
    order = claimed.order
    assert isinstance(order, Order)
    assert sum(item.amount for item in order.items) == invoice.total
    with transaction() as session:
        assert payments.claim(session) is None  # for the time that a try can take
