from typing import Any

from marshmallow import fields, pre_dump, validate

from api.schemas.base import Email, Schema, Text, Time
from models.queries.invoices import InvoiceView, Preview

FORMATS = ("json", "csv", "pdf")


class MoneySchema(Schema):
    amount = fields.Integer(required=True, metadata={"description": "In the currency's minor unit."})
    currency = fields.String(required=True, metadata={"description": "ISO 4217."})


class InvoiceLineSchema(Schema):
    kind = fields.String(metadata={"description": "base, usage, adjustment or credit."})
    description = fields.String()
    plan = fields.String()
    metric = fields.String(allow_none=True)
    quantity = fields.Decimal(as_string=True, metadata={"type": "string"})
    unit = fields.String()
    starts_on = fields.Date()
    ends_on = fields.Date(metadata={"description": "The first day after it."})
    unrounded = fields.Decimal(
        as_string=True, metadata={"type": "string", "description": "The exact price, in minor units."}
    )
    amount = fields.Nested(MoneySchema)
    details = fields.Dict(metadata={"description": "How the price came about."})


class InvoicePreviewSchema(Schema):
    period_start = fields.Date()
    period_end = fields.Date(metadata={"description": "The first day after it."})
    total = fields.Nested(MoneySchema)
    counted_at = Time(metadata={"description": "The usage that is in it was recorded until then."})
    lines = fields.List(fields.Nested(InvoiceLineSchema))

    @pre_dump
    def as_shown(self, view: Preview, **_: Any) -> dict[str, Any]:
        return {
            "period_start": view.period_start,
            "period_end": view.period_end,
            "total": money(view.total, view.currency),
            "counted_at": view.counted_at,
            "lines": [_line(line, view.currency) for line in view.lines],
        }


class InvoiceSummarySchema(Schema):
    id = fields.UUID()
    team_id = fields.UUID()
    kind = fields.String(metadata={"description": "invoice or credit_note."})
    state = fields.String(metadata={"description": "draft, final, or void: credited by a credit note."})
    number = fields.String(allow_none=True)
    revision = fields.Integer()
    period_start = fields.Date()
    period_end = fields.Date(metadata={"description": "The first day after it."})
    total = fields.Nested(MoneySchema)
    payment_state = fields.String(
        allow_none=True, metadata={"description": "open, paid, failed, uncollectible or void."}
    )
    credits = fields.String(
        allow_none=True, metadata={"description": "The number of what a credit note voids."}
    )
    voided_by = fields.String(
        allow_none=True, metadata={"description": "The number of the credit note that voids it."}
    )
    created_at = Time()
    finalized_at = Time(allow_none=True)

    @pre_dump
    def as_shown(self, view: InvoiceView, **_: Any) -> dict[str, Any]:
        return shown(view)


class PartySchema(Schema):
    name = fields.String()
    address = fields.String()
    tax_id = fields.String(allow_none=True)
    email = fields.String()
    tax_note = fields.String()


class InvoiceSchema(InvoiceSummarySchema):
    counted_at = Time(metadata={"description": "The usage that is in it was recorded until then."})
    seller = fields.Nested(PartySchema, allow_none=True)
    buyer = fields.Nested(PartySchema, allow_none=True)
    reason = fields.String(allow_none=True, metadata={"description": "Of a credit note."})
    lines = fields.List(fields.Nested(InvoiceLineSchema))

    @pre_dump
    def as_shown(self, view: InvoiceView, **_: Any) -> dict[str, Any]:
        lines = [_line(line, view.invoice.currency) for line in view.lines]
        return {**shown(view), "lines": lines}


class FormatQuery(Schema):
    format = fields.String(
        load_default=None,
        validate=validate.OneOf(FORMATS),
        metadata={"description": "Instead of the Accept header."},
    )


class VoidSchema(Schema):
    reason = Text(required=True, maximum=500)


class BillingDetailsSchema(Schema):
    name = Text(required=True, maximum=255)
    address = Text(required=True, maximum=1000, metadata={"description": "Line by line."})
    tax_id = Text(maximum=100, allow_none=True, load_default=None)
    email = Email(allow_none=True, load_default=None)


class BillingDetailsViewSchema(Schema):
    """Nothing is said until somebody says it."""

    name = fields.String(required=True, allow_none=True)
    address = fields.String(required=True)
    tax_id = fields.String(required=True, allow_none=True)
    email = fields.String(required=True, allow_none=True)
    updated_at = Time(allow_none=True)


def money(amount: int, currency: str) -> dict[str, Any]:
    return {"amount": amount, "currency": currency}


def shown(view: InvoiceView) -> dict[str, Any]:
    """An invoice and what became of it, as one."""
    invoice = view.invoice
    columns = (
        "id", "team_id", "kind", "number", "revision", "period_start", "period_end", "created_at", "finalized_at",
        "counted_at", "seller", "buyer", "reason",
    )  # fmt: skip
    return {
        **{name: getattr(invoice, name) for name in columns},
        "state": view.state,
        "total": money(invoice.total, invoice.currency),
        "payment_state": view.payment_state,
        "credits": view.credits,
        "voided_by": view.voided_by,
    }


def _line(line: Any, currency: str) -> dict[str, Any]:
    columns = (
        "kind", "description", "plan", "metric", "quantity", "unit", "starts_on", "ends_on", "unrounded", "details",
    )  # fmt: skip
    return {**{name: getattr(line, name) for name in columns}, "amount": money(line.amount, currency)}
