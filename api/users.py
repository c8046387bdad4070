"""Accounts, signing in and out, one's own sessions and what happened to one's account."""

from typing import Any
from uuid import UUID

from api import cookies
from api.authentication import origin
from api.blueprint import Blueprint
from api.hashing import PreparedResource, read_body
from api.limits import limit_sign_in
from api.offload import off_the_loop
from api.pagination import envelope, page_from
from api.resource import PUBLIC, SIGNED_IN, Resource, requires
from api.schemas.base import PageQuery
from api.schemas.users import (
    AccountEventSchema,
    LoginSchema,
    ProfileSchema,
    RegisterSchema,
    SessionSchema,
    SignedInSchema,
    UserSchema,
    VerifyEmailSchema,
)
from models.access.emails import normalize_email
from models.access.passwords import hash_password, verify_password
from models.database import transaction
from models.errors import Unauthenticated
from models.operations import account_events as account_event_operations
from models.operations import second_factors, sessions, users
from models.operations.second_factors import Checked
from models.queries import account_events
from models.queries import users as accounts
from models.settings import settings
from models.tables import User

blueprint = Blueprint("users", "Accounts, sign-in and sessions")


class SigningIn(PreparedResource):
    """What registering and signing in have in common: the answer, and its secret."""

    decorators = [limit_sign_in]

    def signed_in(self, user: User, *, cookie: bool) -> dict[str, Any]:
        opened, token = sessions.open_session(
            self.session, user, origin=origin(), days=settings().session_days
        )
        self.secret_of = opened.id
        if cookie:
            cookies.set_on_answer(token, opened.expires_at)
            return {"user": user, "expires_at": opened.expires_at}
        return {"user": user, "token": token, "expires_at": opened.expires_at}


@blueprint.route("/auth/register")
class Register(SigningIn):
    password_hash: str

    def prepare_post(self) -> None:
        self.password_hash = off_the_loop(hash_password, read_body(RegisterSchema)["password"])

    @requires(PUBLIC)
    @blueprint.body(RegisterSchema)
    @blueprint.shows(SignedInSchema, 201)
    def post(self, body: dict[str, Any]) -> dict[str, Any]:
        """Make an account and sign in; a mail to verify the address follows."""
        user = users.register(
            self.session,
            email=body["email"],
            name=body["name"],
            password_hash=self.password_hash,
            origin=origin(),
        )
        answer = self.signed_in(user, cookie=body["cookie"])
        self.secret_of = user.id
        return answer


@blueprint.route("/auth/login")
class Login(SigningIn):
    verified_hash: str | None = None
    """Of the password that was right; None for a wrong one."""
    checked: Checked

    def prepare_post(self) -> None:
        body = read_body(LoginSchema)
        address = normalize_email(body["email"])
        with transaction() as session:  # ends before the hashing: no connection waits for it
            known = accounts.by_email(session, address)
        verified = off_the_loop(verify_password, known.password_hash if known else None, body["password"])
        if not (verified and known):
            record_failure(address, "password")
            return
        self.verified_hash = known.password_hash
        with transaction() as session:  # its own: a wrong code is counted although the request is rolled back
            self.checked = second_factors.check(
                session,
                known.id,
                body.get("code"),
                origin=origin(),
                wrong=Unauthenticated("The code is wrong."),
            )
        if isinstance(self.checked.refusal, Unauthenticated):
            record_failure(address, "code")

    @requires(PUBLIC)
    @blueprint.body(LoginSchema)
    @blueprint.shows(SignedInSchema)
    @blueprint.refuses(401)
    def post(self, body: dict[str, Any]) -> dict[str, Any]:
        """
        Sign in. The answer, and the time that it takes, are the same for an unknown address and a wrong password.

        With a second factor, the right password alone is answered 401 `second_factor_required`; after five wrong codes in a
        row no code is looked at for 15 minutes (429).
        """
        user = accounts.by_email(self.session, normalize_email(body["email"]), for_update=True)
        if not (user and user.password_hash == self.verified_hash):
            raise Unauthenticated("The address or the password is wrong.")
        second_factors.uphold(self.session, user, self.checked)
        return self.signed_in(user, cookie=body["cookie"])


def record_failure(address: str, wrong: str) -> None:
    """In a transaction of its own: the refusal rolls the request's back."""
    with transaction() as session:
        account_event_operations.record_failed_sign_in(session, address, origin=origin(), wrong=wrong)


@blueprint.route("/auth/verify-email")
class EmailVerification(Resource):
    decorators = [limit_sign_in]

    @requires(PUBLIC)
    @blueprint.body(VerifyEmailSchema)
    @blueprint.shows_nothing()
    def post(self, body: dict[str, str]) -> None:
        """Prove by a mailed token that one reads the address of one's account."""
        users.verify_email(self.session, token=body["token"], origin=origin())


@blueprint.route("/auth/logout")
class Logout(Resource):
    @requires(SIGNED_IN)
    @blueprint.shows_nothing()
    def post(self) -> None:
        """End this session."""
        sessions.end(self.session, self.actor, self.actor.session_id)
        if cookies.token():
            cookies.clear_on_answer()


@blueprint.route("/me")
class Me(Resource):
    shown_as = UserSchema
    reads_alone = True

    @requires(SIGNED_IN)
    @blueprint.shows(UserSchema)
    def get(self) -> Any:
        """One's own account."""
        return accounts.shown(self.session, self.actor.user_id)

    @requires(SIGNED_IN)
    @blueprint.body(ProfileSchema)
    @blueprint.shows(UserSchema)
    def patch(self, body: dict[str, str]) -> User:
        """Change one's name."""
        user = accounts.get(self.session, self.actor.user_id, for_update=True)
        self.check_match(user)
        users.rename(self.session, self.actor, user, name=body["name"])
        return user


@blueprint.route("/me/verify-email")
class MyEmailVerification(Resource):
    decorators = [limit_sign_in]

    @requires(SIGNED_IN)
    @blueprint.shows_nothing()
    def post(self) -> None:
        """Send the mail to verify one's address again, unless it is verified."""
        users.request_verification(self.session, accounts.get(self.session, self.actor.user_id))


@blueprint.route("/me/activity")
class MyActivity(Resource):
    @requires(SIGNED_IN)
    @blueprint.query(PageQuery)
    @blueprint.lists(AccountEventSchema)
    def get(self, query: dict[str, Any]) -> dict[str, Any]:
        """What happened to one's account, newest first: sign-ins, failed ones, changes."""
        return envelope(account_events.of_actor(self.session, self.actor, page_from(query)))


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
