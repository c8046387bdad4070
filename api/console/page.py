"""
A page: what `get` returns, in its template, within the frame that all pages share. Pages read; whatever a person changes, their
browser asks of the API, by the same cookie. So a page can do nothing that the API can't.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import urlencode

from flask import Blueprint, Response, current_app, g, make_response, redirect, render_template, request
from flask_babel import gettext, lazy_gettext
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as AnyResponse

from api import assets, cookies
from api.console import formats, sentences, words
from api.console.effects import answer
from api.errors import STATUS, http_problem, log
from api.problem_texts import said
from api.resource import Resource
from models.access.entry import Access
from models.access.permissions import Permission
from models.database import transaction
from models.errors import DomainError, NotFound, PermissionDenied, Unauthenticated
from models.queries import activity, teams, users
from models.queries.paging import Page as PageOfRows
from models.queries.permissions import Subject

blueprint = Blueprint("console", __name__, template_folder="templates")

# Nothing but our own files; no inline script or style, and nobody frames us.
POLICY = "; ".join((
    "default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self' data:", "font-src 'self'",
    "connect-src 'self'", "manifest-src 'self'", "form-action 'self'", "base-uri 'none'", "frame-ancestors 'none'",
))  # fmt: skip
OF_PROGRAMS = ("/api/", "/ws/", "/static/", "/health")
"""Where nobody browses: an unknown address there is answered as the API does."""
MOST_TEAMS = 100
"""In the switcher."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the rail, for those who have its permission."""

    endpoint: str
    label: Any
    icon: str
    needs: Permission


RAIL: list[Entry] = [
    Entry("overview", lazy_gettext("Overview"), "home", Permission.teams_read),
    Entry("tasks", lazy_gettext("Tasks"), "tasks", Permission.tasks_read),
    Entry("members", lazy_gettext("Members"), "people", Permission.members_read),
    Entry("roles", lazy_gettext("Roles"), "shield", Permission.roles_read),
    Entry("activity", lazy_gettext("Activity"), "list", Permission.activity_read),
    Entry("usage", lazy_gettext("Usage"), "chart", Permission.usage_read),
    Entry("invoices", lazy_gettext("Invoices"), "receipt", Permission.billing_read),
    Entry("keys", lazy_gettext("Agents & keys"), "key", Permission.api_keys_read),
    Entry("webhooks", lazy_gettext("Webhooks"), "hook", Permission.webhooks_read),
    Entry("team_settings", lazy_gettext("Settings"), "gear", Permission.teams_read),
]


class Page(Resource):
    """
    `get` declares what it needs, as an API's route does, and returns what its template gets; or a response of its own.

    The template also finds `me`, `team` (with the role of whoever reads), `may(permission)`, `rail` and `my_teams`.
    """

    template: ClassVar[str]
    head: int | None = None
    """The last `seq` of the team's log before anything was read for the page; None for who gets no events."""

    def _respond(self, path: dict[str, Any]) -> Response:
        if self.may(Permission.realtime_read):
            # Read first: what the page shows is at least as new, and its socket gets all that is newer.
            self.head = activity.heads(self.session, [self.access.team_id]).get(self.access.team_id, 0)
        found = self.get(**path)  # type: ignore[attr-defined]  # each page has one
        if isinstance(found, AnyResponse):
            return make_response(found)
        return make_response(render_template(f"console/{self.template}", **self._frame(), **found))

    def _frame(self) -> dict[str, Any]:
        token = cookies.token()
        frame: dict[str, Any] = {"csrf_token": cookies.csrf_token(token) if token else "", "may": self.may}
        if "user_id" in g:
            frame["me"] = users.get(self.session, g.user_id)
        if hasattr(self, "access"):
            frame["team"] = teams.get(self.session, self.access)
            frame["role"] = self.access.role
            frame["access"] = self.access
            frame["page_seq"] = self.head
            frame["rail"] = [
                entry
                for entry in RAIL
                if self.may(entry.needs) and f"console.{entry.endpoint}" in current_app.view_functions
            ]
            frame["my_teams"] = teams.mine(self.session, self.access, PageOfRows(limit=MOST_TEAMS)).items
        return frame

    def may(self, permission: Permission | str) -> bool:
        """Whether who reads this holds the permission in the team (or workspace) that was entered."""
        return hasattr(self, "access") and str(permission) in self.access.permissions


@blueprint.after_request
def add_headers(response: Response) -> Response:
    response.headers["Content-Security-Policy"] = POLICY
    response.headers["Referrer-Policy"] = "same-origin"
    response.headers["Vary"] = "Cookie, Accept-Language"
    assets.compress(response)
    return response


@blueprint.errorhandler(DomainError)
def show_error(error: DomainError) -> Response | AnyResponse:
    """The error as a page; who is not signed in is asked to, and comes back to where they were."""
    if isinstance(error, Unauthenticated):
        return redirect("/sign-in?" + urlencode({"next": request.full_path.rstrip("?")}))
    if isinstance(error, PermissionDenied) and error.missing in set(Permission):
        what = gettext(Permission(error.missing).description).rstrip(".")
        detail = gettext("Your role does not grant what this page needs: %(what)s.", what=what)
        return error_page(403, detail, missing=error.missing, givers=_givers(Permission(error.missing)))
    if isinstance(error, NotFound):
        return error_page(404, gettext("It is not here, or it is not yours to see."))
    return error_page(STATUS[error.code], said(error.detail))


def _givers(missing: Permission) -> list[str]:
    """The names of those who could give the permission to whoever asks, if who is in the team is theirs to see."""
    access: Access | None = g.get("access")
    if access is None or Permission.members_read not in access.permissions:
        return []
    with transaction() as session:
        found = answer(session, access, Subject(access.user_id), missing)
        return [giver.user.name for giver in found.givers]


@blueprint.errorhandler(HTTPException)
def show_http_error(error: HTTPException) -> Response:
    status = error.code or 500
    detail = gettext("There is nothing at this address.") if status == 404 else said(error.description or "")
    return error_page(status, detail)


@blueprint.app_errorhandler(404)
def show_absent(error: HTTPException) -> Response:
    """A page for whoever looks for one; programs get the API's answer."""
    if request.path.startswith(OF_PROGRAMS) or not request.accept_mimetypes.accept_html:
        return http_problem(error)
    return add_headers(show_http_error(error))


@blueprint.errorhandler(Exception)
def show_unexpected(error: Exception) -> Response:
    log.error("unexpected error", exc_info=error)
    return error_page(500, gettext("Something went wrong on our side."))


def error_page(
    status: int, detail: str, *, missing: str | None = None, givers: Sequence[str] = ()
) -> Response:
    """What happened, what to do, and the request's id to copy."""
    token = cookies.token()
    return make_response(
        render_template(
            "console/error.html",
            status=status,
            detail=detail,
            missing=missing,
            givers=givers,
            request_id=g.get("request_id"),
            csrf_token=cookies.csrf_token(token) if token else "",
        ),
        status,
    )


formats.register(blueprint)
words.register(blueprint)
sentences.register(blueprint)
blueprint.add_app_template_filter(said)
blueprint.add_app_template_global(assets.address, "asset")
