import base64
from typing import Any

from marshmallow import fields, validate

from api.schemas.base import QueryInteger, Said, Schema, Time
from models.queries.proof import Kind


class Hex(fields.String):
    """Bytes, shown in lower-case hexadecimal digits."""

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> Any:
        return value.hex() if isinstance(value, bytes) else value


class Base64(fields.String):
    """Bytes, shown in base64 (RFC 4648, 4)."""

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> Any:
        return base64.b64encode(value).decode() if isinstance(value, bytes) else value


class CheckpointSchema(Schema):
    team_id = fields.UUID()
    seq = fields.Integer(metadata={"description": "The row up to which the log is signed."})
    hash = Hex(metadata={"description": "That row's hash, in hexadecimal digits."})
    key_id = fields.String(metadata={"description": "Of the key that signed; GET /signing-keys shows it."})
    signature = Base64(metadata={"description": "Ed25519, 64 bytes in base64."})
    created_at = Time()


class SigningKeySchema(Schema):
    id = fields.String(
        metadata={"description": "The first 16 hexadecimal digits of the SHA-256 of the key's 32 bytes."}
    )
    public_key = Base64(metadata={"description": "Ed25519 (RFC 8032), 32 bytes in base64."})
    created_at = Time()


class LogProblemSchema(Schema):
    seq = fields.Integer()
    until_seq = fields.Integer(
        allow_none=True, metadata={"description": "The last one, where several rows in a row are missing."}
    )
    problem = fields.String(metadata={"enum": [kind.value for kind in Kind]})
    detail = Said()


class VerificationSchema(Schema):
    valid = fields.Boolean()
    first_seq = fields.Integer(
        allow_none=True, metadata={"description": "The first row that was checked; null without rows."}
    )
    last_seq = fields.Integer(allow_none=True)
    head = Hex(metadata={"description": "The hash of the log's last row, in hexadecimal digits."})
    checkpoint = fields.Nested(
        CheckpointSchema,
        allow_none=True,
        metadata={"description": "The newest checkpoint that was passed and holds; null for none."},
    )
    problems = fields.List(
        fields.Nested(LogProblemSchema), metadata={"description": "Empty if valid; the first 100 if not."}
    )


class VerifyQuery(Schema):
    since_seq = QueryInteger(
        load_default=None, validate=validate.Range(min=1), metadata={"description": "From this row on."}
    )
    until_seq = QueryInteger(
        load_default=None,
        validate=validate.Range(min=1),
        metadata={"description": "Up to this row, inclusive."},
    )
