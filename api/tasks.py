"""Tasks of a workspace, and the agents' reports on them."""

from typing import Any
from uuid import UUID

from flask import Response

from api.blueprint import Blueprint
from api.pagination import envelope, page_from
from api.resource import Resource, requires
from api.schemas.tasks import (
    ClaimedTaskSchema,
    TaskClaimSchema,
    TaskCompleteSchema,
    TaskCreateSchema,
    TaskFailSchema,
    TaskHeartbeatSchema,
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
    reads_alone = True

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


@blueprint.route("/teams/<uuid:team_id>/workspaces/<uuid:workspace_id>/tasks/claim")
class Claim(Resource):
    """Not `shown_as` anything: its answer has more than the task that other routes show, so an ETag would match none of theirs."""

    @requires(Permission.tasks_update)
    @blueprint.body(TaskClaimSchema)
    @blueprint.shows(ClaimedTaskSchema)
    @blueprint.alt_response(204, description="There is none to take.")  # type: ignore[untyped-decorator]  # flask-smorest has no types
    def post(self, body: dict[str, Any], workspace_id: UUID) -> TaskRow | Response:
        """Take the oldest pending task under a lease, which heartbeats extend; when it runs out, the task is pending again."""
        workspace = workspaces.get(self.session, self.access, workspace_id)
        return operations.claim(self.session, self.access, workspace, **body) or Response(status=204)


class TaskResource(Resource):
    """One task, locked for what is about to change it."""

    shown_as = TaskSchema

    def locked(self, task_id: UUID) -> TaskRow:
        task = tasks.get(self.session, self.access, task_id, for_update=True)
        self.check_match(task)
        return task


@blueprint.route("/teams/<uuid:team_id>/tasks/<uuid:task_id>")
class Task(TaskResource):
    reads_alone = True

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
        """Begin to work on a pending task, without a lease."""
        task = self.locked(task_id)
        operations.start(self.session, self.access, task)
        return task


@blueprint.route("/teams/<uuid:team_id>/tasks/<uuid:task_id>/heartbeat")
class Heartbeat(Resource):
    """No `TaskResource`, as `Claim` is none."""

    @requires(Permission.tasks_update)
    @blueprint.body(TaskHeartbeatSchema)
    @blueprint.shows(ClaimedTaskSchema)
    def post(self, body: dict[str, Any], task_id: UUID) -> TaskRow:
        """Extend the lease of a claimed task, from now; 409 once it is lost."""
        task = tasks.get(self.session, self.access, task_id, for_update=True)
        operations.heartbeat(self.session, self.access, task, **body)
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
    def post(self, body: dict[str, Any], task_id: UUID) -> TaskRow:
        """Report a task in processing as failed."""
        task = self.locked(task_id)
        operations.fail(self.session, self.access, task, **body)
        return task


@blueprint.route("/teams/<uuid:team_id>/tasks/<uuid:task_id>/cancel")
class Cancel(TaskResource):
    @requires(Permission.tasks_update)
    @blueprint.shows(TaskSchema)
    def post(self, task_id: UUID) -> TaskRow:
        """Cancel a task that is pending or in processing, whoever works on it."""
        task = self.locked(task_id)
        operations.cancel(self.session, self.access, task)
        return task
