from typing import Any

from marshmallow import fields

from api.schemas.base import Schema
from models.charges import UNITS
from models.plans import Book, PackagePrice, Plan, Price
from models.tables.usage import Metric


class MoneySchema(Schema):
    amount = fields.Integer(metadata={"description": "Minor units."})
    currency = fields.String()


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
    metric = fields.String()
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
    base = fields.Nested(MoneySchema, metadata={"description": "A month."})
    metrics = fields.List(fields.Nested(TermsSchema))


def plan_view(plan: Plan, book: Book) -> dict[str, Any]:
    """What `PlanSchema` shows of a plan in its book."""
    return {
        "name": plan.name,
        "max_members": plan.max_members,
        "base": {"amount": int(plan.base), "currency": book.currency},
        "metrics": [
            {
                "metric": metric.value,
                "unit": UNITS[metric],
                "included": terms.included,
                "limit": "hard" if terms.is_hard else "soft",
                "price": terms.price and _price_view(terms.price),
            }
            for metric in Metric
            if (terms := plan.metrics.get(metric))
        ],
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
