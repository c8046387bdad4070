"""The ledger's rows, and corrections of them."""

from typing import Any
from uuid import UUID

from api.blueprint import Blueprint
from api.pagination import envelope, page_from
from api.resource import Resource, requires
from api.schemas.ledger import CorrectionSchema, LedgerQuery, LedgerRowSchema
from api.usage import days
from models.access.permissions import Permission
from models.operations import corrections
from models.queries import ledger, teams
from models.queries.ledger import LedgerFilter, LedgerView

blueprint = Blueprint("ledger", "Every unit of usage, and what took it back")


@blueprint.route("/teams/<uuid:team_id>/usage/ledger")
class Ledger(Resource):
    @requires(Permission.usage_read)
    @blueprint.query(LedgerQuery)
    @blueprint.lists(LedgerRowSchema)
    def get(self, query: dict[str, Any]) -> dict[str, Any]:
        """The rows of these days, what happened last first; every filter narrows them."""
        page = page_from(query)
        if not query["set_id"] or query["since"] or query["until"]:
            query["since"], query["until"] = days(query["since"], query["until"])
        return envelope(ledger.in_team(self.session, self.access, LedgerFilter(**query), page))


@blueprint.route("/teams/<uuid:team_id>/usage/ledger/<uuid:ledger_id>")
class LedgerRow(Resource):
    @requires(Permission.usage_read)
    @blueprint.shows(LedgerRowSchema)
    def get(self, ledger_id: UUID) -> LedgerView:
        """One row."""
        return ledger.get(self.session, self.access, ledger_id)


@blueprint.route("/teams/<uuid:team_id>/usage/corrections")
class Corrections(Resource):
    @requires(Permission.billing_update)
    @blueprint.body(CorrectionSchema)
    @blueprint.shows(LedgerRowSchema, 201)
    def post(self, body: dict[str, Any]) -> LedgerView:
        """Take a row back, whole and once: the answer is the row that does. In an invoiced month it becomes an adjustment."""
        team = teams.get(self.session, self.access, for_update=True)
        return corrections.correct(self.session, self.access, team, **body)
