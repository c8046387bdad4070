"""The activity log."""

from typing import Any

from api.blueprint import Blueprint
from api.pagination import envelope, page_from
from api.resource import Resource, requires
from api.schemas.activity import ActivityQuery, ActivitySchema, FacetsQuery, FacetsSchema
from models.access.permissions import Permission
from models.operations.activity_reads import note_read
from models.queries import activity, activity_facets
from models.queries.activity_filters import ActivityFilter

blueprint = Blueprint("activity", "What happened in a team, numbered without gaps")


@blueprint.route("/teams/<uuid:team_id>/activity")
class Activity(Resource):
    @requires(Permission.activity_read)
    @blueprint.query(ActivityQuery)
    @blueprint.lists(ActivitySchema, both_ways=True)
    def get(self, query: dict[str, Any]) -> dict[str, Any]:
        """
        The log, newest first; every filter narrows it.

        A page may have fewer rows than `limit`, or none, and a `next_cursor` all the same: a search for what is rare in a very
        long log goes on with it. Without a `next_cursor` there is nothing older.
        """
        note_read(self.session, self.access)
        page, at = page_from(query, both_ways=True), query.pop("at")
        wanted = ActivityFilter(**query)
        return envelope(activity.in_team(self.session, self.access, wanted, page, at=at, last=True))


@blueprint.route("/teams/<uuid:team_id>/activity/facets")
class ActivityFacets(Resource):
    @requires(Permission.activity_read)
    @blueprint.query(FacetsQuery)
    @blueprint.shows(FacetsSchema)
    def get(self, query: dict[str, Any]) -> Any:
        """How many rows there are of each action, person, agent and workspace, exactly; the most frequent ones first."""
        note_read(self.session, self.access)
        return activity_facets.count(self.session, self.access, **query)
