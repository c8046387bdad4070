"""Workspaces of a team."""

from typing import Any
from uuid import UUID

from api.blueprint import Blueprint
from api.pagination import envelope, page_from
from api.resource import Resource, requires
from api.schemas.base import PageQuery
from api.schemas.workspaces import (
    WorkspaceCreateSchema,
    WorkspaceMemberSchema,
    WorkspaceRoleSchema,
    WorkspaceSchema,
    WorkspaceUpdateSchema,
)
from models.access.permissions import Permission
from models.errors import NotFound
from models.operations import workspaces as operations
from models.queries import members, teams, workspaces
from models.tables import Team, TeamMember, WorkspaceMember
from models.tables import Workspace as WorkspaceRow

blueprint = Blueprint("workspaces", "Where a team keeps its tasks")


@blueprint.route("/teams/<uuid:team_id>/workspaces")
class Workspaces(Resource):
    shown_as = WorkspaceSchema
    reads_alone = True

    @requires(Permission.workspaces_read)
    @blueprint.query(PageQuery)
    @blueprint.lists(WorkspaceSchema)
    def get(self, query: dict[str, Any]) -> dict[str, Any]:
        """The workspaces that the caller may read, oldest first."""
        return envelope(workspaces.in_team(self.session, self.access, page_from(query)))

    @requires(Permission.workspaces_create)
    @blueprint.body(WorkspaceCreateSchema)
    @blueprint.shows(WorkspaceSchema, 201)
    def post(self, body: dict[str, Any]) -> WorkspaceRow:
        """Make a workspace."""
        return operations.create(self.session, self.access, **body)


@blueprint.route("/teams/<uuid:team_id>/workspaces/<uuid:workspace_id>")
class Workspace(Resource):
    shown_as = WorkspaceSchema
    reads_alone = True

    @requires(Permission.workspaces_read)
    @blueprint.shows(WorkspaceSchema)
    def get(self, workspace_id: UUID) -> WorkspaceRow:
        """One workspace."""
        return workspaces.get(self.session, self.access, workspace_id)

    @requires(Permission.workspaces_update)
    @blueprint.body(WorkspaceUpdateSchema)
    @blueprint.shows(WorkspaceSchema)
    def patch(self, body: dict[str, Any], workspace_id: UUID) -> WorkspaceRow:
        """Change name, description or visibility."""
        workspace = self._locked(workspace_id)
        operations.update(self.session, self.access, workspace, **body)
        return workspace

    @requires(Permission.workspaces_delete)
    @blueprint.shows_nothing()
    def delete(self, workspace_id: UUID) -> None:
        """Delete the workspace with its tasks."""
        operations.delete(self.session, self.access, self._locked(workspace_id))

    def _locked(self, workspace_id: UUID) -> WorkspaceRow:
        """The team's row first: whoever may see and change it is decided under that lock."""
        teams.get(self.session, self.access, for_update=True)
        workspace = workspaces.get(self.session, self.access, workspace_id, for_update=True)
        self.check_match(workspace)
        return workspace


@blueprint.route("/teams/<uuid:team_id>/workspaces/<uuid:workspace_id>/members")
class WorkspaceMembers(Resource):
    @requires(Permission.workspaces_read)
    @blueprint.query(PageQuery)
    @blueprint.lists(WorkspaceMemberSchema)
    def get(self, query: dict[str, Any], workspace_id: UUID) -> dict[str, Any]:
        """Who is listed in the workspace: may see it though it is private, or has a role of its own there."""
        page = page_from(query)
        workspace = workspaces.get(self.session, self.access, workspace_id)
        return envelope(workspaces.members(self.session, self.access, workspace, page))


@blueprint.route("/teams/<uuid:team_id>/workspaces/<uuid:workspace_id>/members/<uuid:user_id>")
class ListedMember(Resource):
    shown_as = WorkspaceMemberSchema

    @requires(Permission.workspaces_read)
    @blueprint.shows(WorkspaceMemberSchema)
    def get(self, workspace_id: UUID, user_id: UUID) -> WorkspaceMember:
        """One who is listed."""
        workspace = workspaces.get(self.session, self.access, workspace_id)
        listed = workspaces.member(self.session, workspace, user_id)
        if listed is None:
            raise NotFound("member")
        return listed

    @requires(Permission.workspaces_update)
    @blueprint.body(WorkspaceRoleSchema)
    @blueprint.shows(WorkspaceMemberSchema)
    def put(self, body: dict[str, Any], workspace_id: UUID, user_id: UUID) -> WorkspaceMember:
        """List a member of the team in the workspace, in a role there that grants no more than the caller has."""
        team, workspace, member = self._locked(workspace_id, user_id)
        return operations.set_member(self.session, self.access, team, workspace, member, **body)

    @requires(Permission.workspaces_update, unless_self="user_id")
    @blueprint.shows_nothing()
    def delete(self, workspace_id: UUID, user_id: UUID) -> None:
        """Take a member off the list, or oneself."""
        team, workspace, member = self._locked(workspace_id, user_id)
        operations.remove_member(self.session, self.access, team, workspace, member)

    def _locked(self, workspace_id: UUID, user_id: UUID) -> tuple[Team, WorkspaceRow, TeamMember]:
        """The team's row first, as for every change of what somebody may do."""
        team = teams.get(self.session, self.access, for_update=True)
        workspace = workspaces.get(self.session, self.access, workspace_id, for_update=True)
        listed = workspaces.member(self.session, workspace, user_id)
        if listed is not None:
            self.check_match(listed)
        return team, workspace, members.get(self.session, self.access, user_id)
