from typing import Any

from marshmallow import fields, validate

from api.schemas.base import Schema, Text, Time
from api.schemas.usage import DaysQuery
from models.queries.ledger import NONE_AT_ALL
from models.tables.usage import Metric, TokenPart


class IdOrNone(fields.String):
    """An id; as an empty parameter, those that have none."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        return NONE_AT_ALL if value == "" else fields.UUID().deserialize(value, attr, data, **kwargs)


class TextOrNone(Text):
    """Text; as an empty parameter, those that have none."""

    def deserialize(self, value: Any, attr: str | None = None, data: Any = None, **kwargs: Any) -> Any:
        return NONE_AT_ALL if value == "" else super().deserialize(value, attr, data, **kwargs)


EMPTY = {"description": "Given and empty, it finds the rows that have none."}
EMPTY_ID = {
    **EMPTY,
    "anyOf": [{"type": "string", "format": "uuid"}, {"type": "string", "maxLength": 0}],
}
EMPTY_TEXT = {**EMPTY, "minLength": 0}


class LedgerQuery(DaysQuery):
    metric = fields.Enum(Metric, by_value=fields.String, load_default=None)
    user_id = IdOrNone(load_default=None, metadata=EMPTY_ID)
    agent_id = IdOrNone(load_default=None, metadata=EMPTY_ID)
    api_key_id = IdOrNone(load_default=None, metadata=EMPTY_ID)
    workspace_id = IdOrNone(load_default=None, metadata=EMPTY_ID)
    model = TextOrNone(maximum=200, trim=False, load_default=None, metadata=EMPTY_TEXT)
    part = TextOrNone(maximum=20, load_default=None, metadata=EMPTY_TEXT)
    set_id = fields.UUID(
        load_default=None,
        metadata={
            "description": "The backfill set that it came with; without `from` and `to` of whatever days."
        },
    )


class LedgerRowSchema(Schema):
    id = fields.UUID(attribute="row.id")
    key = fields.String(
        allow_none=True,
        metadata={
            "description": "What it is the count of, once for ever; None where the workspace is hidden."
        },
    )
    external_id = fields.String(
        allow_none=True, metadata={"description": "The reporter's, if it was reported."}
    )
    metric = fields.String(attribute="row.metric")
    quantity = fields.Integer(attribute="row.quantity")
    occurred_at = Time(attribute="row.occurred_at")
    recorded_at = Time(attribute="row.recorded_at")
    user_id = fields.UUID(attribute="row.user_id", allow_none=True)
    agent_id = fields.UUID(attribute="row.agent_id", allow_none=True)
    api_key_id = fields.UUID(attribute="row.api_key_id", allow_none=True)
    workspace_id = fields.UUID(allow_none=True)
    model = fields.String(attribute="row.model", allow_none=True)
    part = fields.String(
        attribute="row.part", allow_none=True, validate=validate.OneOf([part.value for part in TokenPart])
    )
    reverses = fields.UUID(
        attribute="row.reverses", allow_none=True, metadata={"description": "The row that it takes back."}
    )
    reversed_by = fields.UUID(allow_none=True, metadata={"description": "The row that takes it back."})
    reason = fields.String(attribute="row.reason", allow_none=True)
    set_id = fields.UUID(attribute="row.set_id", allow_none=True)


class CorrectionSchema(Schema):
    ledger_id = fields.UUID(required=True, metadata={"description": "The row to take back."})
    reason = Text(required=True, maximum=500)
