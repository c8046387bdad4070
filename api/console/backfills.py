"""Backfill sets: what each would change before it is applied, and what it has changed."""

from typing import Any
from uuid import UUID

from api.console.page import Page, blueprint
from api.console.query import cursor_page
from api.resource import requires
from models.access.permissions import Permission
from models.queries import backfills, usage_reports
from models.queries.usage_reports import Group


class Backfills(Page):
    template = "backfills.html"

    @requires(Permission.usage_read)
    def get(self) -> Any:
        found = backfills.in_team(self.session, self.access, cursor_page())
        makers = {backfill.created_by for backfill in found.items}
        return {"page": found, "people": usage_reports.names(self.session, Group.user, makers)}


class Backfill(Page):
    template = "backfill.html"

    @requires(Permission.usage_read)
    def get(self, backfill_id: UUID) -> Any:
        backfill = backfills.get(self.session, self.access, backfill_id)
        return {
            "backfill": backfills.view(self.session, backfill),
            "page": backfills.changes(self.session, backfill, cursor_page()),
            "people": usage_reports.names(self.session, Group.user, {backfill.created_by}),
        }


blueprint.add_url_rule("/teams/<uuid:team_id>/usage/backfills", view_func=Backfills.as_view("backfills"))
blueprint.add_url_rule(
    "/teams/<uuid:team_id>/usage/backfills/<uuid:backfill_id>", view_func=Backfill.as_view("backfill")
)
