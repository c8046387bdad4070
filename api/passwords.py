"""Changing one's password, and resetting one that was forgotten."""

from typing import Any

from api.authentication import origin
from api.blueprint import Blueprint
from api.hashing import ChecksPassword, PreparedResource, read_body
from api.limits import limit_sign_in
from api.offload import off_the_loop
from api.resource import PUBLIC, SIGNED_IN, Resource, requires
from api.schemas.passwords import (
    PasswordChangeSchema,
    PasswordResetRequestedSchema,
    PasswordResetRequestSchema,
    PasswordResetSchema,
)
from models.access.emails import normalize_email
from models.access.passwords import hash_password
from models.database import transaction
from models.errors import Invalid
from models.operations import mailed_tokens, mails, passwords
from models.queries import users
from models.tables.accounts import RESET_PASSWORD

blueprint = Blueprint("passwords", "Changing and resetting a password")


@blueprint.route("/auth/request-password-reset")
class PasswordResetRequest(Resource):
    decorators = [limit_sign_in]

    @requires(PUBLIC)
    @blueprint.body(PasswordResetRequestSchema)
    @blueprint.shows(PasswordResetRequestedSchema, 202)
    def post(self, body: dict[str, str]) -> dict[str, Any]:
        """Mail a token to reset the password to whoever has this address; the answer does not say whether anybody has."""
        mails.enqueue_reset(self.session, normalize_email(body["email"]))
        return {}


@blueprint.route("/auth/reset-password")
class PasswordReset(PreparedResource):
    decorators = [limit_sign_in]
    password_hash: str | None = None

    def prepare_post(self) -> None:
        body = read_body(PasswordResetSchema)
        with transaction() as session:  # a token that is none costs no hashing
            good = mailed_tokens.user_of(session, body["token"], RESET_PASSWORD) is not None
        if good:
            self.password_hash = off_the_loop(hash_password, body["password"])

    @requires(PUBLIC)
    @blueprint.body(PasswordResetSchema)
    @blueprint.shows_nothing()
    def post(self, body: dict[str, str]) -> None:
        """Set another password by a mailed token; it works once and for an hour, and ends all sessions."""
        if self.password_hash is None:
            raise mailed_tokens.not_good()
        passwords.reset(self.session, token=body["token"], password_hash=self.password_hash, origin=origin())


@blueprint.route("/me/password")
class Password(ChecksPassword):
    decorators = [limit_sign_in]
    password_hash: str

    def prepare_put(self) -> None:
        _, body = self.check_password(PasswordChangeSchema, "current_password")
        if self.password_was_right:
            self.password_hash = off_the_loop(hash_password, body["password"])

    @requires(SIGNED_IN)
    @blueprint.body(PasswordChangeSchema)
    @blueprint.shows_nothing()
    def put(self, body: dict[str, str]) -> None:
        """Change one's password; it ends all sessions but the one that asks."""
        user = users.get(self.session, self.actor.user_id, for_update=True)
        if not self.password_is_of(user):
            raise Invalid({"current_password": ["This is not your password."]})
        passwords.change(self.session, self.actor, user, password_hash=self.password_hash)
