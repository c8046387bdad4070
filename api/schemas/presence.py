from marshmallow import fields

from api.schemas.base import Schema, Time


class TicketSchema(Schema):
    ticket = fields.String(metadata={"description": "Shown once: `/ws/<team_id>?ticket=…` opens one socket."})
    expires_at = Time()


class PresenceSchema(Schema):
    user_id = fields.UUID()
    state = fields.String(metadata={"description": "`online`, `away`, or one of the client's own."})
    devices = fields.Integer(metadata={"description": "How many connections the person has."})
