from typing import Any

from marshmallow import ValidationError, fields, post_dump, pre_dump, validate, validates_schema

from api.schemas.base import Boolean, PageQuery, Schema, Text, Time
from models.operations.activity_exports import WithLink
from models.settings import settings
from models.tables import ActivityExport
from models.tables.activity import DENIED, SUCCESS
from models.tables.activity_exports import CSV, NDJSON, STATES

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


FORMAT: dict[str, Any] = {
    "load_default": NDJSON,
    "validate": validate.OneOf([NDJSON, CSV]),
    "metadata": {"description": "A JSON object a line, or a table."},
}
ORDER: dict[str, Any] = {
    "load_default": None,
    "validate": validate.OneOf(["asc", "desc"]),
    "metadata": {
        "description": "By `seq`; newest first if not said, but with `proof` oldest first, and no other way."
    },
}
PROOF: dict[str, Any] = {
    "load_default": False,
    "metadata": {
        "description": "With each row's place in the hash chain, and a digest for rows that the caller may not see; takes no"
        " filter but `since` and `until`. docs/verify.py verifies it."
    },
}


class ExportQuery(ActivityFilterSchema):
    """What to stream."""

    format = fields.String(**FORMAT)
    order = fields.String(**ORDER)
    proof = fields.Boolean(truthy={"true"}, falsy={"false"}, **PROOF)


class ActivityExportCreateSchema(ActivityFilterSchema):
    """What to write to a file."""

    action = fields.List(Text(maximum=100), validate=validate.Length(1, 100))
    format = fields.String(**FORMAT)
    order = fields.String(**ORDER)
    proof = Boolean(**PROOF)


class ActivityExportSchema(Schema):
    id = fields.UUID()
    team_id = fields.UUID()
    user_id = fields.UUID(metadata={"description": "Who asked, or for whom the agent or API key did."})
    agent_id = fields.UUID(allow_none=True)
    api_key_id = fields.UUID(allow_none=True)
    format = fields.String(metadata={"enum": [NDJSON, CSV]})
    order = fields.Function(
        lambda export: "desc" if export.descending else "asc",
        metadata={"type": "string", "enum": ["asc", "desc"]},
    )
    proof = fields.Boolean()
    filters = fields.Dict(metadata={"description": "Those that were given."})
    state = fields.String(metadata={"enum": list(STATES)})
    rows = fields.Integer(metadata={"description": "Written so far."})
    percent = fields.Integer(metadata={"description": "Of the log's numbers that were gone through."})
    error = fields.String(
        allow_none=True, metadata={"description": "Why it failed, or why its last attempt did."}
    )
    size = fields.Integer(allow_none=True, metadata={"description": "Of the gzip file, in bytes."})
    sha256 = fields.Function(
        lambda export: export.sha256 and export.sha256.hex(),
        metadata={"type": "string", "nullable": True, "description": "Of the gzip file, in hex."},
    )
    created_at = Time()
    completed_at = Time(allow_none=True, metadata={"description": "When it ended, well or not."})
    expires_at = Time(allow_none=True, metadata={"description": "When file and link end."})


class NewActivityExportSchema(ActivityExportSchema):
    download_url = fields.String(
        metadata={
            "description": "Opens the file to whoever has it, once the export is completed and until it expires. Shown here"
            " alone; `POST …/link` makes another, which ends this one."
        }
    )

    @pre_dump
    def its_row(self, made: WithLink, **_: Any) -> ActivityExport:
        return made.export

    @post_dump(pass_original=True)
    def with_url(self, shown: dict[str, Any], made: WithLink, **_: Any) -> dict[str, Any]:
        path = f"/api/v1/exports/{made.export.id}?token={made.token}"
        return {**shown, "download_url": settings().public_url + path}


class DownloadQuery(Schema):
    token = Text(required=True, maximum=200)


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
