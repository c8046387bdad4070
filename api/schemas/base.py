"""What every schema stands on: strict bodies, and fields that refuse what a column can't hold."""

from functools import cache
from typing import Any

from marshmallow import RAISE, ValidationError, fields, validate
from marshmallow import Schema as MarshmallowSchema

from models import json_text

BIGINT_MAXIMUM = 2**63 - 1


class Schema(MarshmallowSchema):
    """A body or a query with a field that we don't know is refused: a typo must not pass for a choice."""

    class Meta:
        unknown = RAISE


class Text(fields.String):
    """Text without NUL or broken surrogates, of `minimum` to `maximum` characters, once it is trimmed (if it is)."""

    def __init__(self, *, maximum: int, minimum: int = 1, trim: bool = True, **kwargs: Any) -> None:
        super().__init__(validate=validate.Length(minimum, maximum), **kwargs)
        self.trim = trim

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        text = super()._deserialize(value, attr, data, **kwargs)
        if problem := json_text.problem_with_text(text):
            raise ValidationError(problem)
        return text.strip() if self.trim else text


class Email(fields.Email):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(validate=validate.Length(max=320), **kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        text = super()._deserialize(value, attr, data, **kwargs)
        if problem := json_text.problem_with_text(text):
            raise ValidationError(problem)
        return text


class Integer(fields.Integer):
    """A JSON integer, within bigint; neither "5" nor 5.0 nor true."""

    def __init__(
        self, *, minimum: int = -BIGINT_MAXIMUM - 1, maximum: int = BIGINT_MAXIMUM, **kwargs: Any
    ) -> None:
        super().__init__(strict=True, validate=validate.Range(minimum, maximum), **kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.make_error("invalid", input=value)
        return super()._deserialize(value, attr, data, **kwargs)


class JsonValue(fields.Raw):
    """Any JSON value that jsonb holds, at most 32 levels deep."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if problem := json_text.problem_with(value):
            raise ValidationError(problem)
        return super()._deserialize(value, attr, data, **kwargs)


class Time(fields.AwareDateTime):
    """RFC 3339 with an offset; shown in UTC with a Z."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(format="iso", **kwargs)

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> Any:
        text = super()._serialize(value, attr, obj, **kwargs)
        return text.replace("+00:00", "Z") if isinstance(text, str) else text


class PageQuery(Schema):
    limit = fields.Integer(
        load_default=50, validate=validate.Range(1, 200), metadata={"description": "Rows a page."}
    )
    cursor = fields.String(load_default=None, metadata={"description": "`next_cursor` of the page before."})


@cache
def page_of(item: type[MarshmallowSchema]) -> type[MarshmallowSchema]:
    """The one envelope of every list."""
    return Schema.from_dict(
        {
            "items": fields.List(fields.Nested(item), required=True),
            "next_cursor": fields.String(required=True, allow_none=True),
        },
        name=item.__name__.removesuffix("Schema") + "Page",
    )
