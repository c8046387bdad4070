from marshmallow import fields

from api.schemas.base import Schema, Text
from api.schemas.users import LONGEST_CODE, PresentPassword


class SecondFactorSchema(Schema):
    enabled = fields.Boolean()
    recovery_codes_left = fields.Integer()


class SecondFactorBeginSchema(Schema):
    password = PresentPassword(required=True)


class SecondFactorSetupSchema(Schema):
    secret = fields.String(metadata={"description": "Base32, for the device. Shown once."})
    uri = fields.String(metadata={"description": "The same as an otpauth:// link, for a QR code."})


class CodeSchema(Schema):
    code = Text(required=True, maximum=LONGEST_CODE)


class SecondFactorDisableSchema(CodeSchema):
    password = PresentPassword(required=True)


class RecoveryCodesSchema(Schema):
    recovery_codes = fields.List(
        fields.String(), metadata={"description": "Each stands in for a code once. Shown once."}
    )
