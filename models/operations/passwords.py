"""Changing a password, and resetting one that was forgotten."""

from sqlalchemy.orm import Session

from models.access.actor import Actor, Origin
from models.operations import account_events, mailed_tokens, mails, second_factors, sessions, users
from models.operations.account_events import AccountAction
from models.tables import User
from models.tables.accounts import RESET_PASSWORD


def change(session: Session, actor: Actor, user: User, *, password_hash: str) -> None:
    """Sets another password and ends all other sessions. The caller has locked the user and seen the present password."""
    user.password_hash = password_hash
    mailed_tokens.end(session, user.id, RESET_PASSWORD)
    ended = sessions.end_all(session, user.id, save=actor.session_id)
    account_events.record(
        session, user.id, AccountAction.password_changed, actor.origin, sessions_ended=ended
    )
    mails.enqueue(session, mails.PASSWORD_CHANGED, user)


def reset(session: Session, *, token: str, password_hash: str, origin: Origin) -> None:
    """
    Sets another password by a mailed token, which is used up, and ends all sessions; raises Invalid for a token that is not good.

    Whoever has the token reads the address, so it is verified. If it never was before, someone else may have made the
    account: a second factor of theirs would lock out the address's owner, and goes.
    """
    user = mailed_tokens.take(session, token, RESET_PASSWORD)
    user.password_hash = password_hash
    if user.email_verified_at is None:
        users.mark_verified(session, user, origin=origin)
        second_factors.disable(session, user, origin=origin, reason="address_was_unverified")
    ended = sessions.end_all(session, user.id)
    account_events.record(session, user.id, AccountAction.password_reset, origin, sessions_ended=ended)
    mails.enqueue(session, mails.PASSWORD_CHANGED, user)
