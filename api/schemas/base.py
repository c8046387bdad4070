"""What every schema stands on: strict bodies, and fields that refuse what a column can't hold."""

import re
import unicodedata
from collections.abc import Callable, Mapping, Set
from datetime import UTC, datetime
from functools import cache, cached_property
from operator import attrgetter
from typing import Any
from uuid import UUID

from marshmallow import RAISE, ValidationError, fields, missing, validate
from marshmallow import Schema as MarshmallowSchema

from api.problem_texts import said
from models import json_text
from models.access.emails import normalize_email
from models.access.permissions import Permission

BIGINT_MAXIMUM = 2**63 - 1
LONGEST_EMAIL = 320
RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)\Z", re.ASCII)


class Schema(MarshmallowSchema):
    """A body or a query with a field that we don't know is refused: a typo must not pass for a choice."""

    class Meta:
        unknown = RAISE

    def _serialize(self, obj: Any, *, many: bool = False) -> Any:
        """
        As marshmallow's own, which spends most of a list's time on asking each value how it is to be got and written. What
        orjson (api/json.py) writes as the field would goes to it as it is; the rest goes marshmallow's way.
        """
        if many and obj is not None:
            return [self._serialize(each) for each in obj]
        from_dict = isinstance(obj, dict)
        written = self.dict_class()
        for name, key, get, written_by_orjson, field, attribute in self._plan:
            try:
                value = obj[key] if from_dict else get(obj)
            except (AttributeError, KeyError):
                value = missing
            if type(value) not in written_by_orjson:
                value = field.serialize(attribute, obj, accessor=self.get_attribute)
                if value is missing:
                    continue
            written[name] = value
        return written

    @cached_property
    def _plan(self) -> list[tuple[str, str, Callable[[Any], Any], Set[type], Any, str]]:
        """Of each field its name, where and how its value is got, the types that need no field, the field, and its attribute."""
        return [
            (
                field.data_key or attribute,
                key := field.attribute or attribute,
                attrgetter(key),
                WRITTEN_BY_ORJSON.get(type(field), set()),
                field,
                attribute,
            )
            for attribute, field in self.dump_fields.items()
        ]


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
        super().__init__(validate=validate.Length(max=LONGEST_EMAIL), **kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if isinstance(value, str):
            value = unicodedata.normalize("NFC", value)  # composed, as the library's pattern wants letters
        text = super()._deserialize(value, attr, data, **kwargs)
        if problem := json_text.problem_with_text(text):
            raise ValidationError(problem)
        if len(normalize_email(text)) > LONGEST_EMAIL:  # one character can normalise to eighteen
            raise ValidationError(f"Longer than maximum length {LONGEST_EMAIL}.")
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


class Boolean(fields.Boolean):
    """JSON's true or false; neither "true" nor 1."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if not isinstance(value, bool):
            raise self.make_error("invalid", input=value)
        return value


class Permissions(fields.List[Any]):
    """A set of permissions by name, at least one."""

    def __init__(self, **kwargs: Any) -> None:
        names = [permission.value for permission in Permission]
        known = validate.OneOf(names, error="There is no permission {input}; GET /permissions lists them.")
        super().__init__(fields.String(validate=known), validate=validate.Length(1, len(names)), **kwargs)


class JsonValue(fields.Raw):
    """Any JSON value that jsonb holds, at most 32 levels deep."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if problem := json_text.problem_with(value):
            raise ValidationError(problem)
        return super()._deserialize(value, attr, data, **kwargs)


class Time(fields.AwareDateTime):
    """RFC 3339 with an offset; read into UTC and shown in UTC with a Z."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(format="iso", **kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        try:
            if not RFC_3339.match(value):  # the library takes other notations too, and NUL at the end
                raise ValidationError("Not a time of RFC 3339 with an offset, like 2026-01-31T12:00:00Z.")
            return super()._deserialize(value.upper(), attr, data, **kwargs).astimezone(UTC)
        except (TypeError, OverflowError) as error:  # no text, or in UTC outside the years 1 to 9999
            raise self.make_error("invalid", input=value, obj_type=self.OBJ_TYPE) from error

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> Any:
        text = super()._serialize(value, attr, obj, **kwargs)
        return text.replace("+00:00", "Z") if isinstance(text, str) else text


class Said(fields.String):
    """A text of ours, in the language of whoever asks."""

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> Any:
        text = super()._serialize(value, attr, obj, **kwargs)
        return said(text) if isinstance(text, str) else text


class QueryInteger(fields.Integer):
    """Decimal digits, and nothing else that `int` would take: neither "1_0" nor " 10 "."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if not re.fullmatch(r"-?[0-9]{1,18}", str(value)):
            raise self.make_error("invalid", input=value)
        return super()._deserialize(value, attr, data, **kwargs)


class PageQuery(Schema):
    limit = QueryInteger(
        load_default=50, validate=validate.Range(1, 200), metadata={"description": "Rows a page."}
    )
    cursor = fields.String(load_default=None, metadata={"description": "`next_cursor` of the page before."})


_NONE, _ANY = type(None), {str, int, bool, dict, list, type(None)}
WRITTEN_BY_ORJSON: Mapping[type[fields.Field[Any]], Set[type]] = {
    fields.String: {str, _NONE},
    Text: {str, _NONE},
    Email: {str, _NONE},
    fields.Integer: {int, _NONE},
    Integer: {int, _NONE},
    fields.Boolean: {bool, _NONE},
    Boolean: {bool, _NONE},
    fields.UUID: {UUID, str, _NONE},
    Time: {datetime, _NONE},
    fields.Raw: _ANY,
    JsonValue: _ANY,
}
"""By field, the types of values that it would write as orjson does."""


@cache
def page_of(item: type[MarshmallowSchema], both_ways: bool = False) -> type[MarshmallowSchema]:
    """The one envelope of every list; one that can be read both ways has a cursor for each."""
    cursors = ("next_cursor", "previous_cursor") if both_ways else ("next_cursor",)
    return Schema.from_dict(
        {
            "items": fields.List(fields.Nested(item), required=True),
            **{name: fields.String(required=True, allow_none=True) for name in cursors},
        },
        name=item.__name__.removesuffix("Schema") + "Page",
    )
