"""Reservations: noted before a model is called, settled after."""

from typing import Any
from uuid import UUID

from api.blueprint import Blueprint
from api.pagination import envelope, page_from
from api.resource import Resource, requires
from api.schemas.reservations import (
    ReservationCreateSchema,
    ReservationQuery,
    ReservationSchema,
    ReservationSettleSchema,
)
from models.access.permissions import Permission
from models.operations import reservations as operations
from models.queries import reservations
from models.queries.reservations import ReservationView

blueprint = Blueprint("reservations", "What agents are about to use")


@blueprint.route("/teams/<uuid:team_id>/usage/reservations")
class Reservations(Resource):
    @requires(Permission.usage_read)
    @blueprint.query(ReservationQuery)
    @blueprint.lists(ReservationSchema)
    def get(self, query: dict[str, Any]) -> dict[str, Any]:
        """The reservations, newest first."""
        page = page_from(query)
        return envelope(reservations.in_team(self.session, self.access, page, **query))

    @requires(Permission.usage_create)
    @blueprint.body(ReservationCreateSchema)
    @blueprint.alt_response(200, schema=ReservationSchema, description="It was there, as it is.")  # type: ignore[untyped-decorator]  # flask-smorest has no types
    @blueprint.shows(ReservationSchema, 201)
    def post(self, body: dict[str, Any]) -> tuple[ReservationView, int]:
        """Reserve the most that a call may use; the same again is the same reservation. It counts against a hard limit."""
        reservation, is_new = operations.reserve(self.session, self.access, **body)
        return reservations.get(self.session, self.access, reservation.id), 201 if is_new else 200


@blueprint.route("/teams/<uuid:team_id>/usage/reservations/<uuid:reservation_id>")
class Reservation(Resource):
    @requires(Permission.usage_read)
    @blueprint.shows(ReservationSchema)
    def get(self, reservation_id: UUID) -> ReservationView:
        """One reservation."""
        return reservations.get(self.session, self.access, reservation_id)


@blueprint.route("/teams/<uuid:team_id>/usage/reservations/<uuid:reservation_id>/settle")
class Settle(Resource):
    @requires(Permission.usage_create)
    @blueprint.body(ReservationSettleSchema)
    @blueprint.shows(ReservationSchema)
    def post(self, body: dict[str, Any], reservation_id: UUID) -> ReservationView:
        """Count what was really used, even if it is more than was reserved or than is left; late, too. Again, it counts once."""
        reservation = reservations.locked(self.session, self.access, reservation_id)
        operations.settle(self.session, reservation, **body)
        return reservations.get(self.session, self.access, reservation_id)


@blueprint.route("/teams/<uuid:team_id>/usage/reservations/<uuid:reservation_id>/release")
class Release(Resource):
    @requires(Permission.usage_create)
    @blueprint.shows(ReservationSchema)
    def post(self, reservation_id: UUID) -> ReservationView:
        """Give it back: nothing was used."""
        reservation = reservations.locked(self.session, self.access, reservation_id)
        operations.release(self.session, reservation)
        return reservations.get(self.session, self.access, reservation_id)
