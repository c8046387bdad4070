"""A team's agents, and the API keys that let them and programs in."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from flask import request

from api.console.effects import by_resource, within_power
from api.console.page import Page, blueprint
from api.console.query import cursor_page, uuid_argument
from api.resource import requires
from models.access.permissions import Permission
from models.queries import agents, api_keys, members, roles
from models.queries.paging import Page as PageOfRows
from models.queries.roles import RoleView
from models.tables import Agent

LIVES_DAYS = (7, 30, 90, 365)
USUAL_DAYS = 90


class Keys(Page):
    """`?id=` an agent and `?role=` another role: what changing it would do."""

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
            "change": _change(found, {role.name: role for role in all_roles}),
        }


@dataclass(frozen=True, slots=True)
class Change:
    """What an agent might do, and might not do any more, in another role: as far as its key and the key's maker may."""

    gains: list[str]
    loses: list[str]


def _change(agents: Iterable[Agent], roles: Mapping[str, RoleView]) -> Change | None:
    """Of the agent `?id=` to the role `?role=`; None where that is no change."""
    chosen = uuid_argument("id")
    agent = next((each for each in agents if each.id == chosen), None)
    wanted = roles.get(request.args.get("role", ""))
    if agent is None or wanted is None or agent.role == wanted.name:
        return None
    before = frozenset(roles[agent.role].permissions if agent.role in roles else ())
    after = frozenset(wanted.permissions)
    return Change(sorted(after - before), sorted(before - after))


def _time(value: datetime) -> str:
    return value.isoformat().replace("+00:00", "Z")


blueprint.add_url_rule("/teams/<uuid:team_id>/keys", view_func=Keys.as_view("keys"))
