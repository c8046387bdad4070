from typing import Any

from marshmallow import ValidationError, fields, post_dump, pre_dump, validate

from api.schemas.base import Boolean, Integer, PageQuery, Schema, Text, Time
from models.destinations import LONGEST_URL, RefusedDestination, parse
from models.events.catalogue import CATALOGUE
from models.operations.webhooks import FAILING, GONE, NO_ACCESS, NewSecret
from models.tables import Webhook
from models.tables.webhooks import DEAD, DELIVERED, PENDING


class WebhookUrl(fields.String):
    """A URL that something could be sent to; its host is looked up later, outside of the transaction."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(metadata={"format": "uri", "maxLength": LONGEST_URL}, **kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        text = super()._deserialize(value, attr, data, **kwargs)
        try:
            parse(text)
        except RefusedDestination as error:
            raise ValidationError(str(error)) from error
        return text


class Actions(fields.List[Any]):
    """A set of the event catalogue's actions, at least one; null: all."""

    def __init__(self, **kwargs: Any) -> None:
        known = validate.OneOf(sorted(CATALOGUE), error="There is no action {input}.")
        super().__init__(
            fields.String(validate=known), validate=validate.Length(1, 200), allow_none=True, **kwargs
        )


class WebhookSchema(Schema):
    id = fields.UUID()
    team_id = fields.UUID()
    user_id = fields.UUID(metadata={"description": "Who answers for it: it gets what they may see."})
    url = fields.String()
    description = fields.String(allow_none=True)
    actions = fields.List(fields.String(), allow_none=True, metadata={"description": "null: all."})
    enabled = Boolean()
    disabled_at = Time(allow_none=True)
    disabled_reason = fields.String(
        allow_none=True,
        metadata={
            "enum": [FAILING, GONE, NO_ACCESS, None],
            "description": "Why it was disabled by itself; null: a person did it.",
        },
    )
    delivered_seq = fields.Integer(
        metadata={"description": "The log up to here is delivered, given up, or not for this webhook."}
    )
    replay_seq = fields.Integer(
        allow_none=True, metadata={"description": "As `delivered_seq`, of the replay under way."}
    )
    replay_until = fields.Integer(allow_none=True)
    failing_since = Time(
        allow_none=True, metadata={"description": "The first failure since the last success."}
    )
    last_error = fields.String(allow_none=True)
    previous_secret_expires_at = Time(
        allow_none=True, metadata={"description": "Until then the secret before the last rotation signs too."}
    )
    created_at = Time()
    updated_at = Time()


class NewWebhookSchema(WebhookSchema):
    secret = fields.String(
        attribute="not the row's, which is encrypted",
        metadata={"description": "Signs what is sent. Shown once."},
    )

    @pre_dump
    def its_row(self, made: NewSecret, **_: Any) -> Webhook:
        return made.row

    @post_dump(pass_original=True)
    def with_secret(self, shown: dict[str, Any], made: NewSecret, **_: Any) -> dict[str, Any]:
        return {**shown, "secret": made.secret}


class WebhookUpdateSchema(Schema):
    url = WebhookUrl()
    description = Text(maximum=1_000, minimum=0, allow_none=True)
    actions = Actions()
    enabled = Boolean()


class WebhookCreateSchema(WebhookUpdateSchema):
    url = WebhookUrl(required=True)


class ReplaySchema(Schema):
    from_seq = Integer(required=True, minimum=1)
    until_seq = Integer(minimum=1, metadata={"description": "Up to the last one sent, unless given."})


class DeliverySchema(Schema):
    id = fields.UUID()
    webhook_id = fields.UUID()
    seq = fields.Integer()
    event_id = fields.UUID(metadata={"description": "The `webhook-id` of every attempt."})
    action = fields.String()
    state = fields.String(metadata={"enum": [PENDING, DELIVERED, DEAD]})
    attempts = fields.Integer()
    last_status = fields.Integer(allow_none=True, metadata={"description": "HTTP's; null: no answer."})
    last_error = fields.String(
        allow_none=True,
        metadata={
            "description": "`status`, `redirect`, `timeout`, `connection`, `tls`, `protocol`, `unresolvable`, "
            "`address_refused`; `withheld` or `replaced` for what is not sent any more."
        },
    )
    duration_ms = fields.Integer(allow_none=True)
    next_attempt_at = Time(allow_none=True)
    created_at = Time()
    attempted_at = Time()


class DeliveriesQuery(PageQuery):
    state = fields.String(load_default=None, validate=validate.OneOf([PENDING, DELIVERED, DEAD]))


class TestSchema(Schema):
    delivered = Boolean()
    status = fields.Integer(allow_none=True)
    error = fields.String(allow_none=True)
    duration_ms = fields.Integer()
