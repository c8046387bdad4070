from marshmallow import fields, validate

from api.schemas.base import Schema, Text, Time
from models.plans import PLANS


class TeamSchema(Schema):
    id = fields.UUID(attribute="team.id")
    name = fields.String(attribute="team.name")
    owner_id = fields.UUID(attribute="team.owner_id")
    plan = fields.String(attribute="team.plan")
    max_members = fields.Integer(attribute="team.max_members")
    role = fields.String(metadata={"description": "The caller's role."})
    created_at = Time(attribute="team.created_at")
    updated_at = Time(attribute="team.updated_at")


class TeamNameSchema(Schema):
    name = Text(required=True, maximum=255)


class TransferSchema(Schema):
    user_id = fields.UUID(required=True)


class PlanChoiceSchema(Schema):
    plan = fields.String(required=True, validate=validate.OneOf(list(PLANS)))


class PlanSchema(Schema):
    name = fields.String()
    max_members = fields.Integer()
