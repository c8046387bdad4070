"""The ledger's rows behind any figure; a row opens to what is known of it, and can be taken back there."""

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

from flask import request

from api.console.page import Page, blueprint
from api.console.quantities import LABELS
from api.console.query import cursor_page, uuid_argument
from api.resource import requires
from api.usage import LONGEST_RANGE
from models.access.permissions import Permission
from models.queries import backfills, ledger, usage_reports
from models.queries.ledger import NONE_AT_ALL, LedgerFilter, LedgerView, NoneAtAll
from models.queries.paging import Page as PageOfRows
from models.queries.usage_reports import NAMED, Group
from models.tables.usage import Metric, TokenPart

NONE = "none"
"""In an address: the rows that have none of it."""
MOST_CHOICES = 500
TASK = "task:"
"""What a task's keys begin with."""


class Ledger(Page):
    template = "ledger.html"

    @requires(Permission.usage_read)
    def get(self) -> Any:
        set_id = uuid_argument("set_id")
        since, until = days_argument() if set_id is None else (None, None)
        wanted = LedgerFilter(
            since=since,
            until=until,
            metric=request.args.get("metric") if request.args.get("metric") in set(Metric) else None,
            model=_text_or_none("model"),
            part=_text_or_none("part"),
            set_id=set_id,
            **{group.column: _id_or_none(group.column) for group in NAMED},
        )
        found = ledger.in_team(self.session, self.access, wanted, cursor_page())
        return {
            "wanted": wanted,
            "nothing": NONE_AT_ALL,
            "metrics": LABELS,
            "parts": list(TokenPart),
            "page": found,
            "names": names(self, found.items),
            "choices": self._choices(since, until) if since and until else {},
            "set": backfills.get(self.session, self.access, set_id) if set_id else None,
        }

    def _choices(self, since: date, until: date) -> Mapping[str, Mapping[UUID, str]]:
        """By filter, those who used something on these days."""
        found: dict[str, dict[UUID, str]] = {}
        for group in NAMED:
            rows = usage_reports.breakdown(
                self.session,
                self.access,
                since=since,
                until=until,
                by=[group],
                metric=None,
                page=PageOfRows(limit=MOST_CHOICES),
            ).items
            found[group.column] = {
                row[group.column]: row[f"{group}_name"] for row in rows if row[group.column] is not None
            }
        return found


class LedgerRow(Page):
    template = "ledger_row.html"

    @requires(Permission.usage_read)
    def get(self, ledger_id: UUID) -> Any:
        view = ledger.get(self.session, self.access, ledger_id)
        other = view.row.reverses or view.reversed_by
        key = view.key or ""
        return {
            "view": view,
            "other": ledger.get(self.session, self.access, other).row if other else None,
            "names": names(self, [view]),
            "task_id": key.removeprefix(TASK).partition(":")[0] if key.startswith(TASK) else None,
        }


def names(page: Page, rows: Iterable[LedgerView]) -> Mapping[UUID, str]:
    """Of all people, agents, keys and workspaces that the rows name, by id."""
    rows = list(rows)
    found: dict[UUID, str] = {}
    for group in NAMED:
        ids: set[UUID | None] = {
            view.workspace_id if group is Group.workspace else getattr(view.row, group.column)
            for view in rows
        }
        found |= usage_reports.names(page.session, group, {each for each in ids if each})
    return found


def days_argument() -> tuple[date, date]:
    """The days in the address, at most as many as the API takes; this month's so far without them."""
    today = datetime.now(UTC).date()
    until = _date_argument("to") or max(today, _date_argument("from") or today)
    since = _date_argument("from") or until.replace(day=1)
    return max(min(since, until), until - LONGEST_RANGE), until


def _date_argument(name: str) -> date | None:
    try:
        found = date.fromisoformat(request.args.get(name, ""))
    except ValueError:
        return None
    return found if date(2000, 1, 1) <= found < date(9999, 1, 1) else None


def _id_or_none(name: str) -> UUID | NoneAtAll | None:
    return NONE_AT_ALL if request.args.get(name) == NONE else uuid_argument(name)


def _text_or_none(name: str) -> str | NoneAtAll | None:
    text = request.args.get(name, "").replace("\0", "")
    return NONE_AT_ALL if text == NONE else text or None


blueprint.add_url_rule("/teams/<uuid:team_id>/usage/ledger", view_func=Ledger.as_view("ledger"))
blueprint.add_url_rule(
    "/teams/<uuid:team_id>/usage/ledger/<uuid:ledger_id>", view_func=LedgerRow.as_view("ledger_row")
)
