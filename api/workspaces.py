"""Workspaces of a team."""

from typing import Any
from uuid import UUID

from api.blueprint import Blueprint
from api.pagination import envelope, page_from
from api.resource import Resource, requires
from api.schemas.base import PageQuery
from api.schemas.workspaces import WorkspaceCreateSchema, WorkspaceSchema, WorkspaceUpdateSchema
from models.access.permissions import Permission
from models.operations import workspaces as operations
from models.queries import workspaces
from models.tables import Workspace as WorkspaceRow

blueprint = Blueprint("workspaces", "Where a team keeps its tasks")


@blueprint.route("/teams/<uuid:team_id>/workspaces")
class Workspaces(Resource):
    shown_as = WorkspaceSchema

    @requires(Permission.workspaces_read)
    @blueprint.query(PageQuery)
    @blueprint.lists(WorkspaceSchema)
    def get(self, query: dict[str, Any]) -> dict[str, Any]:
        """The workspaces, oldest first."""
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

    @requires(Permission.workspaces_read)
    @blueprint.shows(WorkspaceSchema)
    def get(self, workspace_id: UUID) -> WorkspaceRow:
        """One workspace."""
        return workspaces.get(self.session, self.access, workspace_id)

    @requires(Permission.workspaces_update)
    @blueprint.body(WorkspaceUpdateSchema)
    @blueprint.shows(WorkspaceSchema)
    def patch(self, body: dict[str, Any], workspace_id: UUID) -> WorkspaceRow:
        """Change name or description."""
        workspace = self._locked(workspace_id)
        operations.update(self.session, self.access, workspace, **body)
        return workspace

    @requires(Permission.workspaces_delete)
    @blueprint.shows_nothing()
    def delete(self, workspace_id: UUID) -> None:
        """Delete the workspace with its tasks."""
        operations.delete(self.session, self.access, self._locked(workspace_id))

    def _locked(self, workspace_id: UUID) -> WorkspaceRow:
        workspace = workspaces.get(self.session, self.access, workspace_id, for_update=True)
        self.check_match(workspace)
        return workspace
