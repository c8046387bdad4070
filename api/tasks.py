"""Tasks of a workspace, and the agents' reports on them."""

from typing import Any
from uuid import UUID

from api.blueprint import Blueprint
from api.pagination import envelope, page_from
from api.resource import Resource, requires
from api.schemas.tasks import (
    TaskCompleteSchema,
    TaskCreateSchema,
    TaskFailSchema,
    TaskQuery,
    TaskSchema,
    TaskUpdateSchema,
)
from models.access.permissions import Permission
from models.operations import tasks as operations
from models.queries import tasks, workspaces
from models.tables import Task as TaskRow

blueprint = Blueprint("tasks", "Work that agents do")


@blueprint.route("/teams/<uuid:team_id>/workspaces/<uuid:workspace_id>/tasks")
class Tasks(Resource):
    shown_as = TaskSchema

    @requires(Permission.tasks_read)
    @blueprint.query(TaskQuery)
    @blueprint.lists(TaskSchema)
    def get(self, query: dict[str, Any], workspace_id: UUID) -> dict[str, Any]:
        """The workspace's tasks, newest first."""
        page = page_from(query)
        return envelope(tasks.in_workspace(self.session, self.access, workspace_id, page, **query))

    @requires(Permission.tasks_create)
    @blueprint.body(TaskCreateSchema)
    @blueprint.shows(TaskSchema, 201)
    def post(self, body: dict[str, Any], workspace_id: UUID) -> TaskRow:
        """Make a pending task."""
        workspace = workspaces.get(self.session, self.access, workspace_id)
        return operations.create(self.session, self.access, workspace, **body)


class TaskResource(Resource):
    """One task, locked for what is about to change it."""

    shown_as = TaskSchema

    def locked(self, task_id: UUID) -> TaskRow:
        task = tasks.get(self.session, self.access, task_id, for_update=True)
        self.check_match(task)
        return task


@blueprint.route("/teams/<uuid:team_id>/tasks/<uuid:task_id>")
class Task(TaskResource):
    @requires(Permission.tasks_read)
    @blueprint.shows(TaskSchema)
    def get(self, task_id: UUID) -> TaskRow:
        """One task."""
        return tasks.get(self.session, self.access, task_id)

    @requires(Permission.tasks_update)
    @blueprint.body(TaskUpdateSchema)
    @blueprint.shows(TaskSchema)
    def patch(self, body: dict[str, Any], task_id: UUID) -> TaskRow:
        """Change title, prompt, type or assignee."""
        task = self.locked(task_id)
        operations.update(self.session, self.access, task, **body)
        return task

    @requires(Permission.tasks_delete)
    @blueprint.shows_nothing()
    def delete(self, task_id: UUID) -> None:
        """Delete the task; what it used stays counted."""
        operations.delete(self.session, self.access, self.locked(task_id))


@blueprint.route("/teams/<uuid:team_id>/tasks/<uuid:task_id>/start")
class Start(TaskResource):
    @requires(Permission.tasks_update)
    @blueprint.shows(TaskSchema)
    def post(self, task_id: UUID) -> TaskRow:
        """Begin to work on a pending task."""
        task = self.locked(task_id)
        operations.start(self.session, self.access, task)
        return task


@blueprint.route("/teams/<uuid:team_id>/tasks/<uuid:task_id>/complete")
class Complete(TaskResource):
    @requires(Permission.tasks_update)
    @blueprint.body(TaskCompleteSchema)
    @blueprint.shows(TaskSchema)
    def post(self, body: dict[str, Any], task_id: UUID) -> TaskRow:
        """Complete a task in processing, with its result and the tokens that it used."""
        task = self.locked(task_id)
        operations.complete(self.session, self.access, task, **body)
        return task


@blueprint.route("/teams/<uuid:team_id>/tasks/<uuid:task_id>/fail")
class Fail(TaskResource):
    @requires(Permission.tasks_update)
    @blueprint.body(TaskFailSchema)
    @blueprint.shows(TaskSchema)
    def post(self, body: dict[str, str], task_id: UUID) -> TaskRow:
        """Report a task in processing as failed."""
        task = self.locked(task_id)
        operations.fail(self.session, self.access, task, **body)
        return task


@blueprint.route("/teams/<uuid:team_id>/tasks/<uuid:task_id>/cancel")
class Cancel(TaskResource):
    @requires(Permission.tasks_update)
    @blueprint.shows(TaskSchema)
    def post(self, task_id: UUID) -> TaskRow:
        """Cancel a task that is pending or in processing."""
        task = self.locked(task_id)
        operations.cancel(self.session, self.access, task)
        return task
