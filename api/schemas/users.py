from marshmallow import fields

from api.schemas.base import Email, Schema, Text, Time
from models.access import passwords


class UserSchema(Schema):
    id = fields.UUID()
    email = fields.String()
    name = fields.String()
    created_at = Time()


class RegisterSchema(Schema):
    email = Email(required=True)
    # Not trimmed: a space is as good a character of a password as any.
    password = Text(
        required=True, minimum=passwords.MINIMUM_LENGTH, maximum=passwords.MAXIMUM_LENGTH, trim=False
    )
    name = Text(required=True, maximum=255)


class LoginSchema(Schema):
    email = Text(required=True, maximum=320)
    password = Text(required=True, maximum=passwords.MAXIMUM_LENGTH, trim=False)


class SignedInSchema(Schema):
    user = fields.Nested(UserSchema)
    token = fields.String()
    expires_at = Time()


class ProfileSchema(Schema):
    name = Text(required=True, maximum=255)


class SessionSchema(Schema):
    id = fields.UUID(attribute="row.id")
    ip_address = fields.String(attribute="row.ip_address", allow_none=True)
    user_agent = fields.String(attribute="row.user_agent", allow_none=True)
    created_at = Time(attribute="row.created_at")
    last_used_at = Time(attribute="row.last_used_at")
    expires_at = Time(attribute="row.expires_at")
    current = fields.Boolean(metadata={"description": "Whether it is the session that asks."})
