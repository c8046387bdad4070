"""Invitations: a team's, and those that wait for whoever asks."""

from typing import Any
from uuid import UUID

from api.blueprint import Blueprint
from api.limits import limit_sign_in
from api.pagination import envelope, page_from
from api.problem_texts import said
from api.resource import PUBLIC, SIGNED_IN, Resource, requires
from api.schemas.base import PageQuery
from api.schemas.invitations import (
    BulkInvitationSchema,
    BulkResultsSchema,
    InvitationCreateSchema,
    InvitationSchema,
    InvitationsQuery,
    MyInvitationSchema,
    NewInvitationSchema,
    PreviewSchema,
    TokenSchema,
)
from api.schemas.teams import TeamSchema
from models.access.credentials import hash_secret
from models.access.permissions import Permission
from models.errors import DomainError
from models.operations import invitations as operations
from models.operations.invitations import Invited, Wanted
from models.queries import invitations, members, teams
from models.queries.teams import TeamView
from models.tables import Invitation as InvitationRow
from models.tables import Team

blueprint = Blueprint("invitations", "Seats kept for addresses until they are accepted")


class InvitationResource(Resource):
    shown_as = InvitationSchema

    def locked(self, invitation_id: UUID) -> tuple[Team, InvitationRow]:
        """The team's row first: every change of a membership takes that one lock."""
        team = teams.get(self.session, self.access, for_update=True)
        invitation = invitations.get(self.session, self.access, invitation_id, for_update=True)
        self.check_match(invitation)
        return team, invitation

    def with_token(self, invited: Invited) -> Invited:
        self.secret_of = invited.invitation.id
        return invited


@blueprint.route("/teams/<uuid:team_id>/invitations")
class Invitations(InvitationResource):
    @requires(Permission.members_create)
    @blueprint.query(InvitationsQuery)
    @blueprint.lists(InvitationSchema)
    def get(self, query: dict[str, Any]) -> dict[str, Any]:
        """The team's invitations, newest first."""
        return envelope(invitations.in_team(self.session, self.access, page_from(query), **query))

    @requires(Permission.members_create)
    @blueprint.body(InvitationCreateSchema)
    @blueprint.shows(NewInvitationSchema, 201)
    def post(self, body: dict[str, str]) -> Invited:
        """Invite an address, in a role that grants no more than the caller has. The same answer whether or not it has an account."""
        team = teams.get(self.session, self.access, for_update=True)
        return self.with_token(operations.create(self.session, self.access, team, **body))


@blueprint.route("/teams/<uuid:team_id>/invitations/bulk")
class BulkInvitations(Resource):
    @requires(Permission.members_create)
    @blueprint.body(BulkInvitationSchema)
    @blueprint.shows(BulkResultsSchema)
    def post(self, body: dict[str, Any]) -> dict[str, Any]:
        """Invite up to a hundred addresses; each succeeds or fails by itself, and says why."""
        team = teams.get(self.session, self.access, for_update=True)
        wanted = [Wanted(**each) for each in body["invitations"]]
        outcomes = operations.create_each(self.session, self.access, team, wanted)
        self.secret_of = team.id
        self.refused = [outcome for outcome in outcomes if isinstance(outcome, DomainError)]
        return {
            "results": [
                {"email": each.email, **_outcome(outcome)}
                for each, outcome in zip(wanted, outcomes, strict=True)
            ]
        }


@blueprint.route("/teams/<uuid:team_id>/invitations/<uuid:invitation_id>")
class Invitation(InvitationResource):
    @requires(Permission.members_create)
    @blueprint.shows(InvitationSchema)
    def get(self, invitation_id: UUID) -> InvitationRow:
        """One invitation."""
        return invitations.get(self.session, self.access, invitation_id)

    @requires(Permission.members_create)
    @blueprint.shows_nothing()
    def delete(self, invitation_id: UUID) -> None:
        """Revoke it; its seat is free and its token is dead."""
        team, invitation = self.locked(invitation_id)
        operations.revoke(self.session, self.access, team, invitation)


@blueprint.route("/teams/<uuid:team_id>/invitations/<uuid:invitation_id>/resend")
class Resend(InvitationResource):
    @requires(Permission.members_create)
    @blueprint.shows(NewInvitationSchema)
    def post(self, invitation_id: UUID) -> Invited:
        """Send it again, for another seven days, also if it expired. The new token ends the old one."""
        team, invitation = self.locked(invitation_id)
        return self.with_token(operations.resend(self.session, self.access, team, invitation))


class Accepting(Resource):
    shown_as = TeamSchema

    def entered(self, team: Team) -> TeamView:
        return TeamView(team, members.role_of(self.session, team.id, self.actor.user_id) or "")


@blueprint.route("/invitations/accept")
class Accept(Accepting):
    decorators = [limit_sign_in]

    @requires(SIGNED_IN)
    @blueprint.body(TokenSchema)
    @blueprint.shows(TeamSchema)
    @blueprint.refuses(403, 404)
    def post(self, body: dict[str, str]) -> TeamView:
        """Become a member by an invitation's token, signed in under the invited address."""
        return self.entered(operations.accept(self.session, self.actor, **body))


@blueprint.route("/invitations/preview")
class Preview(Resource):
    decorators = [limit_sign_in]

    @requires(PUBLIC)
    @blueprint.body(TokenSchema)
    @blueprint.shows(PreviewSchema)
    @blueprint.refuses(404)
    def post(self, body: dict[str, str]) -> dict[str, Any]:
        """What a pending invitation is to, for whoever has its token: before signing in or registering."""
        invitation, team = invitations.team_of(self.session, hash_secret(body["token"]))
        return {"team_name": team.name, "expires_at": invitation.expires_at}


@blueprint.route("/me/invitations")
class MyInvitations(Resource):
    @requires(SIGNED_IN)
    @blueprint.query(PageQuery)
    @blueprint.lists(MyInvitationSchema)
    def get(self, query: dict[str, Any]) -> dict[str, Any]:
        """The pending invitations of one's address, newest first."""
        return envelope(invitations.mine(self.session, self.actor, page_from(query)))


@blueprint.route("/me/invitations/<uuid:invitation_id>/accept")
class AcceptWaiting(Accepting):
    @requires(SIGNED_IN)
    @blueprint.shows(TeamSchema)
    @blueprint.refuses(403)
    def post(self, invitation_id: UUID) -> TeamView:
        """Become a member without the token: for an address that is verified."""
        return self.entered(operations.accept_waiting(self.session, self.actor, invitation_id))


@blueprint.route("/me/invitations/<uuid:invitation_id>/decline")
class Decline(Resource):
    @requires(SIGNED_IN)
    @blueprint.shows_nothing()
    @blueprint.refuses(403)
    def post(self, invitation_id: UUID) -> None:
        """Turn it down: for an address that is verified."""
        operations.decline(self.session, self.actor, invitation_id)


def _outcome(outcome: Invited | DomainError) -> dict[str, Any]:
    if isinstance(outcome, Invited):
        return {"invitation": outcome, "error": None}
    return {
        "invitation": None,
        "error": {"code": outcome.code, "detail": said(outcome.detail), **outcome.members},
    }
