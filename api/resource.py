"""
`Resource`: one transaction per request, entered before anything of the request is read.

The order is the same for every route: open the transaction → enter (401, 404, 403) → the kept answer of an
Idempotency-Key → parse (422) → operate → dump → commit → wake the drain. So a stranger's bad body is a 404.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from hashlib import blake2b
from typing import Any, ClassVar, TypeVar
from uuid import UUID

from flask import Response, current_app, g, make_response, request
from flask.views import MethodView
from marshmallow import Schema
from sqlalchemy.orm import Session

from api import idempotency
from api.authentication import credential
from api.json import dumps
from api.waker import wake_drain
from models.access.actor import Actor
from models.access.entry import Access, enter, enter_team
from models.access.permissions import Permission
from models.database import transaction
from models.errors import PreconditionFailed
from models.events.record import EVENTS_RECORDED
from models.metrics import ENTER_SECONDS

F = TypeVar("F", bound=Callable[..., Any])


class Need(Enum):
    """What a route needs when it is no permission in a team."""

    PUBLIC = "public"
    SIGNED_IN = "signed_in"
    MEMBER = "member"
    """Being in the team (or having a key of it), whatever the role: for questions about oneself."""


PUBLIC, SIGNED_IN, MEMBER = Need.PUBLIC, Need.SIGNED_IN, Need.MEMBER


@dataclass(frozen=True, slots=True)
class Requirement:
    needs: Permission | Need
    unless_self: str | None = None
    """A path parameter: where it is the caller's own user id, membership is enough."""


def requires(needs: Permission | Need, *, unless_self: str | None = None) -> Callable[[F], F]:
    """Declares what a route needs. A route without a declaration stops the application from starting."""

    def declare(view: F) -> F:
        view.requirement = Requirement(needs, unless_self)  # type: ignore[attr-defined]  # read by requirement_of
        return view

    return declare


def requirement_of(view: Any) -> Requirement | None:
    return getattr(view, "requirement", None)


def declared(view: Any, method: str) -> Requirement | None:
    """What a route's view function requires for an HTTP method, be it a view class's or a function's."""
    return requirement_of(getattr(getattr(view, "view_class", view), method.lower(), view))


class Resource(MethodView):
    """A view class. Its methods find the open `session` and, by what they require, the `actor` or the `access`."""

    shown_as: ClassVar[type[Schema] | None] = None
    """The schema of a single resource: its answers carry an ETag, and `check_match` honours If-Match."""

    session: Session
    actor: Actor
    access: Access
    secret_of: UUID | None = None
    """Set to the id of what was made when the answer carries a secret: then it is not kept for its Idempotency-Key."""

    def dispatch_request(self, **path: Any) -> Any:
        with transaction() as self.session:
            self._enter(path)
            kept = idempotency.claim(self.session)
            response = kept or self._respond(path)
        if self.session.info.get(EVENTS_RECORDED):
            wake_drain()
        return response

    def check_match(self, row: Any) -> None:
        """Raises PreconditionFailed unless If-Match names the locked row's present state, or nothing."""
        wanted = request.if_match
        if not wanted or wanted.star_tag:
            return
        if self.shown_as is None or not wanted.contains(etag_of(dumps(self.shown_as().dump(row)))):
            raise PreconditionFailed("It has changed since you read it; read it again and decide anew.")

    def _enter(self, path: dict[str, Any]) -> None:
        view = getattr(self, request.method.lower(), None) or getattr(self, "get", None)
        requirement = requirement_of(view)
        if requirement is None or requirement.needs is PUBLIC:
            return
        if requirement.needs is SIGNED_IN:
            self.actor = enter(self.session, credential())
            g.user_id = self.actor.user_id
            return
        with ENTER_SECONDS.time():
            self.access = enter_team(
                self.session,
                credential(),
                path.pop("team_id"),
                workspace_id=path.get("workspace_id"),
                task_id=path.get("task_id"),
                leaving=path.get(requirement.unless_self) if requirement.unless_self else None,
            )
        g.user_id, g.access = self.access.user_id, self.access
        oneself = requirement.unless_self and path.get(requirement.unless_self) == self.access.user_id
        if isinstance(requirement.needs, Permission) and not oneself:
            self.access.require(requirement.needs)

    def _respond(self, path: dict[str, Any]) -> Response:
        response: Response = make_response(current_app.ensure_sync(super().dispatch_request)(**path))
        # An answer with a secret is of nothing that could be read again.
        tagged = self.shown_as is not None and self.secret_of is None
        if tagged and response.is_json and 200 <= response.status_code < 300:
            response.set_etag(etag_of(response.get_data(as_text=True)))
            response.make_conditional(request.environ)
        idempotency.keep(self.session, response, secret_of=self.secret_of)
        return response


def etag_of(body: str) -> str:
    """The state of a resource as its reader sees it: a hash of its JSON."""
    return blake2b(body.encode(), digest_size=12).hexdigest()
