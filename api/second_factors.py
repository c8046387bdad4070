"""The second factor (TOTP) and its recovery codes."""

from typing import Any

from api.authentication import credential
from api.blueprint import Blueprint
from api.hashing import ChecksPassword, PreparedResource, read_body
from api.limits import limit_sign_in, limit_sign_in_by_post
from api.resource import SIGNED_IN, Resource, requires
from api.schemas.second_factors import (
    CodeSchema,
    RecoveryCodesSchema,
    SecondFactorBeginSchema,
    SecondFactorDisableSchema,
    SecondFactorSchema,
    SecondFactorSetupSchema,
)
from models.access.actor import Actor
from models.access.entry import enter
from models.database import transaction
from models.errors import Invalid
from models.operations import second_factors
from models.operations.second_factors import Checked, Setup, Status
from models.queries import users
from models.tables import User

blueprint = Blueprint("second_factors", "The second factor and its recovery codes")


class OneselfLocked(Resource):
    """What the routes below have in common: the actor's own account, which nobody else changes meanwhile."""

    def lock_oneself(self) -> User:
        return users.get(self.session, self.actor.user_id, for_update=True)

    def show_codes(self, codes: list[str]) -> dict[str, Any]:
        self.secret_of = self.actor.user_id
        return {"recovery_codes": codes}


def check_code(actor: Actor, code: str | None) -> Checked:
    """In a transaction of its own, since a wrong code is counted although the request is rolled back."""
    with transaction() as session:
        return second_factors.check(
            session, actor.user_id, code, origin=actor.origin, wrong=second_factors.wrong_code()
        )


def wrong_password() -> Invalid:
    return Invalid({"password": ["This is not your password."]})


@blueprint.route("/me/two-factor")
class SecondFactor(ChecksPassword, OneselfLocked):
    decorators = [limit_sign_in_by_post]

    @requires(SIGNED_IN)
    @blueprint.shows(SecondFactorSchema)
    def get(self) -> Status:
        """Whether one has a second factor, and how many recovery codes are left."""
        return second_factors.status(self.session, self.actor)

    def prepare_post(self) -> None:
        self.check_password(SecondFactorBeginSchema, "password")

    @requires(SIGNED_IN)
    @blueprint.body(SecondFactorBeginSchema)
    @blueprint.shows(SecondFactorSetupSchema, 201)
    def post(self, body: dict[str, str]) -> Setup:
        """Begin to set up a second factor, or begin anew; it counts once a first code of it was confirmed."""
        user = self.lock_oneself()
        if not self.password_is_of(user):
            raise wrong_password()
        self.secret_of = user.id
        return second_factors.begin(self.session, user)


@blueprint.route("/me/two-factor/confirm")
class SecondFactorConfirmation(OneselfLocked):
    decorators = [limit_sign_in]

    @requires(SIGNED_IN)
    @blueprint.body(CodeSchema)
    @blueprint.shows(RecoveryCodesSchema)
    def post(self, body: dict[str, str]) -> dict[str, Any]:
        """Enable the second factor by its first code; it ends all sessions but the one that asks."""
        user = self.lock_oneself()
        return self.show_codes(second_factors.confirm(self.session, self.actor, user, code=body["code"]))


@blueprint.route("/me/two-factor/recovery-codes")
class RecoveryCodes(PreparedResource, OneselfLocked):
    decorators = [limit_sign_in]
    checked: Checked

    def prepare_post(self) -> None:
        with transaction() as session:
            actor = enter(session, credential())
        self.checked = check_code(actor, read_body(CodeSchema)["code"])

    @requires(SIGNED_IN)
    @blueprint.body(CodeSchema)
    @blueprint.shows(RecoveryCodesSchema)
    def post(self, body: dict[str, str]) -> dict[str, Any]:
        """New recovery codes, in place of the old ones."""
        user = self.lock_oneself()
        second_factors.uphold_own(self.session, user, self.checked)
        return self.show_codes(second_factors.renew_recovery_codes(self.session, self.actor, user))


@blueprint.route("/me/two-factor/disable")
class SecondFactorDisabling(ChecksPassword, OneselfLocked):
    decorators = [limit_sign_in]
    checked: Checked

    def prepare_post(self) -> None:
        actor, body = self.check_password(SecondFactorDisableSchema, "password")
        if self.password_was_right:
            self.checked = check_code(actor, body["code"])

    @requires(SIGNED_IN)
    @blueprint.body(SecondFactorDisableSchema)
    @blueprint.shows_nothing()
    def post(self, body: dict[str, str]) -> None:
        """Take one's second factor away."""
        user = self.lock_oneself()
        if not self.password_is_of(user):
            raise wrong_password()
        second_factors.uphold_own(self.session, user, self.checked)
        second_factors.disable(self.session, user, origin=self.actor.origin)
