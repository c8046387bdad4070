"""Who is in a team, in which role, and who was invited; one person's page, which shows what another role would change."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from flask import request

from api.console.effects import grouped, within_power
from api.console.page import Page, blueprint
from api.console.query import cursor_page
from api.resource import requires
from models.access.permissions import Permission
from models.operations import dry_runs
from models.operations.dry_runs import Effect
from models.queries import activity, invitations, members, roles, teams, workspaces
from models.queries.activity_filters import ActivityFilter
from models.queries.paging import Page as PageOfRows
from models.queries.permissions import Subject, standings
from models.queries.roles import RoleView
from models.tables import TeamMember
from models.tables.invitations import EXPIRED, PENDING

LATEST = 10


class Members(Page):
    template = "members.html"

    @requires(Permission.members_read)
    def get(self) -> Any:
        team = teams.get(self.session, self.access)
        found = roles.in_team(self.session, self.access, PageOfRows(limit=200)).items
        role = request.args.get("role")
        role = role if role in {each.name for each in found} else None
        page = members.in_team(self.session, self.access, cursor_page(), role=role)
        user_ids = [member.user_id for member in page.items]
        return {
            "page": page,
            "role_filter": role,
            "roles": found,
            "grantable": within_power(self.access, found),
            "seats_taken": members.seats_taken(self.session, team.id),
            "last_acts": activity.last_acts(self.session, self.access, user_ids)
            if self.may(Permission.activity_read)
            else {},
            "workspace_counts": workspaces.counts_by_member(
                self.session, self.access, user_ids, team.owner_id
            ),
            "invitations": invitations.in_team(
                self.session, self.access, PageOfRows(limit=200), status=(PENDING, EXPIRED)
            ).items
            if self.may(Permission.members_create)
            else [],
            "status_of": invitations.status_of,
        }


class Member(Page):
    """`?role=` shows what giving them that role would do."""

    template = "member.html"

    @requires(Permission.members_read)
    def get(self, user_id: UUID) -> Any:
        member = members.get(self.session, self.access, user_id)
        found = roles.in_team(self.session, self.access, PageOfRows(limit=200)).items
        wanted = request.args.get("role")
        wanted = wanted if wanted in {each.name for each in found} else member.role
        effect = self._effect(member, wanted)
        (standing,) = standings(self.session, self.access, [Subject(user_id)])
        owner_id = teams.get(self.session, self.access).owner_id
        return {
            "member": member,
            "owns": user_id == owner_id,
            "wanted": wanted,
            "roles": found,
            "grantable": within_power(self.access, found),
            "changeable": self.changeable(member, found, owner_id),
            "effect": effect,
            "groups": grouped(effect) if effect else [],
            "granted": standing.may,
            "workspace_names": self._workspace_names(),
            "workspace_count": workspaces.counts_by_member(self.session, self.access, [user_id], owner_id)[
                user_id
            ],
            "latest": activity.in_team(
                self.session, self.access, ActivityFilter(user_id=user_id), PageOfRows(limit=LATEST)
            ).items
            if self.may(Permission.activity_read)
            else [],
        }

    def changeable(self, member: TeamMember, found: Sequence[RoleView], owner_id: UUID) -> bool:
        """Whether who reads this may give them another role: nobody changes the owner, or who has more power."""
        return (
            self.may(Permission.members_update)
            and member.user_id != owner_id
            and member.role in within_power(self.access, found)
        )

    def _effect(self, member: TeamMember, wanted: str) -> Effect | None:
        """None where nothing would change, or who reads this may not ask."""
        if wanted == member.role or not self.may(Permission.roles_read):
            return None
        return dry_runs.of_member(
            self.session, self.access, PageOfRows(limit=50), user_id=member.user_id, role=wanted
        )

    def _workspace_names(self) -> dict[UUID, str]:
        found = workspaces.in_team(self.session, self.access, PageOfRows(limit=200)).items
        return {workspace.id: workspace.name for workspace in found}


blueprint.add_url_rule("/teams/<uuid:team_id>/members", view_func=Members.as_view("members"))
blueprint.add_url_rule("/teams/<uuid:team_id>/members/<uuid:user_id>", view_func=Member.as_view("member"))
