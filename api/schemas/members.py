from typing import Any

from marshmallow import ValidationError, fields, validates_schema

from api.schemas.base import Email, Schema, Text, Time


class MemberUserSchema(Schema):
    id = fields.UUID()
    email = fields.String()
    name = fields.String()


class MemberSchema(Schema):
    user = fields.Nested(MemberUserSchema)
    role = fields.String()
    joined_at = Time()
    suspended_at = Time(allow_none=True)


class MemberCreateSchema(Schema):
    user_id = fields.UUID()
    email = Email()
    role = Text(required=True, maximum=50)

    @validates_schema
    def name_one_user(self, data: dict[str, Any], **_: Any) -> None:
        if ("user_id" in data) == ("email" in data):
            raise ValidationError("Give either user_id or email.", "user_id")


class MemberRoleSchema(Schema):
    role = Text(required=True, maximum=50)
