"""A team's agents, and the API keys that let them and programs in."""

from datetime import UTC, datetime, timedelta
from typing import Any

from api.console.effects import by_resource, within_power
from api.console.page import Page, blueprint
from api.console.query import cursor_page
from api.resource import requires
from models.access.permissions import Permission
from models.queries import agents, api_keys, members, roles
from models.queries.paging import Page as PageOfRows

LIVES_DAYS = (7, 30, 90, 365)
USUAL_DAYS = 90


class Keys(Page):
    template = "keys.html"

    @requires(Permission.api_keys_read)
    def get(self) -> Any:
        found = agents.in_team(self.session, self.access, PageOfRows(limit=200)).items
        all_roles = roles.in_team(self.session, self.access, PageOfRows(limit=200)).items
        now = datetime.now(UTC).replace(microsecond=0)
        everyone = members.in_team(self.session, self.access, PageOfRows(limit=200)).items
        return {
            "agents": found,
            "agent_names": {agent.id: agent.name for agent in found},
            "key_counts": api_keys.counts_by_agent(self.session, self.access),
            "page": api_keys.in_team(self.session, self.access, cursor_page()),
            "people": {member.user_id: member.user.name for member in everyone},
            "grantable": within_power(self.access, all_roles),
            "resources": by_resource(),
            "lives": [(days, _time(now + timedelta(days=days))) for days in LIVES_DAYS],
            "usual_days": USUAL_DAYS,
            "now": now,
        }


def _time(value: datetime) -> str:
    return value.isoformat().replace("+00:00", "Z")


blueprint.add_url_rule("/teams/<uuid:team_id>/keys", view_func=Keys.as_view("keys"))
