"""Invoices, as JSON, CSV and PDF; who they are made out to; what this month's would be."""

from datetime import date
from typing import Any
from uuid import UUID

from flask import Response, request

from api.blueprint import Blueprint
from api.invoice_csv import csv_of
from api.invoice_pdf import pdf_of
from api.offload import off_the_loop
from api.pagination import envelope, page_from
from api.resource import Resource, requires
from api.schemas.base import PageQuery
from api.schemas.billing import (
    BillingDetailsSchema,
    BillingDetailsViewSchema,
    FormatQuery,
    InvoicePreviewSchema,
    InvoiceSchema,
    InvoiceSummarySchema,
    VoidSchema,
)
from api.schemas.usage import MonthQuery
from models.access.permissions import Permission
from models.operations import billing_details
from models.operations import invoices as operations
from models.operations.invoices import issuer_of
from models.queries import invoices, teams
from models.queries.invoices import InvoiceView, Preview
from models.settings import settings

blueprint = Blueprint("invoices", "What a team owes, and how that comes about")

MIME = {"application/json": "json", "text/csv": "csv", "application/pdf": "pdf"}
RENDER = {"csv": ("text/csv", csv_of), "pdf": ("application/pdf", pdf_of)}


@blueprint.route("/teams/<uuid:team_id>/invoices")
class Invoices(Resource):
    @requires(Permission.billing_read)
    @blueprint.query(PageQuery)
    @blueprint.lists(InvoiceSummarySchema)
    def get(self, query: dict[str, Any]) -> dict[str, Any]:
        """The team's invoices, drafts and credit notes, newest first."""
        return envelope(invoices.in_team(self.session, self.access, page_from(query)))


@blueprint.route("/teams/<uuid:team_id>/invoices/preview")
class InvoicePreview(Resource):
    @requires(Permission.billing_read)
    @blueprint.query(MonthQuery)
    @blueprint.shows(InvoicePreviewSchema)
    def get(self, query: dict[str, int]) -> Preview:
        """What a month's invoice would be now: the base of the whole month, the usage so far, adjustments of earlier months."""
        return invoices.preview(self.session, self.access, date(query["year"], query["month"], 1))


@blueprint.route("/teams/<uuid:team_id>/invoices/<uuid:invoice_id>")
class Invoice(Resource):
    shown_as = InvoiceSchema

    @requires(Permission.billing_read)
    @blueprint.query(FormatQuery)
    @blueprint.shows(InvoiceSchema)
    @blueprint.sends_too("text/csv", "application/pdf")
    def get(self, query: dict[str, Any], invoice_id: UUID) -> InvoiceView | Response:
        """One invoice with its lines; as CSV or PDF by `format` or the Accept header."""
        view = invoices.get(self.session, self.access, invoice_id)
        wanted = query["format"] or MIME[request.accept_mimetypes.best_match(MIME, "application/json")]
        if wanted == "json":
            return view
        mimetype, render = RENDER[wanted]
        buyer = view.invoice.buyer or operations.buyer(self.session, self.access.team_id)
        seller = view.invoice.seller or issuer_of(settings()).seller
        response = Response(off_the_loop(render, view, seller, buyer), mimetype=mimetype)
        name = view.invoice.number or f"draft-{view.invoice.period_start:%Y-%m}"
        response.headers["Content-Disposition"] = f'attachment; filename="{name}.{wanted}"'
        return response


@blueprint.route("/teams/<uuid:team_id>/invoices/<uuid:invoice_id>/void")
class Voided(Resource):
    @requires(Permission.billing_update)
    @blueprint.body(VoidSchema)
    @blueprint.shows(InvoiceSchema, 201)
    def post(self, body: dict[str, str], invoice_id: UUID) -> InvoiceView:
        """
        Void a final invoice by a credit note, which is the answer; the owner alone may. 409 where a payment provider charges:
        there it is the operator's to do. The month is invoiced anew.
        """
        note = operations.void(
            self.session, self.access, invoice_id, reason=body["reason"], issuer=issuer_of(settings())
        )
        return invoices.get(self.session, self.access, note.id)


@blueprint.route("/teams/<uuid:team_id>/billing-details")
class Details(Resource):
    shown_as = BillingDetailsViewSchema

    @requires(Permission.billing_read)
    @blueprint.shows(BillingDetailsViewSchema)
    def get(self) -> Any:
        """Who the team's invoices are made out to."""
        return invoices.billing_details(self.session, self.access)

    @requires(Permission.billing_update)
    @blueprint.body(BillingDetailsSchema)
    @blueprint.shows(BillingDetailsViewSchema)
    def put(self, body: dict[str, Any]) -> Any:
        """Say who the invoices are made out to that are finalized from now on."""
        team = teams.get(self.session, self.access, for_update=True)
        self.check_match(invoices.billing_details(self.session, self.access))
        return billing_details.put(self.session, self.access, team, body)
