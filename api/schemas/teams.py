from marshmallow import fields, validate

from api.schemas.base import Boolean, PageQuery, Schema, Text, Time
from models.plans import PLANS


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


class TeamNameSchema(Schema):
    name = Text(required=True, maximum=255)


class TransferSchema(Schema):
    user_id = fields.UUID(required=True)


class PlanChoiceSchema(Schema):
    plan = fields.String(required=True, validate=validate.OneOf(list(PLANS)))
