from typing import Any

from marshmallow import fields, validate

from api.schemas.base import Schema, Time
from api.schemas.billing import MoneySchema
from models.charges import UNITS
from models.plans import PLANS, Book, PackagePrice, Plan, Price
from models.queries.plan_preview import Outcome, Preview
from models.tables.usage import Metric


class TierSchema(Schema):
    up_to = fields.Integer(allow_none=True, metadata={"description": "Inclusive; null in the last tier."})
    unit_amount = fields.String()
    flat_amount = fields.String(metadata={"description": "For entering the tier."})


class PriceSchema(Schema):
    """Amounts are exact decimals, in minor units."""

    model = fields.String(
        metadata={
            "description": "graduated: each unit at its own tier's amount; volume: all at that of the tier which the last one is "
            "in; package: each package begun costs its amount."
        }
    )
    tiers = fields.List(fields.Nested(TierSchema), metadata={"description": "Of graduated and volume."})
    size = fields.Integer(metadata={"description": "Of a package."})
    amount = fields.String(metadata={"description": "Of a package."})


class TermsSchema(Schema):
    unit = fields.String(metadata={"description": "Of storage GB-months: 10^9 bytes kept for the month."})
    included = fields.Integer(metadata={"description": "A month."})
    limit = fields.String(
        metadata={"description": "soft: more is charged by `price`; hard: more is refused."}
    )
    price = fields.Nested(
        PriceSchema, allow_none=True, metadata={"description": "Of what is beyond; null: free."}
    )


class PlanSchema(Schema):
    name = fields.String()
    max_members = fields.Integer()
    retention_days = fields.Integer(metadata={"description": "For how long the activity log is kept."})
    longest_retention_days = fields.Integer(metadata={"description": "As long as a team may choose."})
    base = fields.Nested(MoneySchema, metadata={"description": "A month."})
    metrics = fields.Dict(
        keys=fields.String(),
        values=fields.Nested(TermsSchema),
        metadata={"description": "By name; what is not there is free."},
    )


class PlanQuery(Schema):
    plan = fields.String(required=True, validate=validate.OneOf(list(PLANS)))


class ChargeSchema(Schema):
    description = fields.String()
    metric = fields.String(allow_none=True)
    quantity = fields.String(metadata={"description": "An exact decimal."})
    unit = fields.String()
    amount = fields.Nested(MoneySchema)


class OutcomeSchema(Schema):
    total = fields.Nested(MoneySchema)
    lines = fields.List(fields.Nested(ChargeSchema))


class SeatsSchema(Schema):
    used = fields.Integer(metadata={"description": "By members and pending invitations."})
    limit = fields.Integer()
    fits = fields.Boolean(metadata={"description": "If not, the change would be refused."})


class PlanPreviewSchema(Schema):
    month = fields.Date(metadata={"description": "Its first day, UTC."})
    from_plan = fields.String()
    to_plan = fields.String()
    at = Time(metadata={"description": "When the change would take place: now."})
    seats = fields.Nested(SeatsSchema)
    staying = fields.Nested(OutcomeSchema, metadata={"description": "What the month costs without a change."})
    changing = fields.Nested(OutcomeSchema, metadata={"description": "What it costs with the change."})
    difference = fields.Nested(
        MoneySchema, metadata={"description": "Negative where the change saves money."}
    )


def preview_view(preview: Preview) -> dict[str, Any]:
    """What `PlanPreviewSchema` shows."""

    def money(amount: int) -> dict[str, Any]:
        return {"amount": amount, "currency": preview.currency}

    def outcome(of: Outcome) -> dict[str, Any]:
        lines = [
            {
                "description": line.description,
                "metric": line.metric,
                "quantity": f"{line.quantity:f}",
                "unit": line.unit,
                "amount": money(line.amount),
            }
            for line in of.lines
        ]
        return {"total": money(of.total), "lines": lines}

    limit = preview.wanted.max_members
    return {
        "month": preview.month,
        "from_plan": preview.current.name,
        "to_plan": preview.wanted.name,
        "at": preview.at,
        "seats": {"used": preview.seats_taken, "limit": limit, "fits": preview.seats_taken <= limit},
        "staying": outcome(preview.staying),
        "changing": outcome(preview.changing),
        "difference": money(preview.changing.total - preview.staying.total),
    }


def plan_view(plan: Plan, book: Book) -> dict[str, Any]:
    """What `PlanSchema` shows of a plan in its book."""
    return {
        "name": plan.name,
        "max_members": plan.max_members,
        "retention_days": plan.retention_days,
        "longest_retention_days": plan.longest_retention_days,
        "base": {"amount": int(plan.base), "currency": book.currency},
        "metrics": {
            metric.value: {
                "unit": UNITS[metric],
                "included": terms.included,
                "limit": "hard" if terms.is_hard else "soft",
                "price": terms.price and _price_view(terms.price),
            }
            for metric in Metric
            if (terms := plan.metrics.get(metric))
        },
    }


def _price_view(price: Price) -> dict[str, Any]:
    if isinstance(price, PackagePrice):
        return {"model": price.model, "size": price.size, "amount": f"{price.amount:f}"}
    tiers = [
        {
            "up_to": tier.up_to,
            "unit_amount": f"{tier.unit_amount:f}",
            "flat_amount": f"{tier.flat_amount:f}",
        }
        for tier in price.tiers
    ]
    return {"model": price.model, "tiers": tiers}
