from typing import Any

from marshmallow import ValidationError, fields, post_load, validate, validates_schema

from api.schemas.base import Integer, JsonValue, PageQuery, Schema, Text, Time
from models.operations.tasks import LEADS_TO, LONGEST_LEASE_S
from models.tables.usage import TokenPart

MOST_TOKENS = 2**53
"""Of one part of one call; the sum of the parts stays below 2⁶³."""
MAXIMUM_TYPES = 100
"""Of tasks, that one claim asks for."""


class TaskSchema(Schema):
    id = fields.UUID()
    team_id = fields.UUID()
    workspace_id = fields.UUID()
    title = fields.String()
    prompt = fields.String(allow_none=True)
    type = fields.String()
    status = fields.String(validate=validate.OneOf(list(LEADS_TO)))
    assignee_id = fields.UUID(allow_none=True)
    result = fields.Raw(allow_none=True)
    error = fields.String(allow_none=True)
    llm_tokens_used = fields.Integer()
    attempts = fields.Integer(metadata={"description": "How often work on it began."})
    agent_id = fields.UUID(
        allow_none=True, metadata={"description": "The agent that works on it, or did last."}
    )
    lease_expires_at = Time(
        allow_none=True, metadata={"description": "When a claimed task is returned, if no heartbeat comes."}
    )
    created_by = fields.UUID()
    created_at = Time()
    updated_at = Time()
    started_at = Time(allow_none=True)
    finished_at = Time(allow_none=True)


class ClaimedTaskSchema(TaskSchema):
    """For its claimer alone: everyone else sees the task without the lease's id."""

    lease_id = fields.UUID(metadata={"description": "To be named in heartbeats, and by complete and fail."})


class TokensSchema(Schema):
    """Disjoint parts: what came from a cache is in `cached_input` alone."""

    input = Integer(minimum=0, maximum=MOST_TOKENS)
    cached_input = Integer(minimum=0, maximum=MOST_TOKENS)
    output = Integer(minimum=0, maximum=MOST_TOKENS)
    reasoning = Integer(minimum=0, maximum=MOST_TOKENS)

    @post_load
    def by_part(self, data: dict[str, int], **_: Any) -> dict[TokenPart, int]:
        return {TokenPart(part): quantity for part, quantity in data.items()}


class TaskUpdateSchema(Schema):
    title = Text(maximum=500)
    prompt = Text(maximum=100_000, minimum=0, trim=False, allow_none=True)
    type = Text(maximum=50)
    assignee_id = fields.UUID(allow_none=True)


class TaskCreateSchema(TaskUpdateSchema):
    title = Text(required=True, maximum=500)


class TaskClaimSchema(Schema):
    lease_s = Integer(minimum=1, maximum=LONGEST_LEASE_S)
    types = fields.List(Text(maximum=50), validate=validate.Length(1, MAXIMUM_TYPES))


class TaskHeartbeatSchema(Schema):
    lease_id = fields.UUID(required=True)
    lease_s = Integer(minimum=1, maximum=LONGEST_LEASE_S)


class TaskCompleteSchema(Schema):
    lease_id = fields.UUID(metadata={"description": "Needed for a task that was claimed."})
    result = JsonValue(allow_none=True)
    llm_tokens_used = Integer(minimum=0)
    model = Text(maximum=200, metadata={"description": "That the tokens were used of."})
    tokens = fields.Nested(
        TokensSchema, metadata={"description": "Instead of `llm_tokens_used`, which is their sum then."}
    )

    @validates_schema
    def check_tokens(self, data: dict[str, Any], **_: Any) -> None:
        if "tokens" in data and "llm_tokens_used" in data:
            raise ValidationError("Send this or `tokens`, not both.", "llm_tokens_used")
        if "model" in data and not {"tokens", "llm_tokens_used"} & set(data):
            raise ValidationError("This needs `tokens` or `llm_tokens_used`.", "model")


class TaskFailSchema(Schema):
    lease_id = fields.UUID(metadata={"description": "Needed for a task that was claimed."})
    error = Text(required=True, maximum=10_000)


class TaskQuery(PageQuery):
    status = fields.String(load_default=None, validate=validate.OneOf(list(LEADS_TO)))
    assignee_id = fields.UUID(load_default=None)
