"""Accounts: registering, changing one's own, and proving to read its address."""

from sqlalchemy import func
from sqlalchemy.orm import Session

from models.access.actor import Actor, Origin
from models.access.emails import normalize_email
from models.operations import account_events, mailed_tokens, mails
from models.operations.account_events import AccountAction
from models.operations.changes import apply_changes
from models.tables import User
from models.tables.accounts import VERIFY_EMAIL


def register(
    session: Session, *, email: str, name: str, password_hash: str, origin: Origin | None = None
) -> User:
    """A new account, whose address gets a mail to verify it; raises EmailTaken."""
    user = User(
        email=email.strip(), email_normalized=normalize_email(email), name=name, password_hash=password_hash
    )
    session.add(user)
    session.flush()  # the id, the time and a taken address are known only now
    account_events.record(session, user.id, AccountAction.registered, origin or Origin())
    mails.enqueue(session, VERIFY_EMAIL, user)
    return user


def rename(session: Session, actor: Actor, user: User, *, name: str) -> None:
    """Changes the name; the caller has locked the row."""
    if changes := apply_changes(session, user, {"name": name}):
        account_events.record(session, user.id, AccountAction.profile_updated, actor.origin, changes=changes)


def request_verification(session: Session, user: User) -> None:
    """Sends the mail to verify the address again; nothing when it is verified."""
    if user.email_verified_at is None:
        mails.enqueue(session, VERIFY_EMAIL, user)


def verify_email(session: Session, *, token: str, origin: Origin) -> None:
    """The address of the mailed token's user is verified; raises Invalid for a token that is not good."""
    mark_verified(session, mailed_tokens.take(session, token, VERIFY_EMAIL), origin=origin)


def mark_verified(session: Session, user: User, *, origin: Origin) -> None:
    """The user has proved to read their address; once is enough. The caller has locked the user."""
    if user.email_verified_at is None:
        user.email_verified_at = func.now()
        account_events.record(session, user.id, AccountAction.email_verified, origin)
