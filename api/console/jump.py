"""Where the jump box leads: people, workspaces, tasks and pages by a part of their name."""

import unicodedata
from typing import Any

from flask import request

from api.console.page import Page, blueprint
from api.resource import requires
from models.access.permissions import Permission
from models.json_text import problem_with_text
from models.queries import members, tasks, workspaces

LONGEST = 200
MOST_OF_A_KIND = 8


def asked() -> str:
    text = unicodedata.normalize("NFC", request.args.get("q", "").strip()[:LONGEST])
    return "" if problem_with_text(text) else text


class Jump(Page):
    """The list as a page; the box shows its entries as one types."""

    template = "jump.html"

    @requires(Permission.teams_read)
    def get(self) -> Any:
        text = asked()
        found: dict[str, Any] = {"people": [], "workspaces": [], "tasks": []}
        if text and self.may(Permission.members_read):
            found["people"] = members.named(self.session, self.access, text, MOST_OF_A_KIND)
        if text and self.may(Permission.workspaces_read):
            found["workspaces"] = workspaces.named(self.session, self.access, text, MOST_OF_A_KIND)
        if text and self.may(Permission.tasks_read):
            found["tasks"] = tasks.titled(self.session, self.access, text, MOST_OF_A_KIND)
        return {"q": text, **found}


blueprint.add_url_rule("/teams/<uuid:team_id>/jump", view_func=Jump.as_view("jump"))
