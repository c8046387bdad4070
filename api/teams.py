"""Teams."""

from typing import Any
from uuid import UUID

from api.blueprint import Blueprint
from api.pagination import envelope, page_from
from api.resource import SIGNED_IN, Resource, requires
from api.schemas.teams import (
    LegalHoldSchema,
    TeamNameSchema,
    TeamSchema,
    TeamsQuery,
    TeamUpdateSchema,
    TransferSchema,
)
from models.access.permissions import ADMIN, Permission
from models.operations import members, retention
from models.operations import teams as operations
from models.queries import teams
from models.queries.teams import TeamView

blueprint = Blueprint("teams", "Teams, the tenants")


@blueprint.route("/teams")
class Teams(Resource):
    shown_as = TeamSchema
    reads_alone = True

    @requires(SIGNED_IN)
    @blueprint.query(TeamsQuery)
    @blueprint.lists(TeamSchema)
    def get(self, query: dict[str, Any]) -> dict[str, Any]:
        """The caller's teams, oldest first."""
        return envelope(teams.mine(self.session, self.actor, page_from(query), **query))

    @requires(SIGNED_IN)
    @blueprint.body(TeamNameSchema)
    @blueprint.shows(TeamSchema, 201)
    def post(self, body: dict[str, str]) -> TeamView:
        """Make a team on the free plan; the caller becomes its owner and an admin."""
        return TeamView(operations.create(self.session, self.actor, name=body["name"]), ADMIN)


class TeamResource(Resource):
    shown_as = TeamSchema

    def locked(self) -> TeamView:
        view = TeamView(teams.get(self.session, self.access, for_update=True), self.access.role)
        self.check_match(view)
        return view


@blueprint.route("/teams/<uuid:team_id>")
class Team(TeamResource):
    reads_alone = True

    @requires(Permission.teams_read)
    @blueprint.shows(TeamSchema)
    def get(self) -> TeamView:
        """One team."""
        return TeamView(teams.get(self.session, self.access), self.access.role)

    @requires(Permission.teams_update)
    @blueprint.body(TeamUpdateSchema)
    @blueprint.shows(TeamSchema)
    def patch(self, body: dict[str, Any]) -> TeamView:
        """Rename the team, ask its members for a second factor, or choose how long its activity log is kept."""
        view = self.locked()
        operations.update(self.session, self.access, view.team, **body)
        return view

    @requires(Permission.teams_delete)
    @blueprint.shows_nothing()
    def delete(self) -> None:
        """Delete the team; the owner alone may. Nobody can enter it from then on; it can be restored for 30 days."""
        operations.delete(self.session, self.access, self.locked().team)


@blueprint.route("/teams/<uuid:team_id>/legal-hold")
class LegalHold(TeamResource):
    @requires(Permission.teams_delete)
    @blueprint.body(LegalHoldSchema)
    @blueprint.shows(TeamSchema)
    def put(self, body: dict[str, str]) -> TeamView:
        """
        Place a legal hold, or change its reason; the owner alone may. Until it is released nothing is purged: neither the
        activity log's expired rows, nor the team itself once it is deleted, which stays restorable.
        """
        view = self.locked()
        retention.hold(self.session, self.access, view.team, reason=body["reason"])
        return view

    @requires(Permission.teams_delete)
    @blueprint.shows_nothing()
    def delete(self) -> None:
        """Release the legal hold; the owner alone may. What has expired meanwhile is purged within the hour."""
        retention.release(self.session, self.access, self.locked().team)


@blueprint.route("/teams/<uuid:team_id>/transfer-ownership")
class Ownership(Resource):
    shown_as = TeamSchema

    @requires(Permission.teams_transfer)
    @blueprint.body(TransferSchema)
    @blueprint.shows(TeamSchema)
    def post(self, body: dict[str, Any]) -> TeamView:
        """Make another member the owner, who becomes an admin; the old owner stays one."""
        team = teams.get(self.session, self.access, for_update=True)
        members.transfer_ownership(self.session, self.access, team, user_id=body["user_id"])
        return TeamView(team, self.access.role)


@blueprint.route("/teams/<uuid:deleted_team_id>/restore")
class Restored(Resource):
    shown_as = TeamSchema

    @requires(SIGNED_IN)
    @blueprint.shows(TeamSchema)
    def post(self, deleted_team_id: UUID) -> TeamView:
        """Bring a deleted team back; its owner alone may, for 30 days. For anyone else it is absent."""
        return TeamView(operations.restore(self.session, self.actor, deleted_team_id), ADMIN)
