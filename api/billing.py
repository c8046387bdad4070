"""Plans."""

from typing import Any

from api.blueprint import Blueprint
from api.pagination import envelope, page_from
from api.resource import SIGNED_IN, Resource, requires
from api.schemas.base import PageQuery
from api.schemas.plans import PlanPreviewSchema, PlanQuery, PlanSchema, plan_view, preview_view
from api.schemas.teams import PlanChoiceSchema, TeamSchema
from models.access.permissions import Permission
from models.operations import teams as operations
from models.queries import plan_preview, plans, teams
from models.queries.paging import Slice
from models.queries.teams import TeamView

blueprint = Blueprint("billing", "Plans and what they include")


@blueprint.route("/plans")
class Plans(Resource):
    @requires(SIGNED_IN)
    @blueprint.query(PageQuery)
    @blueprint.lists(PlanSchema)
    def get(self, query: dict[str, Any]) -> dict[str, Any]:
        """The plans that a team can choose, the smallest first: what each seats, includes, limits and costs."""
        book, page = plans.listed(self.session, page_from(query))
        return envelope(Slice([plan_view(plan, book) for plan in page.items], page.next_key))


@blueprint.route("/teams/<uuid:team_id>/plan")
class TeamPlan(Resource):
    shown_as = TeamSchema

    @requires(Permission.billing_update, past_call_limit=True)
    @blueprint.body(PlanChoiceSchema)
    @blueprint.shows(TeamSchema)
    def put(self, body: dict[str, str]) -> TeamView:
        """Change the plan, at once; 409 if the members don't fit into its seats."""
        team = teams.get(self.session, self.access, for_update=True)
        operations.change_plan(self.session, self.access, team, plan=body["plan"])
        return TeamView(team, self.access.role)


@blueprint.route("/teams/<uuid:team_id>/plan/preview")
class TeamPlanPreview(Resource):
    @requires(Permission.billing_read, past_call_limit=True)
    @blueprint.query(PlanQuery)
    @blueprint.shows(PlanPreviewSchema)
    def get(self, query: dict[str, str]) -> dict[str, Any]:
        """What this month costs with a change of the plan now, and without, if usage goes on at its average pace."""
        return preview_view(plan_preview.preview(self.session, self.access, query["plan"]))
