from api.schemas.base import Schema, Text, Time
from api.schemas.users import LONGEST_CODE, PresentPassword


class EraseSchema(Schema):
    password = PresentPassword(required=True)
    code = Text(
        maximum=LONGEST_CODE,
        metadata={"description": "Of the second factor, or a recovery code; for who has enabled it."},
    )


class ErasureSchema(Schema):
    requested_at = Time()
