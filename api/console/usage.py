"""A month's usage: a chart for each metric, whose bars open to the ledger's rows; what it comes to, and whether it adds up."""

from calendar import monthrange
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from flask import request
from flask_babel import lazy_gettext

from api.console import charts
from api.console.page import Page, blueprint
from api.console.quantities import LABELS
from api.resource import requires
from api.usage import month_of
from models.access.permissions import Permission
from models.plans import Terms
from models.queries import reservations, usage, usage_alerts, usage_proof, usage_reports, usage_stacks
from models.queries.month_usage import BYTES_PER_GB, plans_in
from models.queries.paging import Page as PageOfRows
from models.queries.usage import StorageDay
from models.queries.usage_reports import Group, Projection
from models.queries.usage_stacks import Share
from models.tables.usage import UNSETTLED, Metric

BY = {
    Group.user: lazy_gettext("People"),
    Group.agent: lazy_gettext("Agents"),
    Group.api_key: lazy_gettext("API keys"),
    Group.workspace: lazy_gettext("Workspaces"),
}
NOBODY = {
    Group.user: lazy_gettext("No person"),
    Group.agent: lazy_gettext("No agent"),
    Group.api_key: lazy_gettext("No key"),
    Group.workspace: lazy_gettext("No workspace that you see"),
}
SHOWS = ("day", "sum", "table")
MOST_MODELS = 500
LATEST_UNSETTLED = 10


@dataclass(frozen=True, slots=True)
class Series:
    """One of those that a bar is made of."""

    rank: int
    name: Any
    total: int
    ledger: str | None
    """The address of its rows; the rest together have none."""


@dataclass(frozen=True, slots=True)
class MetricView:
    """A metric's month, as the page shows it."""

    metric: Metric
    label: Any
    projection: Projection
    included: int | None
    """In the metric's own unit, of storage bytes; None where the plan says nothing of it."""
    is_hard: bool
    gauge: charts.Gauge | None
    chart: charts.Chart
    series: Sequence[Series]

    @property
    def percent(self) -> int | None:
        return self.projection.used * 100 // self.included if self.included else None


class Usage(Page):
    template = "usage.html"

    @requires(Permission.usage_read)
    def get(self) -> Any:
        now = datetime.now(UTC)
        month = month_argument(now.date())
        since, until = month_of(month.year, month.month)
        by = Group(request.args["by"]) if request.args.get("by") in set(BY) else Group.user
        show = request.args.get("show") if request.args.get("show") in SHOWS else SHOWS[0]
        # Before the totals: what is settled in between is in both for a moment, and never in neither.
        unsettled = reservations.unsettled(self.session, self.access, since=since, until=until)
        stored = usage.storage(
            self.session, self.access, since=since, until=until, page=PageOfRows(limit=31)
        ).items
        return {
            "now": now,
            "month": month,
            "until": until,
            "before": (month - timedelta(days=1)).replace(day=1),
            "after": until + timedelta(days=1) if until < now.date() else None,
            "by": by,
            "groups": BY,
            "show": show,
            "metrics": self._metrics(month, by, str(show), stored, now.date()),
            "stored": stored,
            "models": self._models(since, until),
            "alerts": usage_alerts.of_month(self.session, self.access, month),
            "unsettled": unsettled,
            "waiting": reservations.in_team(
                self.session, self.access, PageOfRows(limit=LATEST_UNSETTLED), state=UNSETTLED
            ).items
            if unsettled.count
            else [],
            "proof": self._proof(since, until) if request.args.get("recount") else None,
        }

    def _metrics(
        self, month: date, by: Group, show: str, stored: Sequence[StorageDay], today: date
    ) -> list[MetricView]:
        days = [month + timedelta(days=number) for number in range(monthrange(month.year, month.month)[1])]
        terms = self._terms(month)
        projections = usage_reports.projection(self.session, self.access, year=month.year, month=month.month)
        found = usage_stacks.shares(
            self.session, self.access, since=days[0], until=days[-1], by=by, most=charts.SHADES
        )
        views = []
        for metric, label in LABELS.items():
            projection = projections[metric]
            included = _included(metric, terms.get(metric))
            shares = [share for share in found if share.metric is metric]
            is_level = metric is Metric.storage_bytes
            views.append(
                MetricView(
                    metric=metric,
                    label=label,
                    projection=projection,
                    included=included,
                    is_hard=metric in terms and terms[metric].is_hard,
                    gauge=charts.gauge(projection.used, projection.linear, included or 0),
                    chart=_storage_chart(days, stored, projection, included, today)
                    if is_level
                    else _chart(days, shares, projection, included, adds_up=show == "sum", today=today),
                    series=[] if is_level else self._series(shares, metric, by, days),
                )
            )
        return views

    def _terms(self, month: date) -> Mapping[str, Terms]:
        """Of the month's last plan."""
        plans = plans_in(self.session, self.access.team_id, month)
        return plans[-1].plan.metrics if plans else {}

    def _series(
        self, shares: Sequence[Share], metric: Metric, by: Group, days: Sequence[date]
    ) -> list[Series]:
        totals: dict[int, int] = defaultdict(int)
        of: dict[int, Share] = {}
        for share in shares:
            totals[share.rank] += share.quantity
            of[share.rank] = share
        found = []
        for rank in sorted(totals, key=lambda rank: rank or charts.SHADES + 1):
            if not rank:
                found.append(Series(0, lazy_gettext("All others"), totals[0], None))
                continue
            share = of[rank]
            address = ledger_address(
                self.access.team_id,
                metric=metric,
                **{"from": days[0], "to": days[-1], by.column: share.id or "none"},
            )
            name = NOBODY[by] if share.id is None else share.name
            found.append(Series(rank, name, totals[rank], address))
        return found

    def _models(self, since: date, until: date) -> Any:
        """The tokens by model and part: models with the most tokens first, each with what its parts used."""
        found = usage_reports.breakdown(
            self.session,
            self.access,
            since=since,
            until=until,
            by=[Group.model, Group.part],
            metric=Metric.llm_tokens_used,
            page=PageOfRows(limit=MOST_MODELS),
        ).items
        models: dict[str | None, dict[str | None, int]] = defaultdict(dict)
        for row in found:
            models[row["model"]][row["part"]] = row["quantity"]
        return sorted(models.items(), key=lambda item: -sum(item[1].values()))

    def _proof(self, since: date, until: date) -> Any:
        counts = usage_proof.counts(self.session, self.access.team_id, since=since, until=until)
        return {
            "valid": all(each.valid for each in counts.values()),
            "metrics": usage_proof.by_metric(counts),
            "different": [(day, metric, each) for (day, metric), each in counts.items() if not each.valid],
        }


def month_argument(today: date) -> date:
    """The first day of the month in the address, or of the present one; none that has not begun."""
    try:
        wanted = datetime.strptime(request.args.get("month", ""), "%Y-%m").replace(tzinfo=UTC).date()
    except ValueError:
        return today.replace(day=1)
    return wanted if date(2000, 1, 1) <= wanted <= today else today.replace(day=1)


def ledger_address(team_id: UUID, **filters: Any) -> str:
    """Of the page with the ledger's rows that match."""
    return f"/teams/{team_id}/usage/ledger?{urlencode(filters)}"


def _included(metric: Metric, terms: Terms | None) -> int | None:
    if terms is None:
        return None
    return terms.included * (BYTES_PER_GB if metric is Metric.storage_bytes else 1)


def _chart(
    days: Sequence[date],
    shares: Sequence[Share],
    projection: Projection,
    included: int | None,
    *,
    adds_up: bool,
    today: date,
) -> charts.Chart:
    parts: dict[date, dict[int, int]] = defaultdict(dict)
    for share in shares:
        parts[share.date][share.rank] = share.quantity
    if adds_up:
        return charts.adding_up(days, parts, today=today, projected=projection.linear, limit=included)
    ahead = sum(day > today for day in days)
    pace = (projection.linear - projection.used) // ahead if ahead else 0
    even = included // len(days) if included else None
    return charts.by_day(days, parts, today=today, pace=pace, even=even)


def _storage_chart(
    days: Sequence[date],
    stored: Sequence[StorageDay],
    projection: Projection,
    included: int | None,
    today: date,
) -> charts.Chart:
    parts = {day.date: {1: day.close} for day in stored}
    return charts.levels(days, parts, today=today, projected=projection.linear, limit=included)


blueprint.add_app_template_global(ledger_address)
blueprint.add_url_rule("/teams/<uuid:team_id>/usage", view_func=Usage.as_view("usage"))
