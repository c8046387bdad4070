from marshmallow import INCLUDE, fields

from api.schemas.base import Schema


class ProblemSchema(Schema):
    """RFC 9457, with our stable `code`; some codes bring members of their own, and more may come."""

    class Meta:
        unknown = INCLUDE

    type = fields.String(required=True)
    title = fields.String(required=True)
    status = fields.Integer(required=True)
    code = fields.String(required=True, metadata={"description": "Stable; what a client decides by."})
    detail = fields.String(required=True, metadata={"description": "What to do about it, for people."})
    request_id = fields.String(required=True)
    errors = fields.Dict(keys=fields.String(), metadata={"description": "By field; `_body` is the whole."})
    missing = fields.String(metadata={"description": "With permission_denied: the permission, or `owner`."})
