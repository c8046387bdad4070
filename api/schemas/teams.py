from marshmallow import fields, validate

from api.schemas.base import Boolean, Integer, PageQuery, Schema, Text, Time
from models.plans import PLANS, SHORTEST_RETENTION_DAYS


class TeamSchema(Schema):
    id = fields.UUID(attribute="team.id")
    name = fields.String(attribute="team.name")
    owner_id = fields.UUID(attribute="team.owner_id")
    plan = fields.String(attribute="team.plan")
    max_members = fields.Integer(attribute="team.max_members")
    two_factor_required = fields.Boolean(
        attribute="team.two_factor_required",
        metadata={"description": "Whether only members with a second factor may enter."},
    )
    retention_days = fields.Integer(
        attribute="team.retention_days",
        allow_none=True,
        metadata={"description": "For how long the activity log is kept, as chosen; null: as the plan says."},
    )
    retention_days_in_force = fields.Integer(
        metadata={"description": "For how long it is kept now."},
    )
    retention_shortens_at = Time(
        allow_none=True,
        metadata={"description": "When a shorter period that was set begins to count, 30 days after that."},
    )
    legal_hold_reason = fields.String(
        attribute="team.hold_reason",
        allow_none=True,
        metadata={"description": "Of the legal hold, if one is placed: nothing is purged meanwhile."},
    )
    legal_hold_placed_at = Time(attribute="team.held_at", allow_none=True)
    role = fields.String(metadata={"description": "The caller's role."})
    created_at = Time(attribute="team.created_at")
    updated_at = Time(attribute="team.updated_at")
    deleted_at = Time(attribute="team.deleted_at", allow_none=True)


class TeamsQuery(PageQuery):
    deleted = fields.Boolean(
        load_default=False,
        truthy={"true"},
        falsy={"false"},
        metadata={"description": "Instead the caller's own teams that are deleted and can be restored."},
    )


class TeamUpdateSchema(Schema):
    name = Text(maximum=255)
    two_factor_required = Boolean()
    retention_days = Integer(
        minimum=SHORTEST_RETENTION_DAYS,
        maximum=max(plan.longest_retention_days for plan in PLANS.values()),
        allow_none=True,
        metadata={
            "description": "At most what the plan has; null: as the plan says. A shorter one counts after 30 days."
        },
    )


class LegalHoldSchema(Schema):
    reason = Text(required=True, maximum=1_000)


class TeamNameSchema(Schema):
    name = Text(required=True, maximum=255)


class TransferSchema(Schema):
    user_id = fields.UUID(required=True)


class PlanChoiceSchema(Schema):
    plan = fields.String(required=True, validate=validate.OneOf(list(PLANS)))
