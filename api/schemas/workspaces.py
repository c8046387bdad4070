from marshmallow import fields

from api.schemas.base import Schema, Text, Time


class WorkspaceSchema(Schema):
    id = fields.UUID()
    team_id = fields.UUID()
    name = fields.String()
    description = fields.String(allow_none=True)
    created_by = fields.UUID()
    created_at = Time()
    updated_at = Time()


class WorkspaceCreateSchema(Schema):
    name = Text(required=True, maximum=255)
    description = Text(maximum=10_000, minimum=0, allow_none=True)


class WorkspaceUpdateSchema(Schema):
    name = Text(maximum=255)
    description = Text(maximum=10_000, minimum=0, allow_none=True)
