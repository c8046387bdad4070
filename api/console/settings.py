"""A team's settings, each section a form of its own; its plan; its workspaces; and bringing it to an end."""

from typing import Any
from uuid import UUID

from api.console.page import Page, blueprint
from api.resource import requires
from models.access.permissions import Permission
from models.plans import PLANS, SHIPPED_BOOK, SHORTEST_RETENTION_DAYS
from models.queries import members, roles, teams, users, workspaces
from models.queries.paging import Page as PageOfRows
from models.queries.teams import RESTORABLE_FOR, TeamView
from models.tables import TeamMember

MOST = 200
"""People and workspaces in a list to choose from."""


class SettingsPage(Page):
    def people(self) -> list[TeamMember]:
        """The team's members, as far as the reader may know of them."""
        if not self.may(Permission.members_read):
            return []
        return list(members.in_team(self.session, self.access, PageOfRows(limit=MOST)).items)


class Settings(SettingsPage):
    template = "settings.html"

    @requires(Permission.teams_read)
    def get(self) -> Any:
        team = teams.get(self.session, self.access)
        people = self.people()
        return {
            "view": TeamView(team, self.access.role),
            "plan": PLANS[team.plan],
            "plans": list(PLANS.values()),
            "currency": SHIPPED_BOOK.currency,
            "seats": members.seats_taken(self.session, team.id),
            "shortest_days": SHORTEST_RETENTION_DAYS,
            "restorable_for": RESTORABLE_FOR,
            "has_second_factor": users.has_second_factor(self.session, self.access.user_id),
            "heirs": [each for each in people if each.user_id != team.owner_id and not each.suspended_at],
            "owner": next((each.user.name for each in people if each.user_id == team.owner_id), None),
            "workspaces": workspaces.in_team(self.session, self.access, PageOfRows(limit=MOST)).items
            if self.may(Permission.workspaces_read)
            else [],
        }


class Workspace(SettingsPage):
    template = "workspace.html"

    @requires(Permission.workspaces_read)
    def get(self, workspace_id: UUID) -> Any:
        workspace = workspaces.get(self.session, self.access, workspace_id)
        listed = workspaces.members(self.session, self.access, workspace, PageOfRows(limit=MOST)).items
        already = {each.user_id for each in listed}
        return {
            "workspace": workspace,
            "listed": listed,
            "others": [each for each in self.people() if each.user_id not in already],
            "roles": [
                each.name for each in roles.in_team(self.session, self.access, PageOfRows(limit=MOST)).items
            ]
            if self.may(Permission.roles_read)
            else [],
        }


blueprint.add_url_rule("/teams/<uuid:team_id>/settings", view_func=Settings.as_view("team_settings"))
blueprint.add_url_rule(
    "/teams/<uuid:team_id>/workspaces/<uuid:workspace_id>", view_func=Workspace.as_view("workspace")
)
