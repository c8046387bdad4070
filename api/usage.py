"""Usage: reported in, read out."""

from calendar import monthrange
from datetime import UTC, date, datetime, timedelta
from typing import Any

from api.blueprint import Blueprint
from api.pagination import envelope, page_from
from api.resource import Resource, requires
from api.schemas.usage import DaySchema, DaysQuery, MonthQuery, MonthSchema, ReportedSchema, UsageReportSchema
from models.access.permissions import Permission
from models.errors import Invalid
from models.operations import usage as operations
from models.operations.usage import Reported
from models.queries import usage

blueprint = Blueprint("usage", "What a team used, exact at once")

LONGEST_RANGE = timedelta(days=366)


@blueprint.route("/teams/<uuid:team_id>/usage")
class Usage(Resource):
    @requires(Permission.usage_read)
    @blueprint.query(DaysQuery)
    @blueprint.lists(DaySchema)
    def get(self, query: dict[str, Any]) -> dict[str, Any]:
        """The days with usage, oldest first; `from` and `to` are both included. Storage is the level at the day's close."""
        page = page_from(query)
        since, until = _days(query["since"], query["until"])
        return envelope(usage.daily(self.session, self.access, since=since, until=until, page=page))

    @requires(Permission.usage_create)
    @blueprint.body(UsageReportSchema)
    @blueprint.shows(ReportedSchema, 202)
    def post(self, body: dict[str, Any]) -> Reported:
        """Report usage, a batch whole or not at all. An `external_id` counts once, for ever."""
        return operations.report(self.session, self.access, body["events"])


@blueprint.route("/teams/<uuid:team_id>/usage/monthly")
class Month(Resource):
    @requires(Permission.usage_read)
    @blueprint.query(MonthQuery)
    @blueprint.shows(MonthSchema)
    def get(self, query: dict[str, int]) -> dict[str, Any]:
        """A month's totals; storage is the level at its close."""
        year, month = query["year"], query["month"]
        since, until = date(year, month, 1), date(year, month, monthrange(year, month)[1])
        totals = usage.total(self.session, self.access, since=since, until=until)
        return {"year": year, "month": month, **{name: getattr(totals, name) for name in totals.__slots__}}


def _days(since: date | None, until: date | None) -> tuple[date, date]:
    until = until or max(datetime.now(UTC).date(), since or date.min)
    since = since or until.replace(day=1)
    if since > until:
        raise Invalid({"to": ["This is before `from`."]})
    if until - since > LONGEST_RANGE:
        raise Invalid({"from": [f"The range is longer than {LONGEST_RANGE.days} days."]})
    return since, until
