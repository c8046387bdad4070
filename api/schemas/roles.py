import unicodedata
from typing import Any

from marshmallow import ValidationError, fields, validate

from api.schemas.base import Permissions, Schema, Text

LONGEST_NAME = 50


class RoleName(Text):
    """Letters, digits and `-_. ` between them, in composed form: it stands in paths, and people must tell it from others."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(maximum=LONGEST_NAME, **kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        name = unicodedata.normalize("NFC", super()._deserialize(value, attr, data, **kwargs))
        if not name[:1].isalnum() or not all(each.isalnum() or each in "-_. " for each in name):
            raise ValidationError("Letters and digits, with - _ . and spaces between them.")
        return name


class RoleSchema(Schema):
    name = fields.String()
    built_in = fields.Boolean()
    permissions = fields.List(fields.String())
    members = fields.Integer(metadata={"description": "How many have it in the team."})


class RoleCreateSchema(Schema):
    name = RoleName(required=True)
    permissions = Permissions(required=True)


class RoleUpdateSchema(Schema):
    name = RoleName()
    permissions = Permissions()


class ReplacementQuery(Schema):
    replacement = fields.String(
        load_default=None,
        validate=validate.Length(1, LONGEST_NAME),
        metadata={"description": "The role that everyone who has this one gets."},
    )
