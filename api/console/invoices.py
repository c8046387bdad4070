"""Invoices as paper, whose lines open to the usage behind them; what this month comes to; the plan, and who the bill is made out to."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from flask import request
from flask_babel import gettext

from api.console.page import Page, blueprint
from api.console.query import cursor_page
from api.console.usage import ledger_address, month_argument
from api.invoice_text import explanation, quantity_of
from api.resource import requires
from models.access.permissions import Permission
from models.charges import Line
from models.currencies import shown
from models.errors import Invalid
from models.operations import invoices as operations
from models.operations.invoices import issuer_of
from models.queries import invoices, plan_preview, plans
from models.queries.invoices import InvoiceView
from models.queries.paging import Page as PageOfRows
from models.settings import NO_PROVIDER, settings
from models.tables.billing import FINAL, INVOICE
from models.tables.usage import Metric


class Invoices(Page):
    template = "invoices.html"

    @requires(Permission.billing_read)
    def get(self) -> Any:
        book, listed = plans.listed(self.session, PageOfRows(limit=50))
        return {
            "page": invoices.in_team(self.session, self.access, cursor_page()),
            "running": preview_of(self, datetime.now(UTC).date().replace(day=1)),
            "book": book,
            "plans": listed.items,
            "details": invoices.billing_details(self.session, self.access),
        }


class Invoice(Page):
    template = "invoice.html"

    @requires(Permission.billing_read)
    def get(self, invoice_id: UUID) -> Any:
        view = invoices.get(self.session, self.access, invoice_id)
        issuer = issuer_of(settings())
        return {
            "view": view,
            "invoice": view.invoice,
            "seller": view.invoice.seller or issuer.seller,
            "buyer": view.invoice.buyer or operations.buyer(self.session, self.access.team_id),
            "can_void": self.access.is_owner
            and self.may(Permission.billing_update)
            and issuer.provider == NO_PROVIDER
            and can_be_voided(view),
        }


class InvoicePreview(Page):
    """A month's invoice as it would be now."""

    template = "invoice_preview.html"

    @requires(Permission.billing_read)
    def get(self) -> Any:
        month = month_argument(datetime.now(UTC).date())
        return {
            "month": month,
            "preview": preview_of(self, month),
            "seller": issuer_of(settings()).seller,
            "buyer": operations.buyer(self.session, self.access.team_id),
        }


class BillingDetails(Page):
    template = "billing_details.html"

    @requires(Permission.billing_update)
    def get(self) -> Any:
        return {"details": invoices.billing_details(self.session, self.access)}


class Plan(Page):
    """What a change of the plan would cost this month, beside staying."""

    template = "plan.html"

    @requires(Permission.billing_read, past_call_limit=True)
    def get(self) -> Any:
        book = plans.current_book(self.session)
        wanted = request.args.get("to", "")
        names = list(book.plans)
        return {
            "book": book,
            "preview": plan_preview.preview(
                self.session, self.access, wanted if wanted in names else names[0]
            ),
        }


def preview_of(page: Page, month: date) -> Any:
    """None for a month in which the team was on no plan yet."""
    try:
        return invoices.preview(page.session, page.access, month)
    except Invalid:
        return None


def can_be_voided(view: InvoiceView) -> bool:
    return view.invoice.kind == INVOICE and view.invoice.state == FINAL and not view.voided_by


def last_day(ends_on: date) -> date:
    """The last day of what ends before `ends_on`."""
    return ends_on - timedelta(days=1)


def behind(line: Any, team_id: UUID) -> str | None:
    """The address of the usage that a line charges; None for one that charges none."""
    if line.metric is None:
        return None
    return ledger_address(
        team_id, **{"metric": line.metric, "from": line.starts_on, "to": last_day(line.ends_on)}
    )


def about(line: Line) -> str:
    """The quantity of a line that looks ahead: what comes in pieces is in whole ones."""
    in_pieces = line.metric is not None and line.metric != Metric.storage_bytes
    return quantity_of(line.quantity.quantize(Decimal(1)) if in_pieces else line.quantity)


def state_name(state: str) -> str:
    """Of an invoice or its payment."""
    names: dict[str, str] = {
        "draft": gettext("Draft"),
        "final": gettext("Final"),
        "void": gettext("Void"),
        "open": gettext("Open"),
        "paid": gettext("Paid"),
        "failed": gettext("Payment failed"),
        "uncollectible": gettext("Given up"),
    }
    return names[state]


for function in (explanation, quantity_of, last_day, behind, about, state_name):
    blueprint.add_app_template_filter(function)
blueprint.add_app_template_filter(shown, "money_of")
for rule, page in (
    ("invoices", Invoices.as_view("invoices")),
    ("invoices/preview", InvoicePreview.as_view("invoice_preview")),
    ("invoices/<uuid:invoice_id>", Invoice.as_view("invoice")),
    ("billing-details", BillingDetails.as_view("billing_details")),
    ("plan", Plan.as_view("plan")),
):
    blueprint.add_url_rule(f"/teams/<uuid:team_id>/{rule}", view_func=page)
