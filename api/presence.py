"""What REST clients have of the live side: who is online, and tickets that open sockets."""

from contextlib import suppress
from typing import Any

from flask import request
from redis import RedisError

from api.blueprint import Blueprint
from api.hashing import PreparedResource
from api.pagination import envelope, page_from
from api.resource import Resource, requires
from api.schemas.base import PageQuery
from api.schemas.presence import PresenceSchema, TicketSchema
from models.access.permissions import Permission
from models.errors import Unavailable
from models.operations import tickets
from models.settings import settings
from realtime.messages import Present
from realtime.presence import page_of, present
from realtime.publisher import connect

blueprint = Blueprint("presence", "Who is online, and tickets for sockets")


@blueprint.route("/teams/<uuid:team_id>/presence")
class Presence(PreparedResource):
    _people: list[Present] | None = None

    def prepare_get(self) -> None:
        """Redis is asked before the transaction, which must not wait for it; whether the caller may know is decided in it."""
        with suppress(RedisError):
            self._people = present(connect(settings().redis_url), (request.view_args or {})["team_id"])

    @requires(Permission.realtime_read)
    @blueprint.query(PageQuery)
    @blueprint.lists(PresenceSchema)
    def get(self, query: dict[str, Any]) -> dict[str, Any]:
        """Who has a socket of the team open, over all their devices."""
        page = page_from(query)
        if self._people is None:
            raise Unavailable("Who is online is not known at the moment; try again shortly.")
        return envelope(page_of(self._people, page))


@blueprint.route("/teams/<uuid:team_id>/ws-tickets")
class Tickets(Resource):
    @requires(Permission.realtime_read)
    @blueprint.shows(TicketSchema, 201)
    def post(self) -> dict[str, Any]:
        """A ticket that opens one socket of the team, once, within 30 seconds: for where a header can't be sent."""
        made = tickets.create(self.session, self.access)
        self.secret_of = self.access.team_id
        return {"ticket": made.ticket, "expires_at": made.row.expires_at}
