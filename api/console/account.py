"""One's own account: profile, teams, invitations, how one signs in, and what happened to it."""

from typing import Any

from api.console.page import Page, blueprint
from api.console.query import cursor_page
from api.resource import SIGNED_IN, requires
from models.access.passwords import MINIMUM_LENGTH
from models.operations import second_factors
from models.queries import account_events, invitations, teams, users
from models.queries.paging import Page as PageOfRows

# The first that a browser's User-Agent has in it: Edge and Opera name Chrome too, Chrome names Safari, Android names Linux.
BROWSERS = {
    "Edg/": "Edge",
    "OPR/": "Opera",
    "Whale/": "Whale",
    "Firefox/": "Firefox",
    "Chrome/": "Chrome",
    "Safari/": "Safari",
}
SYSTEMS = {"iPhone": "iPhone", "iPad": "iPad", "Android": "Android", "Windows": "Windows", "Mac OS X": "macOS", "Linux": "Linux"}  # fmt: skip
LONGEST_DEVICE = 60


def device(user_agent: str | None) -> str:
    """What somebody came with, short: browser and system, or else how the program calls itself; empty for nothing."""
    named = user_agent or ""
    known = [
        next((name for mark, name in names.items() if mark in named), None) for names in (BROWSERS, SYSTEMS)
    ]
    return " · ".join(filter(None, known)) or named[:LONGEST_DEVICE]


class Account(Page):
    template = "account.html"

    @requires(SIGNED_IN)
    def get(self) -> Any:
        return {
            "device": device,
            "shortest_password": MINIMUM_LENGTH,
            "teams": teams.mine(self.session, self.actor, PageOfRows(limit=100)).items,
            "waiting": invitations.mine(self.session, self.actor, PageOfRows(limit=100)).items,
            "sessions": users.sessions(self.session, self.actor, PageOfRows(limit=100)).items,
            "second_factor": second_factors.status(self.session, self.actor),
            "page": account_events.of_actor(self.session, self.actor, cursor_page(limit=20)),
        }


blueprint.add_url_rule("/account", view_func=Account.as_view("account"))
