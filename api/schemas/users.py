from typing import Any

from marshmallow import fields

from api.schemas.base import Boolean, Email, Schema, Text, Time
from models.access import passwords

LONGEST_TOKEN = 200
LONGEST_CODE = 64


class NewPassword(Text):
    """Not trimmed: a space is as good a character of a password as any."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            minimum=passwords.MINIMUM_LENGTH, maximum=passwords.MAXIMUM_LENGTH, trim=False, **kwargs
        )


class PresentPassword(Text):
    """One that is compared alone, so that no rule for new ones matters."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(maximum=passwords.MAXIMUM_LENGTH, trim=False, **kwargs)


class UserSchema(Schema):
    id = fields.UUID()
    email = fields.String()
    email_verified = fields.Function(
        lambda user: user.email_verified_at is not None,
        metadata={"type": "boolean", "description": "Whether the person proved to read this address."},
    )
    name = fields.String()
    created_at = Time()


class OpensSessionSchema(Schema):
    cookie = Boolean(
        load_default=False,
        metadata={
            "description": "For browsers: the token comes as an HttpOnly cookie, and not in the answer."
        },
    )


class RegisterSchema(OpensSessionSchema):
    email = Email(required=True)
    password = NewPassword(required=True)
    name = Text(required=True, maximum=255)


class LoginSchema(OpensSessionSchema):
    email = Text(required=True, maximum=320)
    password = PresentPassword(required=True)
    code = Text(
        maximum=LONGEST_CODE,
        metadata={"description": "Of the second factor, or a recovery code; for who has enabled it."},
    )


class SignedInSchema(Schema):
    user = fields.Nested(UserSchema)
    token = fields.String()
    expires_at = Time()


class ProfileSchema(Schema):
    name = Text(required=True, maximum=255)


class VerifyEmailSchema(Schema):
    token = Text(required=True, maximum=LONGEST_TOKEN)


class SessionSchema(Schema):
    id = fields.UUID(attribute="row.id")
    ip_address = fields.String(attribute="row.ip_address", allow_none=True)
    user_agent = fields.String(attribute="row.user_agent", allow_none=True)
    created_at = Time(attribute="row.created_at")
    last_used_at = Time(attribute="row.last_used_at")
    expires_at = Time(attribute="row.expires_at")
    current = fields.Boolean(metadata={"description": "Whether it is the session that asks."})


class AccountEventSchema(Schema):
    id = fields.UUID()
    action = fields.String()
    details = fields.Raw()
    count = fields.Integer(metadata={"description": "How often, where repeats within a minute are summed."})
    ip_address = fields.String(allow_none=True)
    user_agent = fields.String(allow_none=True)
    request_id = fields.String(allow_none=True)
    created_at = Time()
