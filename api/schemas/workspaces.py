from marshmallow import fields, validate

from api.schemas.base import Schema, Text, Time
from api.schemas.members import MemberUserSchema
from models.tables.workspaces import OPEN, PRIVATE

VISIBILITIES = (OPEN, PRIVATE)


class WorkspaceSchema(Schema):
    id = fields.UUID()
    team_id = fields.UUID()
    name = fields.String()
    description = fields.String(allow_none=True)
    visibility = fields.String(validate=validate.OneOf(VISIBILITIES))
    created_by = fields.UUID()
    created_at = Time()
    updated_at = Time()


class WorkspaceCreateSchema(Schema):
    name = Text(required=True, maximum=255)
    description = Text(maximum=10_000, minimum=0, allow_none=True)
    visibility = fields.String(
        validate=validate.OneOf(VISIBILITIES),
        metadata={"description": "`team`: open to the team; `private`: to its listed members and the owner."},
    )


class WorkspaceUpdateSchema(Schema):
    name = Text(maximum=255)
    description = Text(maximum=10_000, minimum=0, allow_none=True)
    visibility = fields.String(
        validate=validate.OneOf(VISIBILITIES),
        metadata={"description": "`team`: open to the team; `private`: to its listed members and the owner."},
    )


class WorkspaceMemberSchema(Schema):
    user = fields.Nested(MemberUserSchema)
    role = fields.String(
        allow_none=True, metadata={"description": "In this workspace; null: the same as in the team."}
    )
    created_at = Time()


class WorkspaceRoleSchema(Schema):
    role = Text(maximum=50, allow_none=True, load_default=None)
