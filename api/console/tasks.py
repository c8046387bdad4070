"""Tasks, as a board or a table; one task opens in a drawer that is a page as well."""

from typing import Any
from uuid import UUID

from flask import request

from api.console.page import Page, blueprint
from api.console.query import cursor_page, uuid_argument
from api.resource import requires
from models.access.permissions import Permission
from models.operations.tasks import LEADS_TO
from models.queries import activity, agents, ledger, members, tasks, workspaces
from models.queries.activity_filters import ActivityFilter
from models.queries.paging import Page as PageOfRows

BOARD = tuple(state for state in LEADS_TO if state != "cancelled")
"""The columns; who looks for what was cancelled is led to the table."""
IN_A_COLUMN = 50
"""Cards; the table has them all."""


class Tasks(Page):
    template = "tasks.html"

    @requires(Permission.tasks_read)
    def get(self) -> Any:
        wanted = {name: uuid_argument(name) for name in ("workspace_id", "assignee_id", "agent_id")}
        view = "table" if request.args.get("view") == "table" else "board"
        status = request.args.get("status") if request.args.get("status") in LEADS_TO else None
        found: dict[str, Any] = {}
        if view == "board":
            found["columns"] = {
                state: tasks.in_team(
                    self.session, self.access, PageOfRows(limit=IN_A_COLUMN), status=state, **wanted
                )
                for state in BOARD
            }
        else:
            found["page"] = tasks.in_team(self.session, self.access, cursor_page(), status=status, **wanted)
        return {
            "view": view,
            "status": status,
            "wanted": wanted,
            "statuses": list(LEADS_TO),
            "counts": tasks.counts(self.session, self.access),
            "workspaces": workspaces.in_team(self.session, self.access, PageOfRows(limit=200)).items,
            "people": {
                member.user_id: member.user.name
                for member in members.in_team(self.session, self.access, PageOfRows(limit=200)).items
            },
            "agents": {
                agent.id: agent.name
                for agent in agents.in_team(self.session, self.access, PageOfRows(limit=200)).items
            },
            **found,
        }


class Task(Page):
    template = "task.html"

    @requires(Permission.tasks_read)
    def get(self, task_id: UUID) -> Any:
        task = tasks.get(self.session, self.access, task_id)
        people = members.in_team(self.session, self.access, PageOfRows(limit=200)).items
        return {
            "task": task,
            "workspace": workspaces.get(self.session, self.access, task.workspace_id),
            "people": {member.user_id: member.user.name for member in people},
            "agent": agents.get(self.session, self.access, task.agent_id) if task.agent_id else None,
            "tokens": ledger.of_task(self.session, self.access, task_id)
            if self.may(Permission.usage_read)
            else [],
            "history": activity.in_team(
                self.session,
                self.access,
                ActivityFilter(resource_type="task", resource_id=task_id),
                PageOfRows(limit=50),
            ).items
            if self.may(Permission.activity_read)
            else [],
        }


blueprint.add_url_rule("/teams/<uuid:team_id>/tasks", view_func=Tasks.as_view("tasks"))
blueprint.add_url_rule("/teams/<uuid:team_id>/tasks/<uuid:task_id>", view_func=Task.as_view("task"))
