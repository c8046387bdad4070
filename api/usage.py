"""Usage: reported in, read out."""

from calendar import monthrange
from datetime import UTC, date, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from api.blueprint import BASE, Blueprint
from api.pagination import envelope, page_from
from api.resource import Resource, requires
from api.schemas.usage import (
    BreakdownQuery,
    BreakdownSchema,
    DaySchema,
    DaysQuery,
    MonthQuery,
    MonthSchema,
    ProjectionsSchema,
    ProofSchema,
    ReportedSchema,
    StorageDaySchema,
    UsageReportSchema,
)
from models.access.permissions import Permission
from models.errors import Invalid
from models.operations import usage as operations
from models.operations.usage import Reported
from models.queries import reservations, usage, usage_proof, usage_reports
from models.queries.usage_reports import Group

blueprint = Blueprint("usage", "What a team used, exact at once")

LONGEST_RANGE = timedelta(days=366)


@blueprint.route("/teams/<uuid:team_id>/usage")
class Usage(Resource):
    reads_alone = True

    @requires(Permission.usage_read)
    @blueprint.query(DaysQuery)
    @blueprint.lists(DaySchema)
    def get(self, query: dict[str, Any]) -> dict[str, Any]:
        """The days with usage, oldest first; `from` and `to` are both included. Storage is the level at the day's close."""
        page = page_from(query)
        since, until = days(query["since"], query["until"])
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
        """A month's totals; storage is the level at its close. What was reserved and never settled is shown beside them."""
        since, until = month_of(**query)
        # Before the totals: what is settled in between is in both for a moment, and never in neither.
        unsettled = reservations.unsettled(self.session, self.access, since=since, until=until)
        totals = usage.total(self.session, self.access, since=since, until=until)
        return {**query, **{name: getattr(totals, name) for name in totals.__slots__}, "unsettled": unsettled}


@blueprint.route("/teams/<uuid:team_id>/usage/storage")
class Storage(Resource):
    @requires(Permission.usage_read)
    @blueprint.query(DaysQuery)
    @blueprint.lists(StorageDaySchema)
    def get(self, query: dict[str, Any]) -> dict[str, Any]:
        """The storage of each day from the first change on, until today; late reports change their day."""
        page = page_from(query)
        since, until = days(query["since"], query["until"])
        return envelope(usage.storage(self.session, self.access, since=since, until=until, page=page))


@blueprint.route("/teams/<uuid:team_id>/usage/breakdown")
class Breakdown(Resource):
    @requires(Permission.usage_read)
    @blueprint.query(BreakdownQuery)
    @blueprint.lists(BreakdownSchema)
    def get(self, query: dict[str, Any]) -> dict[str, Any]:
        """Whose usage it is and of what: by metric and each group, every row with where its ledger rows are."""
        page = page_from(query)
        since, until = days(query["since"], query["until"])
        found = usage_reports.breakdown(
            self.session,
            self.access,
            since=since,
            until=until,
            by=query["by"],
            metric=query["metric"],
            page=page,
        )
        items = [{**row, "ledger": self._ledger(row, since, until)} for row in found.items]
        return envelope(found, items)

    def _ledger(self, row: dict[str, Any], since: date, until: date) -> str:
        """The path and query of the rows that it is the sum of."""
        day = row.get("date")
        filters = {"from": day or since, "to": day or until, "metric": row["metric"]}
        columns = [group.column for group in Group if group is not Group.date and group.column in row]
        filters |= {name: "" if row[name] is None else row[name] for name in columns}
        return f"{BASE}/teams/{self.access.team_id}/usage/ledger?{urlencode(filters)}"


@blueprint.route("/teams/<uuid:team_id>/usage/projection")
class Projections(Resource):
    @requires(Permission.usage_read)
    @blueprint.query(MonthQuery)
    @blueprint.shows(ProjectionsSchema)
    def get(self, query: dict[str, int]) -> dict[str, Any]:
        """What the month will come to by its end, at two paces."""
        return {**query, "metrics": usage_reports.projection(self.session, self.access, **query)}


@blueprint.route("/teams/<uuid:team_id>/usage/verify")
class Verify(Resource):
    @requires(Permission.usage_read)
    @blueprint.query(MonthQuery)
    @blueprint.shows(ProofSchema)
    def get(self, query: dict[str, int]) -> dict[str, Any]:
        """Recounts the month from the ledger, and compares it with what the reports and the daily figures say."""
        since, until = month_of(**query)
        counts = usage_proof.counts(self.session, self.access.team_id, since=since, until=until)
        metrics = usage_proof.by_metric(counts)
        return {**query, "valid": all(each.valid for each in counts.values()), "metrics": metrics}


def month_of(year: int, month: int) -> tuple[date, date]:
    """Its first and its last day."""
    return date(year, month, 1), date(year, month, monthrange(year, month)[1])


def days(since: date | None, until: date | None) -> tuple[date, date]:
    """From and to, both included; the month so far without them. Raises Invalid for more than LONGEST_RANGE."""
    until = until or max(datetime.now(UTC).date(), since or date.min)
    since = since or until.replace(day=1)
    if since > until:
        raise Invalid({"to": ["This is before `from`."]})
    if until - since > LONGEST_RANGE:
        raise Invalid({"from": [f"The range is longer than {LONGEST_RANGE.days} days."]})
    return since, until
