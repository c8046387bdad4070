"""
Argon2 and what else must not run inside a request's transaction: it takes tens of milliseconds, and a connection or a lock
held meanwhile would be one that others wait for.
"""

from typing import Any

from flask import request
from marshmallow import Schema

from api.authentication import credential
from api.blueprint import Blueprint
from api.offload import off_the_loop
from api.resource import Resource
from models.access.actor import Actor
from models.access.entry import enter
from models.access.passwords import verify_password
from models.database import transaction
from models.queries import users
from models.tables import User


class PreparedResource(Resource):
    """
    Its `prepare_<method>` runs before the transaction and raises nothing but what is wrong with the credential or the body:
    what it found is decided on in the method itself, where the answer of an Idempotency-Key comes first. What it read may
    have changed by then, so the method looks again, under the user's lock.
    """

    def dispatch_request(self, **path: Any) -> Any:
        prepare = getattr(self, f"prepare_{request.method.lower()}", None)
        if prepare is not None:
            prepare()
        return super().dispatch_request(**path)


class ChecksPassword(PreparedResource):
    """A route of someone who is signed in and has to give the present password again."""

    _verified_hash: str | None = None

    def check_password(self, schema: type[Schema], field: str) -> tuple[Actor, dict[str, Any]]:
        """Whoever asks and the body, whose field the password is in; `password_is_of` then says whether it was right."""
        with transaction() as session:
            actor = enter(session, credential())
            stored = users.get(session, actor.user_id).password_hash
        body = read_body(schema)
        if off_the_loop(verify_password, stored, body[field]):
            self._verified_hash = stored
        return actor, body

    @property
    def password_was_right(self) -> bool:
        return self._verified_hash is not None

    def password_is_of(self, user: User) -> bool:
        """Whether the password that was checked is that of the locked user."""
        return self._verified_hash == user.password_hash


def read_body(schema: type[Schema]) -> dict[str, Any]:
    """The request's body as its view will get it; raises Invalid."""
    body: dict[str, Any] = Blueprint.ARGUMENTS_PARSER.parse(schema, request, location="json")
    return body
