from typing import Any

from marshmallow import fields, post_dump, pre_dump, validate

from api.schemas.base import Email, PageQuery, Schema, Text, Time
from models.operations.invitations import Invited
from models.queries import invitations
from models.tables import Invitation
from models.tables.invitations import ACCEPTED, EXPIRED, PENDING, REVOKED

STATES = (PENDING, ACCEPTED, REVOKED, EXPIRED)
MOST_AT_ONCE = 100
LONGEST_TOKEN = 200


class InvitationSchema(Schema):
    id = fields.UUID()
    team_id = fields.UUID()
    email = fields.String()
    role = fields.String()
    status = fields.Function(invitations.status_of, metadata={"type": "string", "enum": list(STATES)})
    invited_by = fields.UUID()
    expires_at = Time()
    created_at = Time()
    updated_at = Time()


class NewInvitationSchema(InvitationSchema):
    token = fields.String(metadata={"description": "Shown once; accepts the invitation."})

    @pre_dump
    def its_row(self, invited: Invited, **_: Any) -> Invitation:
        return invited.invitation

    @post_dump(pass_original=True)
    def with_token(self, shown: dict[str, Any], invited: Invited, **_: Any) -> dict[str, Any]:
        return {**shown, "token": invited.token}


class InvitationCreateSchema(Schema):
    email = Email(required=True)
    role = Text(required=True, maximum=50)


class BulkInvitationSchema(Schema):
    invitations = fields.List(
        fields.Nested(InvitationCreateSchema),
        required=True,
        validate=validate.Length(1, MOST_AT_ONCE),
    )


class BulkResultSchema(Schema):
    email = fields.String()
    invitation = fields.Nested(NewInvitationSchema, allow_none=True)
    error = fields.Dict(
        allow_none=True,
        metadata={"description": "`code`, `detail` and what else the error has; null if invited."},
    )


class BulkResultsSchema(Schema):
    results = fields.List(fields.Nested(BulkResultSchema), metadata={"description": "In the given order."})


class InvitationsQuery(PageQuery):
    status = fields.List(
        fields.String(validate=validate.OneOf(STATES)),
        load_default=(),
        metadata={"description": "One state, or several by repeating the parameter."},
    )


class TokenSchema(Schema):
    token = Text(required=True, maximum=LONGEST_TOKEN)


class InvitedTeamSchema(Schema):
    id = fields.UUID()
    name = fields.String()


class MyInvitationSchema(Schema):
    """As the invited sees it."""

    id = fields.UUID(attribute="invitation.id")
    team = fields.Nested(InvitedTeamSchema)
    email = fields.String(attribute="invitation.email")
    role = fields.String(attribute="invitation.role")
    status = fields.Function(
        lambda view: invitations.status_of(view.invitation), metadata={"type": "string", "enum": list(STATES)}
    )
    invited_by = fields.String(attribute="inviter.name", metadata={"description": "A name."})
    acceptable = fields.Boolean(
        metadata={
            "description": "Whether it can be accepted without its token: once the address is verified."
        }
    )
    expires_at = Time(attribute="invitation.expires_at")
    created_at = Time(attribute="invitation.created_at")


class PreviewSchema(Schema):
    """All that an invitation's token shows to whoever has it."""

    team_name = fields.String()
    expires_at = Time()
