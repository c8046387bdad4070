from api.schemas.base import Email, Schema, Text
from api.schemas.users import LONGEST_TOKEN, NewPassword, PresentPassword


class PasswordResetRequestSchema(Schema):
    email = Email(required=True)


class PasswordResetRequestedSchema(Schema):
    """Says nothing, whoever has the address."""


class PasswordResetSchema(Schema):
    token = Text(required=True, maximum=LONGEST_TOKEN)
    password = NewPassword(required=True)


class PasswordChangeSchema(Schema):
    current_password = PresentPassword(required=True)
    password = NewPassword(required=True)
