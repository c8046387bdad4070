from marshmallow import fields, validate

from api.schemas.base import Integer, JsonValue, PageQuery, Schema, Text, Time
from models.operations.tasks import LEADS_TO


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
    created_by = fields.UUID()
    created_at = Time()
    updated_at = Time()
    started_at = Time(allow_none=True)
    finished_at = Time(allow_none=True)


class TaskUpdateSchema(Schema):
    title = Text(maximum=500)
    prompt = Text(maximum=100_000, minimum=0, trim=False, allow_none=True)
    type = Text(maximum=50)
    assignee_id = fields.UUID(allow_none=True)


class TaskCreateSchema(TaskUpdateSchema):
    title = Text(required=True, maximum=500)


class TaskCompleteSchema(Schema):
    result = JsonValue(allow_none=True)
    llm_tokens_used = Integer(minimum=0)


class TaskFailSchema(Schema):
    error = Text(required=True, maximum=10_000)


class TaskQuery(PageQuery):
    status = fields.String(load_default=None, validate=validate.OneOf(list(LEADS_TO)))
    assignee_id = fields.UUID(load_default=None)
