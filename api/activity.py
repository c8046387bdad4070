"""The activity log."""

from typing import Any

from api.blueprint import Blueprint
from api.pagination import envelope, page_from
from api.resource import Resource, requires
from api.schemas.activity import ActivityQuery, ActivitySchema
from models.access.permissions import Permission
from models.operations.activity_reads import note_read
from models.queries import activity
from models.queries.activity_filters import ActivityFilter

blueprint = Blueprint("activity", "What happened in a team, numbered without gaps")


@blueprint.route("/teams/<uuid:team_id>/activity")
class Activity(Resource):
    @requires(Permission.activity_read)
    @blueprint.query(ActivityQuery)
    @blueprint.lists(ActivitySchema)
    def get(self, query: dict[str, Any]) -> dict[str, Any]:
        """The log, newest first; every filter narrows it."""
        page = page_from(query)
        note_read(self.session, self.access)
        return envelope(activity.in_team(self.session, self.access, ActivityFilter(**query), page))
