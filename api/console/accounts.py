"""Pages of people and their accounts: signing in, registering, resetting, accepting an invitation."""

from typing import Any

from flask import redirect, request
from werkzeug.wrappers import Response

from api import cookies
from api.authentication import credential
from api.console.page import Page, blueprint
from api.resource import PUBLIC, SIGNED_IN, requires
from models.access.credentials import hash_secret
from models.access.entry import enter
from models.errors import Unauthenticated
from models.queries import invitations, teams
from models.queries.paging import Page as PageOfRows


def next_page() -> str:
    """Where to go after signing in: a path of ours, and no other site's address."""
    wanted = request.args.get("next", "/")
    return wanted if wanted.startswith("/") and not wanted.startswith(("//", "/\\")) else "/"


class Home(Page):
    """Whoever is signed in goes to their first team."""

    @requires(SIGNED_IN)
    def get(self) -> Response:
        mine = teams.mine(self.session, self.actor, PageOfRows(limit=1)).items
        return redirect(f"/teams/{mine[0].team.id}" if mine else "/teams/new")


class SignIn(Page):
    template = "sign_in.html"

    @requires(PUBLIC)
    def get(self) -> Any:
        if cookies.token():
            try:
                enter(self.session, credential())
            except Unauthenticated:
                cookies.clear_on_answer()
            else:
                return redirect(next_page())
        return {"next": next_page()}


class Register(Page):
    template = "register.html"

    @requires(PUBLIC)
    def get(self) -> Any:
        return {"next": next_page()}


class RequestReset(Page):
    template = "request_reset.html"

    @requires(PUBLIC)
    def get(self) -> Any:
        return {}


class ResetPassword(Page):
    template = "reset_password.html"

    @requires(PUBLIC)
    def get(self) -> Any:
        return {"token": request.args.get("token", "")}


class VerifyEmail(Page):
    template = "verify_email.html"

    @requires(PUBLIC)
    def get(self) -> Any:
        return {"token": request.args.get("token", "")}


class AcceptInvitation(Page):
    """By the mailed link; who is not signed in does so first, or registers."""

    template = "accept_invitation.html"

    @requires(SIGNED_IN)
    def get(self) -> Any:
        token = request.args.get("token", "")
        waiting = invitations.mine(self.session, self.actor, PageOfRows()).items
        secret = hash_secret(token)
        named = next(
            (v for v in waiting if secret in {v.invitation.token_hash, v.invitation.mailed_token_hash}), None
        )
        return {
            "token": token,
            "named": named,
            "waiting": [view for view in waiting if view is not named],
        }


class NewTeam(Page):
    """With the reader's own teams that are deleted and can be brought back."""

    template = "new_team.html"

    @requires(SIGNED_IN)
    def get(self) -> Any:
        deleted = teams.mine(self.session, self.actor, PageOfRows(limit=100), deleted=True)
        return {"deleted": deleted.items, "restorable_for": teams.RESTORABLE_FOR}


for rule, page in (
    ("/", Home),
    ("/sign-in", SignIn),
    ("/register", Register),
    ("/forgot-password", RequestReset),
    ("/reset-password", ResetPassword),
    ("/verify-email", VerifyEmail),
    ("/invitations/accept", AcceptInvitation),
    ("/teams/new", NewTeam),
):
    blueprint.add_url_rule(rule, view_func=page.as_view(page.__name__))
