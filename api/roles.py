"""Roles: the built-in ones, and a team's own."""

from typing import Any

from api.blueprint import Blueprint
from api.pagination import envelope, page_from
from api.resource import Resource, requires
from api.schemas.base import PageQuery
from api.schemas.roles import ReplacementQuery, RoleCreateSchema, RoleSchema, RoleUpdateSchema
from models.access.permissions import Permission
from models.operations import roles as operations
from models.queries import roles, teams
from models.queries.roles import RoleView
from models.tables import Team

blueprint = Blueprint("roles", "What members of a team may do")


@blueprint.route("/teams/<uuid:team_id>/roles")
class Roles(Resource):
    shown_as = RoleSchema

    @requires(Permission.roles_read)
    @blueprint.query(PageQuery)
    @blueprint.lists(RoleSchema)
    def get(self, query: dict[str, Any]) -> dict[str, Any]:
        """The built-in roles, then the team's own, with what each grants."""
        return envelope(roles.in_team(self.session, self.access, page_from(query)))

    @requires(Permission.roles_create)
    @blueprint.body(RoleCreateSchema)
    @blueprint.shows(RoleSchema, 201)
    def post(self, body: dict[str, Any]) -> RoleView:
        """Make a role that grants no more than the caller has."""
        team = teams.get(self.session, self.access, for_update=True)
        return operations.create(self.session, self.access, team, **body)


@blueprint.route("/teams/<uuid:team_id>/roles/<string:name>")
class Role(Resource):
    shown_as = RoleSchema

    @requires(Permission.roles_read)
    @blueprint.shows(RoleSchema)
    def get(self, name: str) -> RoleView:
        """One role."""
        return roles.get(self.session, self.access, name)

    @requires(Permission.roles_update)
    @blueprint.body(RoleUpdateSchema)
    @blueprint.shows(RoleSchema)
    def patch(self, body: dict[str, Any], name: str) -> RoleView:
        """Change one of the team's own roles; in force on the next request of everyone who has it."""
        team, role = self._locked(name)
        return operations.update(self.session, self.access, team, role, **body)

    @requires(Permission.roles_delete)
    @blueprint.query(ReplacementQuery)
    @blueprint.shows_nothing()
    def delete(self, query: dict[str, str | None], name: str) -> None:
        """Delete one of the team's own roles; one in use needs `replacement`."""
        team, role = self._locked(name)
        operations.delete(self.session, self.access, team, role, replacement=query["replacement"])

    def _locked(self, name: str) -> tuple[Team, RoleView]:
        team = teams.get(self.session, self.access, for_update=True)
        role = roles.get(self.session, self.access, name)
        self.check_match(role)
        return team, role
