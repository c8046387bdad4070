"""What each role grants, as a matrix in which one column can be edited; and "may they do it, and why?", answered in words."""

from collections.abc import Set as AbstractSet
from typing import Any

from flask import request

from api.console.effects import Answer, answer, by_resource, grouped, within_power
from api.console.page import Page, blueprint
from api.console.query import uuid_argument
from api.resource import requires
from models.access.permissions import Permission
from models.operations import dry_runs
from models.operations.dry_runs import Effect
from models.queries import members, roles, workspaces
from models.queries.paging import Page as PageOfRows
from models.queries.permissions import Subject
from models.queries.roles import RoleUse, RoleView

MOST = 200
"""Roles, people and workspaces in a list to choose from."""


def one_of_the_catalogue(name: str) -> Permission | None:
    return Permission(name) if name in set(Permission) else None


class Roles(Page):
    """
    `?edit=` a role of the team's own (with `permissions=`, as they shall be), `?new=1` one more (`from=` another),
    `?delete=` one (`replacement=` another), `?permission=&person=&workspace=` a question.
    """

    template = "roles.html"

    @requires(Permission.roles_read)
    def get(self) -> Any:
        found = roles.in_team(self.session, self.access, PageOfRows(limit=MOST)).items
        by_name = {role.name: role for role in found}
        places = workspaces.in_team(self.session, self.access, PageOfRows(limit=MOST)).items
        return {
            "roles": found,
            "grantable": within_power(self.access, found),
            "resources": by_resource(),
            "workspaces": places,
            "workspace_names": {workspace.id: workspace.name for workspace in places},
            **self._edited(by_name),
            **self._deleted(by_name),
            **self._asked(),
        }

    def editable(self, role: RoleView | None, permission: Permission) -> RoleView | None:
        """The role, if it is the team's own and within the power of who reads this."""
        if role is None or role.built_in or not self.may(permission):
            return None
        return role if self.access.permissions.issuperset(role.permissions) else None

    def _edited(self, by_name: dict[str, RoleView]) -> dict[str, Any]:
        edited = self.editable(by_name.get(request.args.get("edit", "")), Permission.roles_update)
        new = bool(request.args.get("new")) and self.may(Permission.roles_create)
        origin = by_name.get(request.args.get("from", "viewer"))
        chosen: AbstractSet[str] = {
            name for name in request.args.getlist("permissions") if one_of_the_catalogue(name)
        }
        if edited is not None and not (chosen or request.args.get("chosen")):
            chosen = set(edited.permissions)
        elif new and origin is not None and not request.args.get("chosen"):
            chosen = self.access.permissions.intersection(origin.permissions)
        effect = None
        if (
            edited is not None
            and chosen
            and chosen != set(edited.permissions)
            and self.may(Permission.members_read)
        ):
            effect = dry_runs.of_permissions(
                self.session, self.access, PageOfRows(limit=50), role=edited.name, permissions=chosen
            )
        return {
            "edited": edited,
            "new": new and edited is None,
            "origin": origin,
            "chosen": chosen,
            **said("", effect),
        }

    def _deleted(self, by_name: dict[str, RoleView]) -> dict[str, Any]:
        deleted = self.editable(by_name.get(request.args.get("delete", "")), Permission.roles_delete)
        if deleted is None:
            return {"deleted": None}
        use: RoleUse = roles.use(self.session, self.access, deleted.name)
        replacement = request.args.get("replacement")
        replacement = replacement if replacement in by_name and replacement != deleted.name else None
        effect = None
        if use.any and replacement and self.may(Permission.members_read):
            effect = dry_runs.of_deletion(
                self.session, self.access, PageOfRows(limit=50), role=deleted.name, replacement=replacement
            )
        return {"deleted": deleted, "use": use, "replacement": replacement, **said("deletion_", effect)}

    def _asked(self) -> dict[str, Any]:
        """About others it needs `members:read`, as the API does."""
        sees_members = self.may(Permission.members_read)
        people = (
            members.in_team(self.session, self.access, PageOfRows(limit=MOST)).items if sees_members else []
        )
        permission = one_of_the_catalogue(request.args.get("permission", ""))
        person = uuid_argument("person") if sees_members else None
        person = person if person in {member.user_id for member in people} else self.access.user_id
        workspace_id = uuid_argument("workspace")
        found: Answer | None = None
        if permission is not None:
            found = answer(self.session, self.access, Subject(person, workspace_id), permission)
        return {
            "people": people,
            "asked": permission,
            "person": person,
            "workspace_id": workspace_id,
            "answer": found,
        }


def said(prefix: str, effect: Effect | None) -> dict[str, Any]:
    return {f"{prefix}effect": effect, f"{prefix}groups": grouped(effect) if effect else []}


blueprint.add_url_rule("/teams/<uuid:team_id>/roles", view_func=Roles.as_view("roles"))
