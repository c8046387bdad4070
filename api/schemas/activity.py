from marshmallow import fields, validate

from api.schemas.base import PageQuery, Schema, Text, Time
from models.tables.activity import DENIED, SUCCESS


class ActivitySchema(Schema):
    seq = fields.Integer(attribute="row.seq")
    id = fields.UUID(attribute="row.id")
    team_id = fields.UUID(attribute="row.team_id")
    user_id = fields.UUID(attribute="row.user_id", allow_none=True)
    agent_id = fields.UUID(
        attribute="row.agent_id",
        allow_none=True,
        metadata={"description": "The agent that acted, for the user in `user_id`."},
    )
    api_key_id = fields.UUID(attribute="row.api_key_id", allow_none=True)
    action = fields.String(attribute="row.action")
    outcome = fields.String(
        attribute="row.outcome",
        metadata={"enum": [SUCCESS, DENIED], "description": "`denied`: it was refused."},
    )
    schema_version = fields.Integer(
        attribute="row.schema_version", metadata={"description": "Of the payload in `metadata`."}
    )
    resource_type = fields.String(attribute="row.resource_type")
    resource_id = fields.UUID(attribute="row.resource_id")
    resource_name = fields.String(allow_none=True)
    workspace_id = fields.UUID(attribute="row.workspace_id", allow_none=True)
    summary = fields.String()
    metadata = fields.Raw(attribute="row.details")
    ip_address = fields.String(attribute="row.ip_address", allow_none=True)
    user_agent = fields.String(attribute="row.user_agent", allow_none=True)
    request_id = fields.String(attribute="row.request_id", allow_none=True)
    created_at = Time(attribute="row.created_at")


class ActivityFilterSchema(Schema):
    """What narrows the log, wherever it is read."""

    action = fields.List(
        Text(maximum=100),
        load_default=(),
        metadata={"description": "One action, or several by repeating the parameter."},
    )
    user_id = fields.UUID(load_default=None)
    agent_id = fields.UUID(load_default=None)
    api_key_id = fields.UUID(load_default=None)
    resource_type = Text(load_default=None, maximum=50)
    resource_id = fields.UUID(load_default=None)
    workspace_id = fields.UUID(load_default=None)
    outcome = fields.String(load_default=None, validate=validate.OneOf([SUCCESS, DENIED]))
    ip_address = fields.IP(load_default=None)
    since = Time(load_default=None, metadata={"description": "From this time on."})
    until = Time(load_default=None, metadata={"description": "Before this time."})
    q = Text(
        load_default=None, maximum=200, metadata={"description": "A substring of what happened, in any case."}
    )


class ActivityQuery(ActivityFilterSchema, PageQuery):
    """A page of what matches."""
