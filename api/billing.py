"""Plans."""

from typing import Any

from api.blueprint import Blueprint
from api.pagination import envelope
from api.resource import SIGNED_IN, Resource, requires
from api.schemas.teams import PlanChoiceSchema, PlanSchema, TeamSchema
from models.access.permissions import Permission
from models.operations import teams as operations
from models.plans import PLANS
from models.queries import teams
from models.queries.paging import Slice
from models.queries.teams import TeamView

blueprint = Blueprint("billing", "Plans and what they include")


@blueprint.route("/plans")
class Plans(Resource):
    @requires(SIGNED_IN)
    @blueprint.lists(PlanSchema)
    def get(self) -> dict[str, Any]:
        """The plans that a team can choose."""
        return envelope(Slice(list(PLANS.values()), None))


@blueprint.route("/teams/<uuid:team_id>/plan")
class TeamPlan(Resource):
    shown_as = TeamSchema

    @requires(Permission.billing_update)
    @blueprint.body(PlanChoiceSchema)
    @blueprint.shows(TeamSchema)
    def put(self, body: dict[str, str]) -> TeamView:
        """Change the plan, at once; 409 if the members don't fit into its seats."""
        team = teams.get(self.session, self.access, for_update=True)
        operations.change_plan(self.session, self.access, team, plan=body["plan"])
        return TeamView(team, self.access.role)
