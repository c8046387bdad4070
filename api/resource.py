"""
`Resource`: one transaction per request, entered before anything of the request is read.

The order is the same for every route: open the transaction → enter (401, 404, 403, 402) → the kept answer of an
Idempotency-Key → parse (422) → operate → dump → commit → wake the drain. So a stranger's bad body is a 404.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from hashlib import blake2b
from typing import Any, ClassVar, TypeVar
from uuid import UUID

from flask import Response, current_app, g, make_response, request
from flask.views import MethodView
from marshmallow import Schema
from sqlalchemy.orm import Session

from api import idempotency, metering
from api.authentication import credential
from api.json import dumps, receive_body
from api.waker import wake_drain
from models.access.actor import Actor, Named
from models.access.entry import Access, enter, enter_team
from models.access.permissions import Permission
from models.database import single_statements, transaction
from models.errors import DomainError, PermissionDenied, PreconditionFailed
from models.events.record import EVENTS_RECORDED
from models.metrics import ENTER_SECONDS
from models.operations import refusals
from models.tracing import tracing

F = TypeVar("F", bound=Callable[..., Any])


class Need(Enum):
    """What a route needs when it is no permission in a team."""

    PUBLIC = "public"
    SIGNED_IN = "signed_in"
    MEMBER = "member"
    """Being in the team (or having a key of it), whatever the role: for questions about oneself."""


BODILESS = frozenset({"GET", "HEAD", "OPTIONS"})
PUBLIC, SIGNED_IN, MEMBER = Need.PUBLIC, Need.SIGNED_IN, Need.MEMBER


@dataclass(frozen=True, slots=True)
class Requirement:
    needs: Permission | Need
    unless_self: str | None = None
    """A path parameter: where it is the caller's own user id, membership is enough."""
    past_call_limit: bool = False
    """Whether it is answered, and counted, though no API call is left of the plan: what shows or lifts that limit."""


def requires(
    needs: Permission | Need, *, unless_self: str | None = None, past_call_limit: bool = False
) -> Callable[[F], F]:
    """Declares what a route needs. A route without a declaration stops the application from starting."""

    def declare(view: F) -> F:
        requirement = Requirement(needs, unless_self, past_call_limit)
        view.requirement = requirement  # type: ignore[attr-defined]  # read by requirement_of
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

    reads_alone: ClassVar[bool] = False
    """
    Whether its GET is statements that change nothing and need no common state of the database (outside a snapshot each sees
    its own anyway): then each is its own transaction, which saves the round trips of BEGIN and COMMIT.
    """

    session: Session
    actor: Actor
    access: Access
    refused: Sequence[DomainError] = ()
    """What was refused of a call that as a whole was not: of what it asked for at once, each for itself."""
    secret_of: UUID | None = None
    """Set to the id of what was made when the answer carries a secret: then it is not kept for its Idempotency-Key."""

    def dispatch_request(self, **path: Any) -> Any:
        if request.method not in BODILESS:
            receive_body()  # before there is a transaction: a slow sender keeps no connection from others
        alone = self.reads_alone and request.method in {"GET", "HEAD"}
        try:
            with (single_statements if alone else transaction)() as self.session:
                self._enter(path)
                kept = idempotency.claim(self.session)
                response = kept or self._respond(path)
                taken = not alone and self._take_call(self.session)
            # Only the call could be undone; after the session, so that one connection is taken at a time.
            if alone and self._is_call_limited():
                with transaction() as session:
                    taken = self._take_call(session)
        except PermissionDenied as refusal:
            self._note([refusal])
            raise
        if taken:
            metering.settled()
        if self.session.info.get(EVENTS_RECORDED):
            wake_drain()
        self._note(self.refused)
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
        g.past_call_limit = requirement.past_call_limit
        if self._is_call_limited():
            metering.refuse_call(self.session, self.access)

    def _is_call_limited(self) -> bool:
        return metering.is_limited(g.get("access"))

    def _take_call(self, session: Session) -> bool:
        """Counts the request where the plan limits calls hard: last of all, so that nobody waits for long; whether it did."""
        if not self._is_call_limited():
            return False
        metering.take_call(session, self.access)
        return True

    def _note(self, refused: Sequence[DomainError]) -> None:
        """Notes what somebody of the team was refused. A stranger was told that the team is absent, and is no news to it."""
        denied = [each for each in refused if isinstance(each, PermissionDenied)]
        access: Access | None = getattr(self, "access", None)
        for missing, count in Counter(each.missing for each in denied).items():
            by = next(each.by for each in denied if each.missing == missing) or (access and access.named)
            if isinstance(by, Named):
                with transaction() as session:
                    refusals.note(
                        session, by, missing, method=request.method, route=route_template(), count=count
                    )
                if session.info.get(EVENTS_RECORDED):
                    wake_drain()

    def _respond(self, path: dict[str, Any]) -> Response:
        with tracing.span(f"operation {request.endpoint}"):
            response: Response = make_response(current_app.ensure_sync(super().dispatch_request)(**path))
        # An answer with a secret is of nothing that could be read again.
        tagged = self.shown_as is not None and self.secret_of is None
        if tagged and response.is_json and 200 <= response.status_code < 300:
            response.set_etag(etag_of(response.get_data(as_text=True)))
            response.make_conditional(request.environ)
        idempotency.keep(self.session, response, secret_of=self.secret_of)
        return response


CONVERTED = re.compile(r"<(?:\w+:)?(\w+)>")


def route_template() -> str:
    """The route of this request as the documentation writes it: `/api/v1/teams/{team_id}`."""
    return CONVERTED.sub(r"{\1}", request.url_rule.rule if request.url_rule else "")


def etag_of(body: str) -> str:
    """The state of a resource as its reader sees it: a hash of its JSON."""
    return blake2b(body.encode(), digest_size=12).hexdigest()
