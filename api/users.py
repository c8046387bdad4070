"""Accounts, signing in and out, and one's own sessions."""

from typing import Any
from uuid import UUID

from api.authentication import origin
from api.blueprint import Blueprint
from api.limits import limit_sign_in
from api.offload import off_the_loop
from api.pagination import envelope, page_from
from api.resource import PUBLIC, SIGNED_IN, Resource, requires
from api.schemas.base import PageQuery
from api.schemas.users import (
    LoginSchema,
    ProfileSchema,
    RegisterSchema,
    SessionSchema,
    SignedInSchema,
    UserSchema,
)
from models.access.emails import normalize_email
from models.access.passwords import hash_password, verify_password
from models.database import transaction
from models.errors import Unauthenticated
from models.operations import sessions, users
from models.queries import users as accounts
from models.settings import settings
from models.tables import User

blueprint = Blueprint("users", "Accounts, sign-in and sessions")


class SigningIn(Resource):
    """What registering and signing in have in common: the answer, and its secret."""

    decorators = [limit_sign_in]

    def signed_in(self, user: User) -> dict[str, Any]:
        opened, token = sessions.open_session(
            self.session, user, origin=origin(), days=settings().session_days
        )
        self.secret_of = opened.id
        return {"user": user, "token": token, "expires_at": opened.expires_at}


@blueprint.route("/auth/register")
class Register(SigningIn):
    @requires(PUBLIC)
    @blueprint.body(RegisterSchema)
    @blueprint.shows(SignedInSchema, 201)
    def post(self, body: dict[str, str]) -> dict[str, Any]:
        """Make an account and sign in."""
        password_hash = off_the_loop(hash_password, body["password"])
        user = users.register(
            self.session, email=body["email"], name=body["name"], password_hash=password_hash
        )
        answer = self.signed_in(user)
        self.secret_of = user.id
        return answer


@blueprint.route("/auth/login")
class Login(SigningIn):
    @requires(PUBLIC)
    @blueprint.body(LoginSchema)
    @blueprint.shows(SignedInSchema)
    def post(self, body: dict[str, str]) -> dict[str, Any]:
        """Sign in. The answer, and the time that it takes, are the same for an unknown address and a wrong password."""
        address = normalize_email(body["email"])
        with transaction() as session:  # ends before the hashing: no connection waits for it
            known = accounts.by_email(session, address)
        verified = off_the_loop(verify_password, known.password_hash if known else None, body["password"])
        user = accounts.by_email(self.session, address)
        if not (verified and user and known and user.password_hash == known.password_hash):
            raise Unauthenticated("The address or the password is wrong.")
        return self.signed_in(user)


@blueprint.route("/auth/logout")
class Logout(Resource):
    @requires(SIGNED_IN)
    @blueprint.shows_nothing()
    def post(self) -> None:
        """End this session."""
        sessions.end(self.session, self.actor, self.actor.session_id)


@blueprint.route("/me")
class Me(Resource):
    shown_as = UserSchema

    @requires(SIGNED_IN)
    @blueprint.shows(UserSchema)
    def get(self) -> User:
        """One's own account."""
        return accounts.get(self.session, self.actor.user_id)

    @requires(SIGNED_IN)
    @blueprint.body(ProfileSchema)
    @blueprint.shows(UserSchema)
    def patch(self, body: dict[str, str]) -> User:
        """Change one's name."""
        user = accounts.get(self.session, self.actor.user_id, for_update=True)
        self.check_match(user)
        users.rename(self.session, user, name=body["name"])
        return user


@blueprint.route("/me/sessions")
class Sessions(Resource):
    @requires(SIGNED_IN)
    @blueprint.query(PageQuery)
    @blueprint.lists(SessionSchema)
    def get(self, query: dict[str, Any]) -> dict[str, Any]:
        """One's sessions, newest first; `current` marks the one that asks."""
        return envelope(accounts.sessions(self.session, self.actor, page_from(query)))

    @requires(SIGNED_IN)
    @blueprint.shows_nothing()
    def delete(self) -> None:
        """End all sessions but the one that asks."""
        sessions.end_others(self.session, self.actor)


@blueprint.route("/me/sessions/<uuid:session_id>")
class Session(Resource):
    @requires(SIGNED_IN)
    @blueprint.shows_nothing()
    def delete(self, session_id: UUID) -> None:
        """End one session; it is refused on its next request."""
        found = accounts.get_session(self.session, self.actor, session_id)
        sessions.end(self.session, self.actor, found.id)
