"""A team at a glance."""

from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

from api.console.page import Page, blueprint
from api.resource import requires
from models.access.permissions import Permission
from models.plans import PLANS
from models.queries import activity, members, tasks, teams, usage, workspaces
from models.queries.activity_filters import ActivityFilter
from models.queries.paging import Page as PageOfRows
from models.tables import Task

LATEST = 10
DAYS = 30
"""In a sparkline."""


class Overview(Page):
    template = "overview.html"

    @requires(Permission.teams_read)
    def get(self) -> Any:
        today = datetime.now(UTC).date()
        first = today.replace(day=1)
        found = workspaces.in_team(self.session, self.access, PageOfRows(limit=200)).items
        counts = tasks.counts(self.session, self.access)
        sees_usage = self.may(Permission.usage_read)
        return {
            "workspaces": found,
            "counts": counts,
            "running": sum(each.get("processing", 0) for each in counts.values()),
            "waiting": sum(each.get("pending", 0) for each in counts.values()),
            "at_work": self._at_work() if self.may(Permission.tasks_read) else {},
            "month": usage.total(self.session, self.access, since=first, until=today) if sees_usage else None,
            "days": self._days(today) if sees_usage else [],
            "plan": PLANS[teams.get(self.session, self.access).plan],
            "members": members.in_team(self.session, self.access, PageOfRows(limit=200)).items,
            "latest": activity.in_team(
                self.session, self.access, ActivityFilter(), PageOfRows(limit=LATEST)
            ).items
            if self.may(Permission.activity_read)
            else [],
        }

    def _at_work(self) -> dict[UUID, Task]:
        """By assignee, the newest task that runs."""
        running = tasks.in_team(self.session, self.access, PageOfRows(limit=200), status="processing").items
        return {task.assignee_id: task for task in reversed(running) if task.assignee_id}

    def _days(self, today: date) -> list[Any]:
        """The last days, the newest last; None for one without usage."""
        since = today - timedelta(days=DAYS - 1)
        page = PageOfRows(limit=DAYS)
        found = usage.daily(self.session, self.access, since=since, until=today, page=page).items
        by_date = {day.date: day for day in found}
        return [by_date.get(since + timedelta(days=number)) for number in range(DAYS)]


blueprint.add_url_rule("/teams/<uuid:team_id>", view_func=Overview.as_view("overview"))
