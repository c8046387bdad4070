from typing import Any

from marshmallow import ValidationError, fields, post_load, validate, validates_schema

from api.schemas.base import BIGINT_MAXIMUM, Integer, PageQuery, QueryInteger, Schema, Text, Time
from models.operations.usage import UsageEvent
from models.queries.usage_reports import Group
from models.tables.usage import Metric, TokenPart

MAXIMUM_EVENTS = 1_000


class UsageEventSchema(Schema):
    external_id = Text(required=True, maximum=200, trim=False)
    metric = fields.Enum(Metric, by_value=fields.String, required=True)
    quantity = Integer(
        required=True,
        minimum=-BIGINT_MAXIMUM,  # whose opposite fits too, as a correction needs it
        metadata={"description": "Positive; for storage_bytes the change of the level."},
    )
    occurred_at = Time()
    workspace_id = fields.UUID(metadata={"description": "Where it was used."})
    model = Text(maximum=200, metadata={"description": "That the tokens were used of."})
    part = fields.Enum(
        TokenPart,
        by_value=fields.String,
        metadata={
            "description": "Of a model call's tokens; disjoint, so `cached_input` is not in `input` too."
        },
    )

    @validates_schema
    def check_tokens(self, data: dict[str, Any], **_: Any) -> None:
        for name in ("model", "part"):
            if name in data and data["metric"] is not Metric.llm_tokens_used:
                raise ValidationError("Only llm_tokens_used has this.", name)

    @validates_schema
    def check_sign(self, data: dict[str, Any], **_: Any) -> None:
        if data["quantity"] == 0 or (data["quantity"] < 0 and data["metric"] is not Metric.storage_bytes):
            raise ValidationError(
                "This must be a positive integer; only storage_bytes can change downwards.", "quantity"
            )

    @post_load
    def make_event(self, data: dict[str, Any], **_: Any) -> UsageEvent:
        return UsageEvent(**data)


class UsageReportSchema(Schema):
    events = fields.List(
        fields.Nested(UsageEventSchema), required=True, validate=validate.Length(1, MAXIMUM_EVENTS)
    )


class ReportedSchema(Schema):
    accepted = fields.Integer()
    duplicates = fields.Integer()


class CountersSchema(Schema):
    tasks_created = fields.Integer()
    tasks_completed = fields.Integer()
    llm_tokens_used = fields.Integer()
    api_calls = fields.Integer()
    storage_bytes = fields.Integer()


class DaySchema(CountersSchema):
    date = fields.Date()


class DaysQuery(PageQuery):
    since = fields.Date(
        data_key="from", load_default=None, metadata={"description": "Default: the month's first day."}
    )
    until = fields.Date(data_key="to", load_default=None, metadata={"description": "Default: today (UTC)."})


class MonthQuery(Schema):
    year = QueryInteger(required=True, validate=validate.Range(2000, 9998))
    month = QueryInteger(required=True, validate=validate.Range(1, 12))


class UnsettledSchema(Schema):
    count = fields.Integer()
    quantity = fields.Integer()


class MonthSchema(CountersSchema):
    year = fields.Integer()
    month = fields.Integer()
    unsettled = fields.Nested(
        UnsettledSchema,
        metadata={
            "description": "Reservations of the month that expired unsettled, and how many tokens they may have used at the most: "
            "in no other figure."
        },
    )


class StorageDaySchema(Schema):
    date = fields.Date()
    close = fields.Integer(metadata={"description": "The level in bytes at the day's close; today's so far."})
    peak = fields.Integer(metadata={"description": "The highest level of the day."})
    byte_seconds = fields.Integer(
        metadata={
            "description": "Each level by the seconds that it lasted, summed, to the whole byte-second."
        }
    )


class BreakdownQuery(DaysQuery):
    metric = fields.Enum(Metric, by_value=fields.String, load_default=None)
    by = fields.List(
        fields.Enum(Group, by_value=fields.String),
        data_key="group_by",
        load_default=(Group.user,),
        validate=validate.Length(1, len(Group)),
        metadata={"description": "One group, or several by repeating the parameter."},
    )


class BreakdownSchema(Schema):
    """Of the groups, those that were asked for."""

    metric = fields.String()
    quantity = fields.Integer(metadata={"description": "Of storage_bytes the net change."})
    user_id = fields.UUID(allow_none=True)
    user_name = fields.String(allow_none=True)
    agent_id = fields.UUID(allow_none=True)
    agent_name = fields.String(allow_none=True)
    api_key_id = fields.UUID(allow_none=True)
    api_key_name = fields.String(allow_none=True)
    workspace_id = fields.UUID(
        allow_none=True,
        metadata={"description": "None also for private workspaces that don't list the caller."},
    )
    workspace_name = fields.String(allow_none=True)
    model = fields.String(allow_none=True)
    part = fields.String(allow_none=True)
    date = fields.Date()
    ledger = fields.String(
        metadata={"description": "The path and query of the ledger rows that it is the sum of."}
    )


class ProjectionSchema(Schema):
    used = fields.Integer()
    linear = fields.Integer(metadata={"description": "By the month's end, at the pace of the month so far."})
    last_7_days = fields.Integer(
        metadata={"description": "By the month's end, at the pace of the seven full days before today."}
    )


class ProjectionsSchema(Schema):
    year = fields.Integer()
    month = fields.Integer()
    metrics = fields.Dict(keys=fields.String(), values=fields.Nested(ProjectionSchema))


class CountedSchema(Schema):
    ledger = fields.Integer()
    breakdown = fields.Integer()
    daily = fields.Integer()


class ProofSchema(Schema):
    year = fields.Integer()
    month = fields.Integer()
    valid = fields.Boolean()
    metrics = fields.Dict(
        keys=fields.String(),
        values=fields.Nested(CountedSchema),
        metadata={
            "description": "Each metric's month, counted in three ways; of storage_bytes the net change."
        },
    )
