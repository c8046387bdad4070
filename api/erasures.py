"""Erasing one's own account."""

from api.blueprint import Blueprint
from api.hashing import ChecksPassword
from api.limits import limit_sign_in
from api.resource import SIGNED_IN, requires
from api.schemas.erasures import EraseSchema, ErasureSchema
from api.second_factors import check_code, wrong_password
from models.operations import erasures, second_factors
from models.operations.second_factors import Checked
from models.tables import Erasure

blueprint = Blueprint("erasures", "Erasing one's account")


@blueprint.route("/me/erase")
class Erase(ChecksPassword):
    decorators = [limit_sign_in]
    checked: Checked

    def prepare_post(self) -> None:
        actor, body = self.check_password(EraseSchema, "password")
        if self.password_was_right:
            self.checked = check_code(actor, body.get("code"))

    @requires(SIGNED_IN)
    @blueprint.body(EraseSchema)
    @blueprint.shows(ErasureSchema, 202)
    def post(self, body: dict[str, str]) -> Erasure:
        """
        Erase one's account, for good: name, address, every sign-in, key and membership at once, and then where one's acts in
        the teams' activity logs came from. 409 with `teams` while one owns any: hand them over or delete them first.
        """
        locked = erasures.lock(self.session, self.actor.user_id)
        if not self.password_is_of(locked.user):
            raise wrong_password()
        second_factors.uphold(self.session, locked.user, self.checked)
        return erasures.erase(self.session, locked, in_person=True)
