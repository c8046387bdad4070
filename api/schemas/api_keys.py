from typing import Any

from marshmallow import fields, post_dump, pre_dump

from api.schemas.base import Permissions, Schema, Text, Time
from models.operations.api_keys import NewKey
from models.tables import ApiKey


class AgentSchema(Schema):
    id = fields.UUID()
    team_id = fields.UUID()
    name = fields.String()
    description = fields.String(allow_none=True)
    role = fields.String()
    created_by = fields.UUID()
    created_at = Time()
    updated_at = Time()


class AgentUpdateSchema(Schema):
    name = Text(maximum=255)
    description = Text(maximum=10_000, minimum=0, allow_none=True)
    role = Text(maximum=50)


class AgentCreateSchema(AgentUpdateSchema):
    name = Text(required=True, maximum=255)
    role = Text(required=True, maximum=50)


class ApiKeySchema(Schema):
    id = fields.UUID()
    team_id = fields.UUID()
    name = fields.String()
    prefix = fields.String(metadata={"description": "How the key begins."})
    permissions = fields.List(fields.String())
    user_id = fields.UUID(metadata={"description": "Who made it, and for whom it acts."})
    agent_id = fields.UUID(
        allow_none=True, metadata={"description": "The agent that it is of, if it is one's."}
    )
    expires_at = Time()
    last_used_at = Time(allow_none=True, metadata={"description": "To within five minutes."})
    created_at = Time()


class NewApiKeySchema(ApiKeySchema):
    key = fields.String(metadata={"description": "Shown once."})

    @pre_dump
    def its_row(self, made: NewKey, **_: Any) -> ApiKey:
        return made.row

    @post_dump(pass_original=True)
    def with_key(self, shown: dict[str, Any], made: NewKey, **_: Any) -> dict[str, Any]:
        return {**shown, "key": made.key}


class ApiKeyCreateSchema(Schema):
    name = Text(required=True, maximum=255)
    permissions = Permissions(required=True)
    expires_at = Time(metadata={"description": "In 90 days unless given."})
    agent_id = fields.UUID(metadata={"description": "Makes it that agent's key, which acts for the caller."})
