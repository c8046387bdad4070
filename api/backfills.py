"""Backfill sets: past usage, staged, looked at, counted whole, and taken back whole."""

from typing import Any
from uuid import UUID

from api.blueprint import Blueprint
from api.pagination import envelope, page_from
from api.resource import Resource, requires
from api.schemas.backfills import (
    BackfillChangeSchema,
    BackfillCreateSchema,
    BackfillSchema,
    BackfillViewSchema,
)
from api.schemas.base import PageQuery
from api.schemas.usage import ReportedSchema, UsageReportSchema
from models.access.permissions import Permission
from models.operations import backfills as operations
from models.operations.usage import Reported
from models.queries import backfills, teams
from models.queries.backfills import BackfillView
from models.tables import UsageBackfill

blueprint = Blueprint("backfills", "Past usage, counted and taken back whole")


@blueprint.route("/teams/<uuid:team_id>/usage/backfills")
class Backfills(Resource):
    @requires(Permission.usage_read)
    @blueprint.query(PageQuery)
    @blueprint.lists(BackfillSchema)
    def get(self, query: dict[str, Any]) -> dict[str, Any]:
        """The sets, newest first."""
        return envelope(backfills.in_team(self.session, self.access, page_from(query)))

    @requires(Permission.usage_create)
    @blueprint.body(BackfillCreateSchema)
    @blueprint.shows(BackfillViewSchema, 201)
    def post(self, body: dict[str, Any]) -> BackfillView:
        """Open a set with nothing in it."""
        backfill = operations.create(self.session, self.access, **body)
        return backfills.view(self.session, backfill)


@blueprint.route("/teams/<uuid:team_id>/usage/backfills/<uuid:backfill_id>")
class Backfill(Resource):
    @requires(Permission.usage_read)
    @blueprint.shows(BackfillViewSchema)
    def get(self, backfill_id: UUID) -> BackfillView:
        """A set, and how much of it counts, or would if it were applied now."""
        return backfills.view(self.session, backfills.get(self.session, self.access, backfill_id))


@blueprint.route("/teams/<uuid:team_id>/usage/backfills/<uuid:backfill_id>/changes")
class Changes(Resource):
    @requires(Permission.usage_read)
    @blueprint.query(PageQuery)
    @blueprint.lists(BackfillChangeSchema)
    def get(self, query: dict[str, Any], backfill_id: UUID) -> dict[str, Any]:
        """By day and metric what the set would change, or what it changed, the oldest first."""
        page = page_from(query)
        backfill = backfills.get(self.session, self.access, backfill_id)
        return envelope(backfills.changes(self.session, backfill, page))


@blueprint.route("/teams/<uuid:team_id>/usage/backfills/<uuid:backfill_id>/events")
class Events(Resource):
    @requires(Permission.usage_create)
    @blueprint.body(UsageReportSchema)
    @blueprint.shows(ReportedSchema, 202)
    def post(self, body: dict[str, Any], backfill_id: UUID) -> Reported:
        """Stage usage in an open set, a batch whole or not at all. It counts nowhere until the set is applied."""
        backfill = backfills.get(self.session, self.access, backfill_id, for_update=True)
        return operations.stage(self.session, self.access, backfill, body["events"])


class Decision(Resource):
    """What changes the bill, under the team's lock."""

    def locked(self, backfill_id: UUID) -> UsageBackfill:
        teams.get(self.session, self.access, for_update=True)
        return backfills.get(self.session, self.access, backfill_id, for_update=True)


@blueprint.route("/teams/<uuid:team_id>/usage/backfills/<uuid:backfill_id>/apply")
class Apply(Decision):
    @requires(Permission.billing_update)
    @blueprint.shows(BackfillViewSchema)
    def post(self, backfill_id: UUID) -> BackfillView:
        """Count the set, whole and once; in an invoiced month it becomes an adjustment."""
        backfill = self.locked(backfill_id)
        operations.apply(self.session, self.access, backfill)
        return backfills.view(self.session, backfill)


@blueprint.route("/teams/<uuid:team_id>/usage/backfills/<uuid:backfill_id>/revert")
class Revert(Decision):
    @requires(Permission.billing_update)
    @blueprint.shows(BackfillViewSchema)
    def post(self, backfill_id: UUID) -> BackfillView:
        """Take back all that the set counted, whole and once. Its external ids stay known: report the right figures under others."""
        backfill = self.locked(backfill_id)
        operations.revert(self.session, self.access, backfill)
        return backfills.view(self.session, backfill)
