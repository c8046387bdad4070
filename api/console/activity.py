"""The activity log: narrowed by its address, one row open in its place; what proves it, and what was exported of it."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from flask import request
from marshmallow import ValidationError

from api.console.page import Page, blueprint
from api.console.query import ROWS, cursor_page
from api.pagination import encode, page_from
from api.resource import requires
from api.schemas.activity import ActivityFilterSchema, ActivityQuery
from models.access.permissions import Permission
from models.events.catalogue import CATALOGUE
from models.operations.activity_reads import note_read
from models.queries import (
    activity,
    activity_density,
    activity_exports,
    activity_facets,
    chain,
    members,
    proof,
    teams,
)
from models.queries.activity import ActivityView
from models.queries.activity_exports import TIMES
from models.queries.activity_filters import ActivityFilter
from models.queries.paging import Page as PageOfRows
from models.signing import keyring

LATELY = {
    "1h": timedelta(hours=1),
    "24h": timedelta(days=1),
    "7d": timedelta(days=7),
    "30d": timedelta(days=30),
}
"""Of `?last=`: a span of time that moves on with the clock."""
DAY = timedelta(days=1)
SHOWN = timedelta(days=30)
"""In the histogram, where the address says nothing of time."""
FACETS = 8
"""Of each kind, until all are asked for."""
FILTERS = list(ActivityFilterSchema().fields)


def asked_for() -> dict[str, Any]:
    """The address's filters as the API parses them; one that it would refuse is as if it weren't there."""
    several = {"action"}
    given: dict[str, Any] = {
        name: request.args.getlist(name) if name in several else request.args[name]
        for name in (*FILTERS, "at")
        if any(request.args.getlist(name))
    }
    schema = ActivityQuery(only=(*FILTERS, "at"))
    try:
        return dict(schema.load(given))
    except ValidationError as error:
        wrong = error.messages_dict
        return dict(schema.load({name: value for name, value in given.items() if name not in wrong}))


def exportable(given: Mapping[str, Any]) -> dict[str, Any]:
    """The filters that are given, as the API takes them of an export."""
    plain = {name: value for name, value in given.items() if value and name in FILTERS}
    return {
        name: value.isoformat()
        if isinstance(value, datetime)
        else list(value)
        if name == "action"
        else str(value)
        for name, value in plain.items()
    }


class Activity(Page):
    template = "activity.html"

    @requires(Permission.activity_read)
    def get(self) -> Any:
        note_read(self.session, self.access)
        now = datetime.now(UTC)
        given = asked_for()
        at = None if request.args.get("cursor") else given.get("at")
        given.pop("at", None)
        narrowed = bool(exportable(given))
        last = None if given["since"] or given["until"] else request.args.get("last")
        if last in LATELY:
            given["since"] = now - LATELY[last]
        wanted = ActivityFilter(**given)
        page = page_from({"limit": ROWS, "cursor": request.args.get("cursor") or None}, both_ways=True)
        found = activity.in_team(self.session, self.access, wanted, page, at=at)
        facets = activity_facets.count(
            self.session,
            self.access,
            since=wanted.since,
            until=wanted.until,
            workspace_id=wanted.workspace_id,
        )
        return {
            "found": found,
            "previous": encode(found.previous_key, backwards=True) if found.previous_key else None,
            "newest": at is None and not request.args.get("cursor"),
            "open": self._open(found.items),
            "wanted": wanted,
            "last": last if last in LATELY else None,
            "at": at,
            "narrowed": narrowed,
            "export_filters": exportable(given),
            "export_query": "&" + urlencode(exportable(given), doseq=True) if exportable(given) else "",
            "provable": not exportable(given).keys() - TIMES,
            "next_cursor": encode(found.next_key) if found.next_key else None,
            "facets": facets,
            "shown_facets": activity_facets.MOST if request.args.get("facets") == "all" else FACETS,
            "density": self._density(wanted, now),
            "actions": sorted(CATALOGUE),
            "resource_types": sorted({declared.resource_type for declared in CATALOGUE.values()}),
            "signed": _newest_checkpoint(self),
            "people": self._people(facets),
        }

    def _people(self, facets: activity_facets.Facets) -> dict[str, str]:
        """By their ids, as far as the reader may know of them."""
        named = {facet.value: facet.name for facet in facets.users if facet.name}
        if self.may(Permission.members_read):
            page = PageOfRows(limit=200)
            found = members.in_team(self.session, self.access, page).items
            named |= {str(member.user_id): member.user.name for member in found}
        return named

    def _density(self, wanted: ActivityFilter, now: datetime) -> activity_density.Density | None:
        """Of the time that is asked for; None where it has no length."""
        begun = teams.get(self.session, self.access).created_at
        until = min(wanted.until or now, now)
        since = max(wanted.since or until - SHOWN, min(begun, until - DAY))  # nothing was logged earlier
        if since >= until:
            return None
        return activity_density.count(self.session, self.access, wanted, since=since, until=until)

    def _open(self, items: Any) -> dict[str, Any] | None:
        """The row that is open, with the hash that it chains to."""
        view = next((each for each in items if str(each.row.seq) == request.args.get("open")), None)
        if view is None:
            return None
        row = view.row
        return {
            "seq": row.seq,
            "changes": changes_of(view),
            "details": {name: value for name, value in row.details.items() if name != "changes"},
            "previous_hash": chain.hash_before(self.session, row.team_id, row.seq),
            "permalink": f"{request.path}?cursor={encode((row.seq + 1,))}&open={row.seq}",
        }


def changes_of(view: ActivityView) -> list[tuple[str, Any, Any]]:
    """What an update changed: each field with what it was and what it is."""
    changes = view.row.details.get("changes")
    if not isinstance(changes, Mapping):
        return []
    pairs = [(name, pair) for name, pair in changes.items() if isinstance(pair, list) and len(pair) == 2]
    return [(name, before, after) for name, (before, after) in pairs]


def _newest_checkpoint(page: Page) -> Any:
    return next(iter(proof.checkpoints(page.session, page.access, PageOfRows(limit=1)).items), None)


class Proof(Page):
    """What the log is held against: signed checkpoints, to keep copies of."""

    template = "activity_proof.html"

    @requires(Permission.activity_read)
    def get(self) -> Any:
        return {
            "page": proof.checkpoints(self.session, self.access, cursor_page()),
            "head": chain.head(self.session, self.access.team_id),
            "keys": list(keyring().public_keys),
        }


class Exports(Page):
    template = "activity_exports.html"

    @requires(Permission.activity_read)
    def get(self) -> Any:
        page = activity_exports.in_team(self.session, self.access, cursor_page())
        names: dict[UUID, str] = {
            member.user_id: member.user.name
            for member in members.in_team(self.session, self.access, PageOfRows(limit=200)).items
        }
        return {
            "page": page,
            "names": names,
            "busy": any(each.state in {"pending", "running"} for each in page.items),
        }


blueprint.add_url_rule("/teams/<uuid:team_id>/activity", view_func=Activity.as_view("activity"))
blueprint.add_url_rule("/teams/<uuid:team_id>/activity/proof", view_func=Proof.as_view("proof"))
blueprint.add_url_rule("/teams/<uuid:team_id>/activity/exports", view_func=Exports.as_view("exports"))
