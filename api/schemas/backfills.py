from marshmallow import fields, validate

from api.schemas.base import Schema, Text, Time
from models.tables.usage import APPLIED, OPEN, REVERTED


class BackfillCreateSchema(Schema):
    name = Text(required=True, maximum=255)
    reason = Text(required=True, maximum=500)


class BackfillSchema(Schema):
    id = fields.UUID()
    name = fields.String()
    reason = fields.String()
    state = fields.String(validate=validate.OneOf([OPEN, APPLIED, REVERTED]))
    created_by = fields.UUID()
    created_at = Time()
    applied_at = Time(allow_none=True)
    reverted_at = Time(allow_none=True)


class BackfillViewSchema(Schema):
    id = fields.UUID(attribute="row.id")
    name = fields.String(attribute="row.name")
    reason = fields.String(attribute="row.reason")
    state = fields.String(attribute="row.state", validate=validate.OneOf([OPEN, APPLIED, REVERTED]))
    created_by = fields.UUID(attribute="row.created_by")
    created_at = Time(attribute="row.created_at")
    applied_at = Time(attribute="row.applied_at", allow_none=True)
    reverted_at = Time(attribute="row.reverted_at", allow_none=True)
    events = fields.Integer(metadata={"description": "How many are in the set."})
    counted = fields.Integer(
        metadata={"description": "How many of them the ledger took from it, or would take now."}
    )
    duplicates = fields.Integer(metadata={"description": "How many it knows, or knew, already."})
    closed_months = fields.List(
        fields.Date(),
        metadata={
            "description": "Months, by their first day, that are invoiced: there it becomes adjustments."
        },
    )


class BackfillChangeSchema(Schema):
    date = fields.Date()
    metric = fields.String()
    events = fields.Integer()
    quantity = fields.Integer(metadata={"description": "What the set adds to the day, or added."})
    counted = fields.Integer(
        metadata={"description": "What the day has now; of storage_bytes its net change."}
    )
