from typing import Any

from marshmallow import fields, validate

from api.schemas.base import Integer, PageQuery, Schema, Text, Time
from api.schemas.tasks import TokensSchema
from models.operations.reservations import LONGEST_S
from models.tables.usage import OPEN, RELEASED, SETTLED, UNSETTLED, Metric

STATES = (OPEN, SETTLED, RELEASED, UNSETTLED)


class ReservationCreateSchema(Schema):
    external_id = Text(required=True, maximum=200, trim=False)
    metric = fields.Enum(
        Metric, by_value=fields.String, required=True, validate=validate.OneOf([Metric.llm_tokens_used])
    )
    quantity = Integer(required=True, minimum=1, metadata={"description": "The most that it may come to."})
    model = Text(maximum=200, allow_none=True)
    workspace_id = fields.UUID(allow_none=True)
    task_id = fields.UUID(allow_none=True, metadata={"description": "Its workspace is meant, too."})
    expires_in_s = Integer(
        minimum=1, maximum=LONGEST_S, metadata={"description": "Default: 600. Then it is unsettled."}
    )


class ReservationSettleSchema(Schema):
    tokens = fields.Nested(TokensSchema, required=True)
    model = Text(maximum=200, metadata={"description": "Default: that of the reservation."})


class ReservationSchema(Schema):
    id = fields.UUID(attribute="row.id")
    external_id = fields.String(attribute="row.external_id")
    metric = fields.String(attribute="row.metric")
    quantity = fields.Integer(attribute="row.quantity")
    state = fields.String(validate=validate.OneOf(STATES))
    model = fields.Function(
        lambda view: view.row.settled_model or view.row.model, metadata={"type": "string", "nullable": True}
    )
    tokens = fields.Raw(
        attribute="row.tokens",
        allow_none=True,
        metadata={"description": "What was used, by part, once it is settled."},
    )
    user_id = fields.UUID(attribute="row.user_id")
    agent_id = fields.UUID(attribute="row.agent_id", allow_none=True)
    api_key_id = fields.UUID(attribute="row.api_key_id", allow_none=True)
    workspace_id = fields.UUID(attribute="row.workspace_id", allow_none=True)
    task_id = fields.UUID(attribute="row.task_id", allow_none=True)
    expires_at = Time(attribute="row.expires_at")
    created_at = Time(attribute="row.created_at")
    ended_at = Time(attribute="row.ended_at", allow_none=True)


class ReservationQuery(PageQuery):
    state: Any = fields.String(load_default=None, validate=validate.OneOf(STATES))
