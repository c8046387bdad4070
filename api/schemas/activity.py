from typing import Any

from marshmallow import ValidationError, fields, validate, validates_schema

from api.schemas.base import PageQuery, Schema, Text, Time
from models.tables.activity import DENIED, SUCCESS

MOST_ACTIONS = 50
"""In one question."""


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
        validate=validate.Length(max=MOST_ACTIONS),
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
        load_default=None,
        maximum=200,
        metadata={
            "description": "A substring, in any case, of what happened: names, the action, every value in the details; "
            "an id among them is found by the whole of it."
        },
    )


class ActivityQuery(ActivityFilterSchema, PageQuery):
    """A page of what matches."""

    cursor = fields.String(
        load_default=None, metadata={"description": "`next_cursor` or `previous_cursor` of another page."}
    )
    at = Time(
        load_default=None,
        metadata={"description": "Begins at the newest row that is not after this time; not with `cursor`."},
    )

    @validates_schema
    def _one_beginning(self, query: dict[str, Any], **_: Any) -> None:
        if query.get("at") and query.get("cursor"):
            raise ValidationError("A page begins at a time or at a cursor, not at both.", "at")


class FacetsQuery(Schema):
    """What the counts are of. The other filters can't be counted exactly in time."""

    since = Time(load_default=None, metadata={"description": "From this time on."})
    until = Time(load_default=None, metadata={"description": "Before this time."})
    workspace_id = fields.UUID(load_default=None)


class ActionCountSchema(Schema):
    action = fields.String(attribute="value")
    count = fields.Integer()


class PersonCountSchema(Schema):
    user_id = fields.UUID(attribute="value")
    name = fields.String(allow_none=True)
    count = fields.Integer(metadata={"description": "Of what the person did, and agents for the person."})


class AgentCountSchema(Schema):
    agent_id = fields.UUID(attribute="value")
    name = fields.String(allow_none=True)
    count = fields.Integer()


class WorkspaceCountSchema(Schema):
    workspace_id = fields.UUID(attribute="value")
    name = fields.String(allow_none=True, metadata={"description": "None once it is deleted."})
    count = fields.Integer()


class FacetsSchema(Schema):
    total = fields.Integer()
    actions = fields.List(fields.Nested(ActionCountSchema))
    users = fields.List(fields.Nested(PersonCountSchema))
    agents = fields.List(fields.Nested(AgentCountSchema))
    workspaces = fields.List(fields.Nested(WorkspaceCountSchema))
