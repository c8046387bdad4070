"""Webhooks and their deliveries."""

from typing import Any
from uuid import UUID

from flask import request

from api.console.page import Page, blueprint
from api.console.query import cursor_page
from api.resource import requires
from models.access.permissions import Permission
from models.events.catalogue import CATALOGUE
from models.operations.webhooks import LIMIT
from models.queries import activity, users, webhooks
from models.queries.paging import Page as PageOfRows
from models.tables.webhooks import DEAD, DELIVERED, PENDING

STATES = (PENDING, DELIVERED, DEAD)


def actions_by_subject() -> dict[str, list[str]]:
    """Every action of the catalogue under what it happens to, in the catalogue's order."""
    found: dict[str, list[str]] = {}
    for action, declared in CATALOGUE.items():
        found.setdefault(declared.resource_type, []).append(action)
    return found


class Webhooks(Page):
    template = "webhooks.html"

    @requires(Permission.webhooks_read)
    def get(self) -> Any:
        found = webhooks.in_team(self.session, self.access, PageOfRows(limit=LIMIT)).items
        return {
            "webhooks": found,
            "head": activity.heads(self.session, [self.access.team_id]).get(self.access.team_id, 0),
            "limit": LIMIT,
            "subjects": actions_by_subject(),
        }


class Webhook(Page):
    template = "webhook.html"

    @requires(Permission.webhooks_read)
    def get(self, webhook_id: UUID) -> Any:
        webhook = webhooks.get(self.session, self.access, webhook_id)
        state = request.args.get("state") if request.args.get("state") in STATES else None
        head = activity.heads(self.session, [self.access.team_id]).get(self.access.team_id, 0)
        return {
            "webhook": webhook,
            "answers": users.get(self.session, webhook.user_id),
            "head": head,
            "state": state,
            "states": STATES,
            "page": webhooks.deliveries(self.session, self.access, webhook_id, cursor_page(), state=state),
            "subjects": actions_by_subject(),
            "sending": webhook.enabled
            and (webhook.delivered_seq < head or webhook.replay_seq is not None or webhook.redelivering),
        }


blueprint.add_url_rule("/teams/<uuid:team_id>/webhooks", view_func=Webhooks.as_view("webhooks"))
blueprint.add_url_rule(
    "/teams/<uuid:team_id>/webhooks/<uuid:webhook_id>", view_func=Webhook.as_view("webhook")
)
